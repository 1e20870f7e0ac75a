#include "sim/queue/pool.h"

#include <algorithm>

#include "base/result.h"

namespace th::sim {

NodePool::NodePool(int32_t nodes, int32_t gpus_per_node)
    : per_node_(gpus_per_node), free_gpus_(int64_t{nodes} * gpus_per_node) {
  free_.assign(static_cast<size_t>(nodes), gpus_per_node);
  at_.resize(static_cast<size_t>(nodes));
  by_free_.resize(static_cast<size_t>(gpus_per_node) + 1);
  for (int32_t node = nodes; node-- > 0;) list(node);
}

void NodePool::unlist(int32_t node) {
  int32_t& at = at_[static_cast<size_t>(node)];
  auto& nodes = bucket(free(node));
  nodes[static_cast<size_t>(at)] = nodes.back();
  at_[static_cast<size_t>(nodes.back())] = at;
  nodes.pop_back();
  at = -1;
}

void NodePool::list(int32_t node) {
  auto& nodes = bucket(free(node));
  at_[static_cast<size_t>(node)] = static_cast<int32_t>(nodes.size());
  nodes.push_back(node);
}

void NodePool::hide(int32_t node) {
  if (at_[static_cast<size_t>(node)] >= 0) unlist(node);
}

void NodePool::show(int32_t node) {
  if (at_[static_cast<size_t>(node)] < 0) list(node);
}

void NodePool::set_free(int32_t node, int32_t free) {
  TH_CHECK(free >= 0 && free <= per_node_);
  const bool listed = at_[static_cast<size_t>(node)] >= 0;
  if (listed) unlist(node);
  free_gpus_ += free - free_[static_cast<size_t>(node)];
  free_[static_cast<size_t>(node)] = free;
  if (listed) list(node);
}

int32_t NodePool::tightest(int32_t gpus) const {
  for (int32_t free = gpus; free <= per_node_; ++free)
    if (!bucket(free).empty()) return bucket(free).back();
  return -1;
}

bool NodePool::fits(int32_t gpus) const {
  if (gpus > free_gpus_) return false;
  if (gpus <= per_node_) return tightest(gpus) >= 0;
  const int32_t whole = gpus / per_node_, rest = gpus % per_node_;
  const auto empty = static_cast<int32_t>(bucket(per_node_).size());
  if (empty < whole) return false;
  if (rest == 0 || empty > whole) return true;
  for (int32_t free = rest; free < per_node_; ++free)
    if (!bucket(free).empty()) return true;
  return false;
}

bool NodePool::take(int32_t gpus, Place& place) {
  place.clear();
  if (!fits(gpus)) return false;
  for (; gpus > 0;) {
    const int32_t part = std::min(gpus, per_node_);
    const int32_t node = tightest(part);
    take_on(node, part);
    place.emplace_back(node, part);
    gpus -= part;
  }
  return true;
}

void NodePool::take_on(int32_t node, int32_t gpus) { set_free(node, free(node) - gpus); }

void NodePool::give(const Place& place) {
  for (auto [node, gpus] : place) set_free(node, free(node) + gpus);
}

RoomFinder::RoomFinder(const NodePool& pool, int32_t nodes) : pool_(pool), nodes_(nodes) {
  gain_.assign(static_cast<size_t>(nodes), 0);
}

void RoomFinder::ask(int32_t gpus) {
  for (int32_t node : touched_) gain_[static_cast<size_t>(node)] = 0;
  touched_.clear();
  gpus_ = gpus;
  whole_ = gpus / pool_.per_node();
  rest_ = gpus % pool_.per_node();
  empty_ = 0;
  if (whole_ == 0) return;
  for (int32_t node = 0; node < nodes_; ++node) empty_ += pool_.free(node) == pool_.per_node() ? 1 : 0;
}

bool RoomFinder::add(const Place& place) {
  bool enough = false;
  for (auto [node, gpus] : place) {
    int32_t& gain = gain_[static_cast<size_t>(node)];
    if (gain == 0) touched_.push_back(node);
    gain += gpus;
    if (whole_ > 0 && free(node) == pool_.per_node()) ++empty_;
    if (whole_ == 0 && free(node) >= rest_ && !enough) {
      enough = true;
      found_.assign(1, {node, rest_});
    }
  }
  return whole_ == 0 ? enough : empty_ >= whole_ && found();
}

/// Nodes that are empty as it is go first, so that as few as possible have to be made so.
bool RoomFinder::found() {
  found_.clear();
  const int32_t whole = pool_.per_node();
  int32_t rest_node = -1;
  for (bool gained : {false, true}) {
    for (int32_t node = 0; node < nodes_; ++node) {
      if ((gain_[static_cast<size_t>(node)] > 0) != gained) continue;
      if (free(node) == whole && static_cast<int32_t>(found_.size()) < whole_) {
        found_.emplace_back(node, whole);
      } else if (rest_node < 0 && rest_ > 0 && free(node) >= rest_) {
        rest_node = node;
      }
    }
  }
  if (static_cast<int32_t>(found_.size()) < whole_) return false;
  if (rest_ > 0 && rest_node < 0) return false;
  if (rest_ > 0) found_.emplace_back(rest_node, rest_);
  return true;
}

}  // namespace th::sim
