#pragma once
// Copies what jobs read while their machines boot, where the nodes see this machine's STATE/jobs (kinds local
// and libvirt). Thread: the loop only; each copy has a thread of its own.

#include <atomic>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "control/core.h"
#include "node/user.h"
#include "request/job_spec.h"

namespace th::control {

class Stager {
 public:
  explicit Stager(Core& core) : core_(core) {}

  /// Begins to fill the job's folder. The node does the same when it starts the ranks: it finds what is there
  /// already, waits for nothing, and tells what is wrong.
  void begin(const std::string& job, const request::JobSpec& spec, const std::string& account);
  /// The user of the account's ranks, who has a number from here on, on whichever node they start; none: this
  /// process's. Errors: of node::user_of.
  Result<std::optional<node::User>> user_of(const std::string& account) const;

 private:
  bool nodes_see_jobs() const;

  static constexpr size_t kMaxCopies = 4;  // at once; the nodes of further jobs copy for themselves
  struct Copy {
    std::shared_ptr<std::atomic<bool>> done;
    std::jthread worker;
  };

  Core& core_;
  std::list<Copy> copies_;
};

}  // namespace th::control
