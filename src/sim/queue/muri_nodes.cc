#include "sim/queue/muri_nodes.h"

#include <algorithm>

namespace th::sim {

MuriPacking::MuriPacking(int32_t nodes, int32_t gpus_per_node)
    : per_node_(gpus_per_node), whole_left_(nodes), free_(int64_t{nodes} * gpus_per_node) {
  small_.assign(static_cast<size_t>(gpus_per_node), 0);
}

bool MuriPacking::add(int32_t gpus) {
  if (gpus > free_) return false;
  const int32_t whole = gpus >= per_node_ ? (gpus + per_node_ - 1) / per_node_ : 0;
  whole_left_ -= whole;
  if (whole == 0) ++small_[static_cast<size_t>(gpus)];
  if (whole_left_ >= 0 && small_fit()) {
    free_ -= whole > 0 ? int64_t{whole} * per_node_ : gpus;
    return true;
  }
  whole_left_ += whole;
  if (whole == 0) --small_[static_cast<size_t>(gpus)];
  return false;
}

/// First fit by decreasing size.
bool MuriPacking::small_fit() const {
  std::vector<int32_t> free(static_cast<size_t>(whole_left_), per_node_);
  for (int32_t gpus = per_node_ - 1; gpus > 0; --gpus) {
    size_t node = 0;
    for (int32_t left = small_[static_cast<size_t>(gpus)]; left > 0; --left) {
      while (node < free.size() && free[node] < gpus) ++node;
      if (node == free.size()) return false;
      free[node] -= gpus;
    }
  }
  return true;
}

MuriNodes::MuriNodes(int32_t nodes, int32_t gpus_per_node) : per_node_(gpus_per_node) {
  free_.assign(static_cast<size_t>(nodes), gpus_per_node);
}

void MuriNodes::clear() { std::ranges::fill(free_, per_node_); }

bool MuriNodes::take_first_fit(int32_t gpus) {
  if (gpus > per_node_) {
    Place place;
    return take_best_fit(gpus, {}, place);
  }
  auto node = std::ranges::find_if(free_, [&](int32_t free) { return free >= gpus; });
  if (node == free_.end()) return false;
  *node -= gpus;
  return true;
}

bool MuriNodes::take_best_fit(int32_t gpus, std::vector<int64_t> avoid, Place& place) {
  avoid.resize(free_.size(), 0);
  std::vector<int32_t> nodes;
  const int32_t each = std::min(gpus, per_node_);
  for (size_t node = 0; node < free_.size(); ++node)
    if (free_[node] >= each) nodes.push_back(static_cast<int32_t>(node));
  const auto count = static_cast<size_t>(whole_nodes(gpus));
  if (nodes.size() < count) return false;
  std::ranges::stable_sort(nodes, {}, [&](int32_t node) {
    return std::pair(free_[static_cast<size_t>(node)], avoid[static_cast<size_t>(node)]);
  });
  for (size_t i = 0; i < count; ++i) {
    const int32_t part = std::min(gpus, per_node_);
    place.emplace_back(nodes[i], part);
    gpus -= part;
  }
  return take(place);
}

bool MuriNodes::take(const Place& place) {
  for (auto [node, gpus] : place)
    if (free_[static_cast<size_t>(node)] < gpus) return false;
  for (auto [node, gpus] : place) free_[static_cast<size_t>(node)] -= gpus;
  return true;
}

void MuriNodes::give(const Place& place) {
  for (auto [node, gpus] : place) free_[static_cast<size_t>(node)] += gpus;
}

}  // namespace th::sim
