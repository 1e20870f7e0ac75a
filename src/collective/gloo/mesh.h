#pragma once
// Messages between ranks over Gloo's TCP transport. The only files that know Gloo.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "collective/gloo/meeting.h"

namespace th::collective {

/// Bytes that go to, or come from, a rank.
struct Part {
  int rank = 0;
  std::span<std::byte> data;
};

/// Thread: one owner; abort() from any. A broken connection must not end the process: SIGPIPE is ignored from
/// here on, unless the program handles it.
class Mesh {
 public:
  /// A connection to each of `ranks`, who name us, too. Errors: kUnavailable, naming a rank. `meeting` must
  /// outlive it.
  static Result<Mesh> connect(Meeting& meeting, const std::set<int>& ranks);
  Mesh(Mesh&&) noexcept;
  ~Mesh();

  /// All at once; returns when ours are sent and theirs have come. At most one part to and from a rank; the
  /// peer expects the same size under the same `tag`, which is used once. Empty parts are not sent. Errors:
  /// kUnavailable.
  Status exchange(std::span<const Part> sends, std::span<const Part> receives, uint64_t tag);
  /// Ends an exchange under way, and all later ones, with an error.
  void abort();

 private:
  class Impl;
  explicit Mesh(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::collective
