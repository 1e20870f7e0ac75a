#pragma once
// The simulated nodes of the cloud's VMs and the ranks on them: they say what th-node says, to the same code
// of the control plane. Thread: one owner.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "node/protocol.h"
#include "sim/world/cloud.h"

namespace th::sim {

/// How nodes reach the control plane.
class ControlLink {
 public:
  using OnReply = std::function<void(const Result<node::SyncReply>&)>;
  virtual ~ControlLink() = default;
  /// A long poll. `on_reply` is called once, or never when the control plane dies over it.
  virtual void sync(const std::string& vm, const std::string& token, const node::SyncRequest& request,
                    int64_t wait_ns, OnReply on_reply) = 0;
};

/// What a simulated rank does: argv is {"run", milliseconds, how}; how: "well" exits with 0, "badly" with 1.
std::vector<std::string> rank_command(int64_t milliseconds, bool well);

class SimNodes {
 public:
  SimNodes(Clock& clock, uint64_t seed, SimCloud& cloud, ControlLink& link);

  // Faults. Each names a VM whose node runs.
  void cut_off(const std::string& vm, int64_t duration_ns);  // ranks go on; nothing gets through
  void reboot(const std::string& vm);                        // all its ranks are gone
  void kill_rank(const std::string& vm);                     // the first that runs, by a signal
  std::vector<std::string> running() const;

  /// Chances in parts of 1,000: that a message is lost; that a fresh node fails its validation.
  int64_t loses_messages = 0, fails_validation = 0;
  bool starts_half_gangs = false;  // a planted fault: odd ranks are told as running and never start

  /// Ranks of one attempt whose process was really started, whatever became of it.
  std::set<int> started(const std::string& job, int attempt) const;
  /// What went wrong on a node: two ranks on one GPU.
  std::function<void(const std::string& what)> on_conflict;

 private:
  struct Rank {
    node::TaskReport report;
    std::vector<int> gpus;
    bool alive = false, stopping = false;
  };
  struct Node {
    std::string vm, token, boot_id;
    int64_t serial = 0, have_generation = 0, talk = 0, cut_off_until_ns = 0;
    bool valid = true, dismissed = false;
    std::map<std::string, Rank> ranks;  // by task id
  };

  void boot(const std::string& vm, int64_t serial);
  void say(Node& node);
  void send(const std::string& vm, int64_t talk, const node::SyncRequest& request);
  void hear(const std::string& vm, int64_t talk, const Result<node::SyncReply>& reply);
  void obey(Node& node, const node::SyncReply& reply);
  void start(Node& node, const node::Task& task);
  void stop(Node& node, const std::string& task);
  void change(const std::string& boot_id, const std::string& vm, const std::string& task,
              const std::function<void(Node&, Rank&)>& change);
  Node* find(const std::string& vm);
  int64_t between(int64_t low_ns, int64_t high_ns) {
    return low_ns + static_cast<int64_t>(prng_.below(static_cast<uint64_t>(high_ns - low_ns + 1)));
  }
  bool chance(int64_t per_mille) {
    return per_mille > 0 && static_cast<int64_t>(prng_.below(1000)) < per_mille;
  }

  Clock& clock_;
  Prng prng_;
  SimCloud& cloud_;
  ControlLink& link_;
  std::map<std::string, Node> nodes_;  // by VM
  std::map<std::pair<std::string, int>, std::set<int>> started_;
};

}  // namespace th::sim
