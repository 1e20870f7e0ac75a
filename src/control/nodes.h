#pragma once
// The controller's side of the node protocol (docs/protocols.md), and who is still alive. Thread: the loop
// only.

#include <map>
#include <string>
#include <vector>

#include "control/core.h"
#include "control/execs.h"
#include "control/job_output.h"
#include "control/slices.h"
#include "http/server.h"
#include "node/protocol.h"

namespace th::control {

class Nodes {
 public:
  Nodes(Core& core, Slices& slices, NodeChecks& checks, Execs& execs, JobOutput& output)
      : core_(core), slices_(slices), checks_(checks), execs_(execs), output_(output) {}

  /// The VM that dials in as `name` with this token. A node that does not know what its VM is called here
  /// gives the cloud's name for it; the token tells then. Errors: kPermissionDenied (no longer wanted: the
  /// node ends itself), kUnavailable (not known yet: the node tries again). Cost: O(1), but the first time of
  /// a cloud's name O(VMs).
  Result<std::string> identify(const std::string& name, const std::string& token);
  /// What the node of a VM tells, without an answer; it was heard.
  void take(const std::string& name, const node::SyncRequest& request);
  /// The node of a VM is there and has nothing to tell.
  void heard(const std::string& name) { seen_[name].heard_ns = core_.monotonic_ns(); }
  /// Takes a report in; the answer waits until it is durable and there is something new, at most `wait_ns`.
  void sync(const std::string& vm, const node::SyncRequest& request, int64_t wait_ns,
            http::Responder responder);
  Result<int64_t> log(const std::string& vm, const node::TaskId& task, int64_t offset,
                      std::string_view bytes);

  /// Asks the provider, looks for the silent.
  void step();
  /// Answers those who wait. Only when everything staged is durable.
  void answer_waiting();

  bool suspect(const std::string& vm) const;
  /// Nanoseconds since it was last heard of; -1: never.
  int64_t silent_ns(const std::string& vm) const;

 private:
  struct Seen {
    int64_t since_ns = 0;  // monotonic: known as up since
    int64_t heard_ns = 0;  // monotonic; 0: never
  };
  struct Waiting {
    http::Responder responder;
    int64_t have_generation = 0, deadline_ns = 0;
  };
  void ask_provider();
  void compare(const std::vector<cloud::VmState>& there, int64_t asked_ns);
  void remove_orphan(const std::string& vm);
  std::vector<std::string> watched() const;
  void look_for_silent(int64_t pause_ns);
  node::SyncReply reply(const std::string& vm);
  void take_validation(const ledger::Vm& vm, const node::SyncRequest& request);

  Core& core_;
  Slices& slices_;
  NodeChecks& checks_;
  Execs& execs_;
  JobOutput& output_;
  std::map<std::string, Seen> seen_;
  std::map<std::string, Waiting> waiting_;
  std::map<std::string, std::string> cloud_names_;  // → VM
  std::map<std::string, bool> orphans_;             // being removed
  bool asking_ = false;
  int64_t next_ask_ns_ = 0, last_step_ns_ = 0;
};

}  // namespace th::control
