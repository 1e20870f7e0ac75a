#pragma once
// Where the ranks of several hosts find each other, and who watches over them: a hub in the process of rank 0
// that listens on MASTER_ADDR:MASTER_PORT, and a connection to it from every rank. See docs/collectives.md.

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "collective/collective.h"
#include "collective/gloo/frames.h"

namespace th::collective {

struct MeetingOptions {
  int64_t connect_timeout_ns = 30 * kSecond;  // for all ranks to come
  int64_t silence_ns = 4 * kSecond;           // a peer without a sign of life for so long is dead
  int64_t leave_timeout_ns = 4 * kSecond;     // how long who leaves waits for the others to leave, too
};

/// Thread: a meeting has one owner; `on_broken` is called by a thread of its own.
class Meeting {
 public:
  /// Blocks until all ranks are there. `memory` is the same on ranks that can share memory. Who can reach the
  /// port is trusted, as with any rendezvous of the field. Errors: kDeadlineExceeded, naming the ranks that
  /// did not come and where; kUnavailable, naming one that died meanwhile; kAlreadyExists (rank 0: the port
  /// is taken); kInvalidArgument (no port, an address that is no address, ranks that do not fit together).
  static Result<std::unique_ptr<Meeting>> join(const Rendezvous& rendezvous, const std::string& memory,
                                               const MeetingOptions& options);
  /// Leaves: waits at most leave_timeout_ns for the others, so that nobody misses what is on its way to it.
  ~Meeting();
  Meeting(Meeting&&) = delete;

  int rank() const { return rank_; }
  const std::vector<Place>& places() const { return welcome_.places; }  // by rank
  const std::string& address() const { return welcome_.address; }       // ours, as others reach it
  std::string name_of(int rank) const;                                  // "rank 2 on node n1"

  /// Gives each of the ranks its text and returns theirs, which name the same pairs. Call it once.
  Result<std::map<int, std::string>> swap(const std::map<int, std::string>& texts);

  /// Says which operation we are in, so that ranks which disagree are found out.
  void enter(const Beat& beat);

  /// Once, when the group breaks. Also called if it is broken already.
  void on_broken(std::function<void()> call);
  /// What broke the group, the same on all ranks; waits for up to `timeout_ns` as it may be on its way.
  std::optional<Error> broken(int64_t timeout_ns = 0);
  /// Tells the others that we cannot go on.
  void give_up(const std::string& why);
  /// What the destructor does, earlier.
  void leave();

 private:
  class Impl;
  explicit Meeting(std::unique_ptr<Impl> impl);

  int rank_ = 0;
  Welcome welcome_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::collective
