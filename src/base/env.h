#pragma once
// What the daemon takes from the machine and the simulator replaces: time and randomness.

#include <cstdint>
#include <string>

namespace th {

/// xoshiro256**, seeded by splitmix64; the same on every machine. Not for secrets (see random_token). Thread:
/// one owner.
class Prng {
 public:
  explicit Prng(uint64_t seed);
  uint64_t next();
  /// Uniform in [0, bound), bound > 0, without modulo bias.
  uint64_t below(uint64_t bound);
  /// Uniform in [0, 1), 53 bits.
  double uniform();
  /// Standard normal (Box–Muller, both values used).
  double normal();
  /// Exponential with the given mean.
  double exponential(double mean);

 private:
  uint64_t s_[4];
  bool has_spare_ = false;
  double spare_ = 0;
};

/// Thread: an Env is safe to call from any thread.
class Env {
 public:
  virtual ~Env() = default;
  /// Wall clock, nanoseconds since 1970. May jump.
  virtual int64_t unix_ns() const = 0;
  /// Never goes back; for deadlines and intervals.
  virtual int64_t monotonic_ns() const = 0;
  /// A fresh random token (keys, ids of VMs). The simulator's are seeded.
  virtual std::string token() = 0;

  /// The machine itself.
  static Env& real();
};

}  // namespace th
