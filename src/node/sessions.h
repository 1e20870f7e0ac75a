#pragma once
// The sessions of one node. Thread: the node's main thread.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "node/link.h"
#include "node/session.h"

namespace th::node {

class Sessions {
 public:
  /// `find_rank`: the rank of a task, null if it is not here. All of these outlive this.
  Sessions(const NodeConfig& config, const Link& link, std::function<const Rank*(const TaskId&)> find_rank)
      : config_(config), link_(link), find_rank_(std::move(find_rank)) {}
  /// Starts those that are new.
  void add(const std::vector<SessionSpec>& wanted);
  /// Ends those whose task has ended, forgets those that are over.
  void tidy();
  /// Reaps the zombie if it is of a session.
  bool reap(pid_t pid);

 private:
  void end_orphan(Session& session);

  const NodeConfig& config_;
  const Link& link_;
  const std::function<const Rank*(const TaskId&)> find_rank_;
  std::map<std::string, Session> sessions_;  // by their id
};

}  // namespace th::node
