#pragma once
// Gangs on th-node: turns gangs into the desired list of each VM, and reports of nodes into events of ranks.
// A value on the loop thread: no threads, no I/O, no clock.
//
//   launcher.start(gang);                                   // bumps the generation of its VMs
//   on sync of VM:   launcher.on_report(vm, request);
//                    for (Event& event : launcher.take_events()) ...;
//                    if (launcher.generation(vm) != request.have_generation) answer(launcher.desired(vm));
//                    else wait;

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "launch/launcher.h"
#include "node/protocol.h"

namespace th::launch {

class LocalLauncher final : public Launcher {
 public:
  /// Generations count from `first_generation`, which has to be over every one that an earlier controller
  /// gave out: the wall clock in nanoseconds does. Start every gang of the ledger (and restore_metrics)
  /// before the first on_report: a node that is told an empty list stops its ranks.
  explicit LocalLauncher(int64_t first_generation);

  Status start(GangSpec gang) override;
  void stop(std::string_view job) override;
  void signal(std::string_view job, int number, bool leader_only) override;
  void ack_metrics(const node::TaskId& task, int64_t line_no) override;
  std::vector<Event> take_events() override;

  /// A line of the task could not be stored: what was not acked makes events again when it is sent again.
  void refuse_metrics(const node::TaskId& task);

  void restore_metrics(const node::TaskId& task, int64_t line_no) override;

  /// Generation of the VM's desired list; changes whenever the list does.
  int64_t generation(std::string_view vm) const;
  /// What the VM must be running, and which metrics are stored. O(tasks of the VM).
  node::SyncReply desired(std::string_view vm) const;

  /// Takes a node's word in: metrics first, then ranks. Cost: O(tasks and lines in it).
  void on_report(std::string_view vm, const node::SyncRequest& request);

  /// Whether the VM has reported since this launcher was made, and was not lost since.
  bool heard(std::string_view vm) const;

  /// The VM is gone (dead process, deleted, silent for too long): its ranks are lost. `reason` is for people:
  /// "node demo-1 is down: process 4711 is gone". Start nothing on it any more.
  void on_vm_lost(std::string_view vm, std::string_view reason);

 private:
  struct Rank {
    node::Task task;
    std::string vm;
    node::TaskReport report;      // the last that was told
    bool seen = false;            // a node reported it
    bool gone = false;            // of a stopped gang: nothing of it is left
    int64_t stop_generation = 0;  // a list of this generation or later does not have it
    int64_t metrics_seen = 0;     // line_no of the last event
    int64_t metrics_stored = 0;   // line_no of the last ack
  };
  struct Gang {
    GangSpec spec;
    GangState state = GangState::kStarting;
    bool stopping = false;
    std::vector<Rank> ranks;
    std::map<std::string, std::vector<size_t>, std::less<>> by_vm;  // its ranks there
    size_t num_up = 0, num_succeeded = 0, num_gone = 0;             // up: run, or exited with 0
  };
  struct Vm {
    int64_t generation = 0;
    std::string boot_id;          // of its last report
    std::set<std::string> gangs;  // with ranks here: a gang may have thousands elsewhere
  };

  int64_t bump(const std::string& vm);
  Rank* find_rank(const node::TaskId& id);
  void take_metrics(std::string_view vm, const node::MetricsLine& line);
  void take_report(std::string_view vm, const node::TaskReport& report);
  void change(Gang& gang, Rank& rank, node::TaskReport report, bool lost);
  void settle(Gang& gang, const RankChanged& changed);
  void lose_ranks(std::string_view vm, std::string_view reason, bool only_seen);
  void lose(Gang& gang, Rank& rank);
  void drop_gone_gangs();

  int64_t first_generation_;
  int64_t last_generation_;
  std::map<std::string, Gang, std::less<>> gangs_;  // by job
  std::map<std::string, Vm, std::less<>> vms_;
  std::map<std::string, int64_t> restored_;  // task id text → line_no, until its gang starts
  std::vector<Event> events_;
};

}  // namespace th::launch
