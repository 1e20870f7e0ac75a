#pragma once
// Nodes of one kind by how many of their GPUs are free. A job of up to one node's GPUs lies on one node; a
// larger one on whole nodes and, for what is left, on one more.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace th::sim {

using Place = std::vector<std::pair<int32_t, int32_t>>;  // (node, GPUs)

class NodePool {
 public:
  NodePool(int32_t nodes, int32_t gpus_per_node);

  int32_t per_node() const { return per_node_; }
  int64_t free() const { return free_gpus_; }
  int32_t free(int32_t node) const { return free_[static_cast<size_t>(node)]; }

  /// Takes the fullest nodes with room. False: there is no room, and `place` is empty. Hidden nodes are not
  /// looked at. Cost: O(GPUs of a node + nodes taken).
  bool take(int32_t gpus, Place& place);
  bool fits(int32_t gpus) const;
  void take_on(int32_t node, int32_t gpus);  // hidden or not; there must be room
  void give(const Place& place);

  void hide(int32_t node);
  void show(int32_t node);

 private:
  std::vector<int32_t>& bucket(int32_t free) { return by_free_[static_cast<size_t>(free)]; }
  const std::vector<int32_t>& bucket(int32_t free) const { return by_free_[static_cast<size_t>(free)]; }
  int32_t tightest(int32_t gpus) const;
  void set_free(int32_t node, int32_t free);
  void unlist(int32_t node);
  void list(int32_t node);

  int32_t per_node_;
  int64_t free_gpus_;
  std::vector<int32_t> free_;
  std::vector<int32_t> at_;                    // in its bucket; -1: hidden
  std::vector<std::vector<int32_t>> by_free_;  // nodes with that many free GPUs
};

/// Which nodes a job could take if some others went: those are added one by one, until it fits.
/// Reused between questions, since its tables are as long as the cluster.
class RoomFinder {
 public:
  explicit RoomFinder(const NodePool& pool, int32_t nodes);
  /// Starts a question. Cost: O(nodes touched by the last one).
  void ask(int32_t gpus);
  /// These GPUs would be free too. True: now it fits, on nodes().
  bool add(const Place& place);
  /// In the shape of `take`: whole nodes first.
  const Place& nodes() const { return found_; }
  /// Free on the node, with all that was added.
  int32_t free(int32_t node) const { return pool_.free(node) + gain_[static_cast<size_t>(node)]; }

 private:
  bool found();

  const NodePool& pool_;
  int32_t nodes_, gpus_ = 0, whole_ = 0, rest_ = 0;
  std::vector<int32_t> gain_, touched_;
  int32_t empty_ = 0;  // nodes that are wholly free, with the gains
  Place found_;
};

}  // namespace th::sim
