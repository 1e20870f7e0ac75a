#pragma once
// The shared memory of one group: who is in it, how far each rank is, slots. See docs/collectives.md.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "collective/collective.h"
#include "collective/shm/connect.h"

namespace th::collective {

inline constexpr int kBanks = 3;      // slots of a rank that rounds use in turn
inline constexpr int kMailBanks = 2;  // and those for what it sends to one rank

/// What all ranks map first. Only lock-free atomics: the other side may die at any instruction.
struct SegmentHeader {
  uint32_t world_size;  // this and slot_bytes: by rank 0, before anyone else attaches
  uint64_t slot_bytes;
  std::atomic<uint32_t> attached;  // ranks that came
  std::atomic<uint32_t> released;  // 1 when all did
  std::atomic<int32_t> broken;     // rank + 1 of the first peer found dead or gone
};

/// Counts up; one rank raises it, others wait for it.
struct Counter {
  std::atomic<uint64_t> value;
  std::atomic<uint32_t> sleepers;  // who waits in the kernel (futex)
};

enum class PeerState : uint32_t { kAbsent, kAttached, kLeft };

/// One line of the table of ranks, what is written often on cache lines of its own.
struct alignas(128) PeerEntry {
  std::atomic<uint32_t> state;  // PeerState
  std::atomic<int32_t> pid;
  std::atomic<uint64_t> start_time;  // of the process, from /proc: a pid may be given again
  std::atomic<uint64_t> heartbeat_ns;
  // Rounds of which the rank has filled its slot, put its sum there, read the slots of all.
  alignas(64) Counter filled;
  Counter summed;
  Counter drained;
  // Which operation, size and kind the slot of a bank is of, so that ranks which disagree find out.
  std::atomic<uint64_t> signature[kBanks];
};

/// From one rank to another: pieces that were sent, and that were taken.
struct alignas(128) Mail {
  Counter sent;
  std::atomic<uint64_t> signature;  // of the message under way
  alignas(64) Counter taken;
};

/// Owns the mapping. Thread: entries and header from any thread, the rest from one.
class Segment {
 public:
  /// Joins the group; blocks until everyone is there or an error of connect_shm.
  static Result<Segment> join(const Rendezvous& rendezvous, const ShmOptions& options);
  Segment(Segment&& other) noexcept;
  Segment& operator=(Segment&&) = delete;
  ~Segment();

  SegmentHeader& header() const { return *static_cast<SegmentHeader*>(address_); }
  PeerEntry& peer(int rank) const;
  Mail& mail(int from, int to) const;
  /// Slots begin at multiples of 64 bytes and hold at least 64 bytes for each rank.
  std::span<std::byte> slot(int rank, int bank) const;
  std::span<std::byte> mail_slot(int rank, int bank) const { return slot(rank, kBanks + bank); }

 private:
  Segment(void* address, size_t bytes) : address_(address), bytes_(bytes) {}
  void* address_;
  size_t bytes_;
};

/// Start time of a process in clock ticks since boot; 0 when there is no such process or only its zombie is
/// left.
uint64_t process_start_time(int pid);

/// Empty while the rank's process lives, its heart beats and it has not left; else what is wrong, "rank 2
/// (pid 17) died".
std::string peer_problem(const PeerEntry& peer, const std::string& name, int64_t silence_ns);

/// What messages call the rank.
std::string name_of(const ShmOptions& options, int rank);

uint64_t monotonic_now_ns();

}  // namespace th::collective
