#include "reserve/select.h"

#include <algorithm>
#include <numeric>

namespace th::reserve::detail {
namespace {

constexpr int64_t kMaxSubsets = 3000;  // of bins, that are all looked at

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

/// Largest first, the first of equals.
std::vector<int32_t> by_room(const Bins& bins, std::span<const int32_t> among) {
  std::vector<int32_t> order;
  for (int32_t bin : among) {
    if (bins.left(bin) > 0) order.push_back(bin);
  }
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return bins.left(a) > bins.left(b); });
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

/// The cheapest of all sets of `size` bins. `order`: by_room.
Takes cheapest_subset(const Bins& bins, const std::vector<int32_t>& order, size_t size, int64_t need,
                      const TakeCost& cost) {
  Takes best;
  int64_t best_cost = 0;
  std::vector<size_t> chosen(size);
  std::iota(chosen.begin(), chosen.end(), size_t{0});
  std::vector<int32_t> set(size);
  for (;;) {
    for (size_t i = 0; i < size; ++i) set[i] = order[chosen[i]];
    Takes takes = fill(bins, set, need);
    if (!takes.empty()) {
      int64_t its_cost = cost_of(bins, takes, cost);
      if (best.empty() || its_cost < best_cost) best = std::move(takes), best_cost = its_cost;
    }
    size_t i = size;
    while (i > 0 && chosen[i - 1] == order.size() - size + i - 1) --i;
    if (i == 0) return best;
    ++chosen[i - 1];
    for (; i < size; ++i) chosen[i] = chosen[i - 1] + 1;
  }
}

/// Smaller bins in the place of larger ones, while the set still gives enough.
Takes with_less_left_over(const Bins& bins, const std::vector<int32_t>& order, Takes takes, int64_t need,
                          const TakeCost& cost) {
  std::vector<int32_t> set;
  for (const Take& take : takes) set.push_back(take.bin);
  int64_t total = 0;
  for (int32_t bin : set) total += bins.left(bin);
  for (int32_t& bin : set) {
    int64_t least = bins.left(bin) - (total - need);
    auto smaller = std::find_if(order.rbegin(), order.rend(), [&](int32_t other) {
      return bins.left(other) >= least && std::ranges::find(set, other) == set.end();
    });
    if (smaller == order.rend() || bins.left(*smaller) >= bins.left(bin)) continue;
    std::vector<int32_t> tried = set;
    std::ranges::replace(tried, bin, *smaller);
    std::ranges::stable_sort(tried, [&](int32_t a, int32_t b) { return bins.left(a) > bins.left(b); });
    Takes better = fill(bins, tried, need);
    if (better.empty() || cost_of(bins, better, cost) >= cost_of(bins, takes, cost)) continue;
    total -= bins.left(bin) - bins.left(*smaller);
    takes = std::move(better);
    bin = *smaller;
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
  Takes one;
  int64_t one_cost = 0;
  for (int32_t bin : among) {
    if (bins.left(bin) < need) continue;
    Takes takes = {{bin, need}};
    int64_t its_cost = cost_of(bins, takes, cost);
    if (one.empty() || its_cost < one_cost) one = std::move(takes), one_cost = its_cost;
  }
  if (!one.empty() || max_bins < 2) return one;
  Taker taker(bins);
  std::vector<bool> used(among.size());
  Takes takes;
  for (int64_t missing = need; missing > 0;) {
    int32_t next = takes.size() < max_bins ? largest(taker, among, used) : -1;
    if (next < 0) return {};
    auto i = static_cast<size_t>(next);
    used[i] = true;
    int64_t units = std::min(missing, taker.left(among[i]));
    taker.take(among[i], units);
    takes.push_back({among[i], units});
    missing -= units;
  }
  std::vector<int32_t> order = by_room(bins, among);
  if (count_subsets(takes.size(), order.size()) <= kMaxSubsets) {
    return cheapest_subset(bins, order, takes.size(), need, cost);
  }
  return with_less_left_over(bins, order, std::move(takes), need, cost);
}

}  // namespace th::reserve::detail
