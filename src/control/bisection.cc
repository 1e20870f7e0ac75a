#include "control/bisection.h"

#include <algorithm>
#include <utility>

namespace th::control {

Bisection::Bisection(std::vector<std::string> members) { round_.push_back(std::move(members)); }

void Bisection::take(const std::vector<bool>& fast) {
  const auto measured = std::exchange(round_, {});
  passed_ = stage_ == kAll && fast[0];
  for (size_t i = 0; i < measured.size() && !passed_; ++i) {
    const std::vector<std::string>& part = measured[i];
    if (stage_ == kPairs) {
      if (!fast[i]) slow_.push_back(part[0]);
    } else if (fast[i]) {
      fast_.insert(fast_.end(), part.begin(), part.end());
    } else if (stage_ != kSearch) {
      const auto middle = part.begin() + static_cast<ptrdiff_t>(part.size() / 2);
      halves_.emplace_back(part.begin(), middle), halves_.emplace_back(middle, part.end());
    }
  }
  if (stage_ == kSearch)
    std::erase_if(alone_, [&](const std::string& one) { return std::ranges::count(fast_, one) > 0; });
  if (!passed_) plan();
}

void Bisection::plan() {
  if (stage_ == kAll) stage_ = kHalves;
  for (auto& half : std::exchange(halves_, {})) {
    if (half.size() > 1) {
      round_.push_back(std::move(half));
    } else {
      alone_.push_back(std::move(half[0]));
    }
  }
  if (!round_.empty()) return;
  if (fast_.empty()) return search();
  stage_ = kPairs;
  const size_t count = std::min(alone_.size(), fast_.size());
  for (size_t i = 0; i < count; ++i) round_.push_back({alone_[i], fast_[i]});
  alone_.erase(alone_.begin(), alone_.begin() + static_cast<ptrdiff_t>(count));
}

/// Each part had a slow one: members of different parts together, for one that is fast.
void Bisection::search() {
  constexpr size_t kMasks = 3;
  stage_ = kSearch;
  while (alone_.size() > 2 && mask_ < kMasks && round_.empty()) {
    ++mask_;
    for (size_t i = 0; i < alone_.size(); ++i) {
      const size_t other = i ^ mask_;
      if (i < other && other < alone_.size()) round_.push_back({alone_[i], alone_[other]});
    }
  }
  if (round_.empty()) slow_ = std::exchange(alone_, {});
}

}  // namespace th::control
