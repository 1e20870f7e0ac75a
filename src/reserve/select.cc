#include "reserve/select.h"

#include <algorithm>
#include <numeric>

namespace th::reserve::detail {
namespace {

constexpr int64_t kMaxSubsets = 1000;  // of bins, that are all looked at

/// The limits that change while bins are taken from.
class Taker {
 public:
  explicit Taker(const Bins& bins) : bins_(bins), group_left_(bins.group_left), all_left_(bins.all_left) {}

  int64_t left(int32_t bin) const {
    auto i = static_cast<size_t>(bin);
    int64_t left = std::min(bins_.room[i], all_left_);
    if (!bins_.group.empty() && bins_.group[i] >= 0) {
      left = std::min(left, group_left_[static_cast<size_t>(bins_.group[i])]);
    }
    return left <= 0 ? 0 : left - left % bins_.block;
  }
  void take(int32_t bin, int64_t units) {
    auto i = static_cast<size_t>(bin);
    if (all_left_ != kNoLimit) all_left_ -= units;
    if (!bins_.group.empty() && bins_.group[i] >= 0)
      group_left_[static_cast<size_t>(bins_.group[i])] -= units;
  }

 private:
  const Bins& bins_;
  std::vector<int64_t> group_left_;
  int64_t all_left_;
};

/// All of `set` in its order, each as much as it gives; empty when that is less than `need`.
Takes fill(const Bins& bins, std::span<const int32_t> set, int64_t need) {
  Taker taker(bins);
  Takes takes;
  for (int32_t bin : set) {
    int64_t units = std::min(need, taker.left(bin));
    if (units == 0) continue;
    taker.take(bin, units);
    takes.push_back({bin, units});
    need -= units;
  }
  return need == 0 ? takes : Takes{};
}

struct Candidate {
  int64_t left;  // as if nothing else were taken
  int32_t bin;
};

/// Largest first, the first of equals; those that give nothing are left out.
std::vector<Candidate> by_room(const Bins& bins, std::span<const int32_t> among) {
  std::vector<Candidate> order;
  order.reserve(among.size());
  for (int32_t bin : among) {
    int64_t left = bins.left(bin);
    if (left > 0) order.push_back({left, bin});
  }
  std::ranges::stable_sort(order, std::ranges::greater{}, &Candidate::left);
  return order;
}

/// The bin that gives most now; -1: none gives anything.
int32_t largest(const Taker& taker, std::span<const int32_t> among, const std::vector<bool>& used) {
  int32_t best = -1;
  int64_t most_left = 0;
  for (size_t i = 0; i < among.size(); ++i) {
    int64_t left = used[i] ? 0 : taker.left(among[i]);
    if (left > most_left) best = static_cast<int32_t>(i), most_left = left;
  }
  return best;
}

int64_t count_subsets(size_t size, size_t of) {
  int64_t count = 1;
  for (size_t i = 0; i < size && count <= kMaxSubsets; ++i) {
    count = count * static_cast<int64_t>(of - i) / static_cast<int64_t>(i + 1);
  }
  return count;
}

/// The cheapest of all sets of `size` candidates.
Takes cheapest_subset(const Bins& bins, const std::vector<Candidate>& order, size_t size, int64_t need,
                      const TakeCost& cost) {
  Takes best;
  int64_t best_cost = 0;
  std::vector<size_t> chosen(size);
  std::iota(chosen.begin(), chosen.end(), size_t{0});
  std::vector<int32_t> set(size);
  for (;;) {
    int64_t sum = 0;
    for (size_t i = 0; i < size; ++i) {
      set[i] = order[chosen[i]].bin;
      sum += order[chosen[i]].left;
    }
    Takes takes = sum < need ? Takes{} : fill(bins, set, need);
    if (!takes.empty()) {
      int64_t its_cost = cost_of(bins, takes, cost);
      if (best.empty() || its_cost < best_cost) best = std::move(takes), best_cost = its_cost;
      if (best_cost == 0) return best;
    }
    size_t i = size;
    while (i > 0 && chosen[i - 1] == order.size() - size + i - 1) --i;
    if (i == 0) return best;
    ++chosen[i - 1];
    for (; i < size; ++i) chosen[i] = chosen[i - 1] + 1;
  }
}

/// Smaller bins in the place of larger ones, while the set still gives enough.
Takes with_less_left_over(const Bins& bins, const std::vector<Candidate>& order, Takes takes, int64_t need,
                          const TakeCost& cost) {
  std::vector<size_t> set;  // into order, the largest first
  int64_t total = 0;
  for (const Take& take : takes) {
    set.push_back(static_cast<size_t>(std::ranges::find(order, take.bin, &Candidate::bin) - order.begin()));
    total += order[set.back()].left;
  }
  int64_t cost_now = cost_of(bins, takes, cost);
  for (size_t i = 0; i < set.size() && cost_now > 0; ++i) {
    int64_t least = order[set[i]].left - (total - need);
    size_t smaller = order.size();
    while (smaller > 0 &&
           (order[smaller - 1].left < least || std::ranges::find(set, smaller - 1) != set.end())) {
      --smaller;
    }
    if (smaller == 0 || order[smaller - 1].left >= order[set[i]].left) continue;
    std::vector<size_t> tried = set;
    tried[i] = smaller - 1;
    std::ranges::sort(tried);
    std::vector<int32_t> bins_tried;
    for (size_t at : tried) bins_tried.push_back(order[at].bin);
    Takes better = fill(bins, bins_tried, need);
    if (better.empty() || cost_of(bins, better, cost) >= cost_now) continue;
    total -= order[set[i]].left - order[smaller - 1].left;
    takes = std::move(better);
    cost_now = cost_of(bins, takes, cost);
    set = std::move(tried);
  }
  return takes;
}

}  // namespace

int64_t Bins::left(int32_t bin) const {
  auto i = static_cast<size_t>(bin);
  int64_t units = std::min(room[i], all_left);
  if (!group.empty() && group[i] >= 0) units = std::min(units, group_left[static_cast<size_t>(group[i])]);
  return units <= 0 ? 0 : units - units % block;
}

void Bins::take(int32_t bin, int64_t units) {
  auto i = static_cast<size_t>(bin);
  room[i] -= units;
  if (all_left != kNoLimit) all_left -= units;
  if (!group.empty() && group[i] >= 0) group_left[static_cast<size_t>(group[i])] -= units;
}

int64_t cost_of(const Bins& bins, const Takes& takes, const TakeCost& cost) {
  int64_t sum = 0;
  for (const Take& take : takes) {
    sum += bins.room[static_cast<size_t>(take.bin)] - take.units;
    if (cost) sum += cost(take.bin, take.units);
  }
  return sum;
}

int64_t most(const Bins& bins, std::span<const int32_t> among, size_t max_bins) {
  Taker taker(bins);
  int64_t sum = 0;
  if (max_bins >= among.size()) {
    for (int32_t bin : among) {
      int64_t units = taker.left(bin);
      taker.take(bin, units);
      sum += units;
    }
    return sum;
  }
  std::vector<bool> used(among.size());
  for (size_t count = 0; count < max_bins; ++count) {
    int32_t next = largest(taker, among, used);
    if (next < 0) break;
    auto i = static_cast<size_t>(next);
    used[i] = true;
    int64_t units = taker.left(among[i]);
    taker.take(among[i], units);
    sum += units;
  }
  return sum;
}

Takes fewest(const Bins& bins, std::span<const int32_t> among, int64_t need, size_t max_bins,
             const TakeCost& cost) {
  const std::vector<Candidate> order = by_room(bins, among);
  Takes one;
  int64_t one_cost = 0;
  for (const Candidate& candidate : order) {
    if (candidate.left < need) break;
    Takes takes = {{candidate.bin, need}};
    int64_t its_cost = cost_of(bins, takes, cost);
    bool is_first = its_cost == one_cost && !one.empty() && candidate.bin < one[0].bin;
    if (one.empty() || its_cost < one_cost || is_first) one = std::move(takes), one_cost = its_cost;
  }
  if (!one.empty() || max_bins < 2) return one;
  std::vector<int32_t> bins_by_room;
  for (const Candidate& candidate : order) bins_by_room.push_back(candidate.bin);
  Taker taker(bins);
  std::vector<bool> used(order.size());
  Takes takes;
  const bool is_plain = bins.group.empty() && bins.all_left == kNoLimit;  // then the order never changes
  for (int64_t missing = need; missing > 0;) {
    int32_t next = takes.size() >= max_bins || takes.size() >= order.size() ? -1
                   : is_plain ? static_cast<int32_t>(takes.size())
                              : largest(taker, bins_by_room, used);
    if (next < 0) return {};
    auto i = static_cast<size_t>(next);
    used[i] = true;
    int64_t units = std::min(missing, taker.left(bins_by_room[i]));
    taker.take(bins_by_room[i], units);
    takes.push_back({bins_by_room[i], units});
    missing -= units;
  }
  if (count_subsets(takes.size(), order.size()) <= kMaxSubsets) {
    return cheapest_subset(bins, order, takes.size(), need, cost);
  }
  return with_less_left_over(bins, order, std::move(takes), need, cost);
}

}  // namespace th::reserve::detail
