#pragma once
// The GPUs of a few nodes. A job of less than a node's GPUs lies on one node, a larger one on whole nodes.
// Private to sim/queue.

#include <cstdint>
#include <vector>

#include "sim/queue/pool.h"

namespace th::sim {

/// Whether a set of jobs fits on empty nodes, tried by decreasing size; exact where sizes are powers of two.
class MuriPacking {
 public:
  MuriPacking(int32_t nodes, int32_t gpus_per_node);
  /// False: it does not fit with the others, and was not added.
  bool add(int32_t gpus);

 private:
  bool small_fit() const;

  int32_t per_node_, whole_left_;
  int64_t free_;
  std::vector<int32_t> small_;  // how many jobs of each size below a node
};

class MuriNodes {
 public:
  MuriNodes(int32_t nodes, int32_t gpus_per_node);
  void clear();
  /// The first node with room. False: there is none, and nothing was taken.
  bool take_first_fit(int32_t gpus);
  /// The node with the least room that is enough; of those, and of whole nodes, the ones with the least in
  /// `avoid` first, if it is not empty.
  bool take_best_fit(int32_t gpus, std::vector<int64_t> avoid, Place& place);
  /// Exactly these. False: not all are free, and nothing was taken.
  bool take(const Place& place);
  void give(const Place& place);

 private:
  int32_t whole_nodes(int32_t gpus) const { return (gpus + per_node_ - 1) / per_node_; }

  int32_t per_node_;
  std::vector<int32_t> free_;
};

}  // namespace th::sim
