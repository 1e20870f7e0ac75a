#include "reserve/job_order.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/result.h"

namespace th::reserve {
namespace {

constexpr double kFirstEdge = 30;
constexpr double kGrowth = 1.3;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Completion times of jobs fall off about as t^-0.7 before anything is known of them.
const double kPriorHazard = 1 - std::pow(kGrowth, -0.7);
// Slightly less than 1, so that of two jobs with the same GPU time the one that frees more GPUs at once goes
// first.
constexpr double kSizeExponent = 0.95;

/// Bin b is [edge b, edge b + 1).
const std::array<double, JobOrder::kBins + 1>& edges() {
  static const auto table = [] {
    std::array<double, JobOrder::kBins + 1> out{};
    double edge = kFirstEdge;
    for (size_t i = 1; i < out.size(); ++i, edge *= kGrowth) out[i] = edge;
    return out;
  }();
  return table;
}

int bin_of(double service_s, int from) {
  const auto& edge = edges();
  int bin = from;
  while (bin + 1 < JobOrder::kBins && service_s >= edge[static_cast<size_t>(bin) + 1]) ++bin;
  return bin;
}

/// The best chance of ending per second of service over all moments to stop looking, seen from `service_s`.
/// Ends are even within a bin.
double best_rate(std::span<const double> hazard, int bin, double service_s) {
  const auto& edge = edges();
  auto at = static_cast<size_t>(bin);
  double width = edge[at + 1] - edge[at];
  const double left = std::clamp((edge[at + 1] - service_s) / width, 0.0, 1.0);
  double end = left < 1 ? 1 - std::pow(1 - hazard[at], left) : hazard[at];
  width *= left;
  double alive = 1, spent = 0, best = 0;
  for (;;) {
    spent += alive * width * (1 - end / 2);
    alive *= 1 - end;
    if (spent > 0) best = std::max(best, (1 - alive) / spent);
    if (++at >= static_cast<size_t>(JobOrder::kBins)) return best;
    // What is still to come cannot beat the best one so far: no stop later gives more than 1 / spent.
    if (best * spent >= 1) return best;
    width = edge[at + 1] - edge[at];
    end = hazard[at];
  }
}

}  // namespace

double known_duration_key(double remaining_s, int32_t gpus) {
  return remaining_s * std::pow(static_cast<double>(gpus), kSizeExponent);
}

JobOrder::JobOrder(const JobOrderOptions& options) : options_(options) {
  for (int32_t rank = 0; rank <= options.neighbours; ++rank)
    rank_weight_.push_back(options.neighbour_weight * std::exp(-rank / options.rank_decay));
  hazard_.fill(kPriorHazard);
}

void JobOrder::refresh(int bin) {
  auto b = static_cast<size_t>(bin);
  hazard_[b] = (ends_[b] + options_.all_weight * kPriorHazard) / (at_risk_[b] + options_.all_weight);
  for (auto& [gpus, size] : sizes_)
    size.hazard[b] =
        (size.ends[b] + options_.size_weight * hazard_[b]) / (size.at_risk[b] + options_.size_weight);
}

JobOrder::Job JobOrder::submit(double submit_s, int32_t gpus) {
  TH_CHECK(gpus >= 1);
  auto [place, is_new] = sizes_.try_emplace(gpus);
  Size& size = place->second;
  if (is_new) size.hazard = hazard_;
  auto job = static_cast<Job>(seen_.size());
  seen_.push_back({.submit_s = submit_s, .gpus = gpus, .rank = static_cast<int32_t>(size.jobs.size())});
  size.jobs.push_back(job);
  return job;
}

/// A job was at risk in each bin that it survived, and in the one it ended in.
void JobOrder::count(const Seen& seen, int from_bin, int to_bin, bool ended) {
  if (from_bin == to_bin && !ended) return;
  Size& size = sizes_.at(seen.gpus);
  for (int bin = from_bin; bin < to_bin + (ended ? 1 : 0); ++bin) {
    auto b = static_cast<size_t>(bin);
    at_risk_[b] += 1;
    size.at_risk[b] += 1;
    if (bin == to_bin) {
      ends_[b] += 1;
      size.ends[b] += 1;
    }
    refresh(bin);
  }
}

void JobOrder::serve(Job job, double service_s) {
  Seen& seen = seen_[static_cast<size_t>(job)];
  TH_CHECK(!seen.ended && service_s >= seen.service_s);
  const int bin = bin_of(service_s, seen.bin);
  if (service_s > seen.service_s) seen.key = 0;
  if (bin != seen.bin) forget_keys_near(job);
  count(seen, seen.bin, bin, false);
  seen.bin = static_cast<int16_t>(bin);
  seen.service_s = service_s;
}

void JobOrder::end(Job job, double service_s) {
  serve(job, service_s);
  Seen& seen = seen_[static_cast<size_t>(job)];
  count(seen, seen.bin, seen.bin, true);
  seen.ended = true;
  forget_keys_near(job);
}

void JobOrder::forget_keys_near(Job job) {
  const Seen& seen = seen_[static_cast<size_t>(job)];
  const auto forget = [&](auto&& job_at, int32_t middle, size_t all) {
    const int32_t first = std::max(middle - options_.neighbours, 0);
    const int32_t last = std::min(middle + options_.neighbours, static_cast<int32_t>(all) - 1);
    for (int32_t at = first; at <= last; ++at) seen_[static_cast<size_t>(job_at(at))].key = 0;
  };
  forget([](int32_t at) { return at; }, job, seen_.size());
  const Size& size = sizes_.at(seen.gpus);
  forget([&](int32_t at) { return size.jobs[static_cast<size_t>(at)]; }, seen.rank, size.jobs.size());
}

/// `mass` gets the weight of `other` at its bin, to be summed from the last bin down to what was at risk.
void JobOrder::observe(Bins& mass, Bins& ends, const Seen& from, Job other, int32_t rank) const {
  const Seen& seen = seen_[static_cast<size_t>(other)];
  const double weight = rank_weight_[static_cast<size_t>(rank)] /
                        std::sqrt(1 + std::abs(seen.submit_s - from.submit_s) / options_.apart_s);
  if (seen.ended) {
    // Neighbours end at about the same age: half of it counts as one bin earlier or later.
    const int last = kBins - 1;
    for (auto [bin, share] : {std::pair(std::max(seen.bin - 1, 0), 0.25), std::pair(int{seen.bin}, 0.5),
                              std::pair(std::min(seen.bin + 1, last), 0.25)}) {
      ends[static_cast<size_t>(bin)] += share * weight;
      mass[static_cast<size_t>(bin)] += share * weight;
    }
  } else if (seen.bin > 0) {
    mass[static_cast<size_t>(seen.bin) - 1] += weight;
  }
}

JobOrder::Bins JobOrder::hazards(const Seen& seen, Job job) const {
  Bins at_risk{}, ends{};
  const Size& size = sizes_.at(seen.gpus);
  const auto same = static_cast<int32_t>(size.jobs.size());
  const auto all = static_cast<int32_t>(seen_.size());
  for (int32_t rank = 1; rank <= options_.neighbours; ++rank) {
    for (int32_t at : {seen.rank - rank, seen.rank + rank}) {
      if (at >= 0 && at < same) observe(at_risk, ends, seen, size.jobs[static_cast<size_t>(at)], rank);
    }
    for (int32_t at : {job - rank, job + rank}) {
      if (at >= 0 && at < all && seen_[static_cast<size_t>(at)].gpus != seen.gpus)
        observe(at_risk, ends, seen, at, rank);
    }
  }
  Bins out;
  double sum = 0;
  for (size_t b = kBins; b-- > 0;) {
    sum += at_risk[b];
    out[b] = (ends[b] + options_.local_weight * size.hazard[b]) / (sum + options_.local_weight);
  }
  return out;
}

double JobOrder::key(Job job) {
  Seen& seen = seen_[static_cast<size_t>(job)];
  if (seen.key == 0) seen.key = seen.gpus / best_rate(hazards(seen, job), seen.bin, seen.service_s);
  return seen.key;
}

void JobOrder::renew() {
  for (Seen& seen : seen_) seen.key = 0;
}

double JobOrder::passes_at(Job job, double limit, double from_s, double to_s) const {
  const Seen& seen = seen_[static_cast<size_t>(job)];
  if (from_s > to_s) return kInfinity;
  const Bins hazard = hazards(seen, job);
  int bin = bin_of(from_s, seen.bin);
  for (double at = from_s; at <= to_s;) {
    if (seen.gpus / best_rate(hazard, bin, at) > limit) return at;
    if (++bin >= kBins) break;
    at = edges()[static_cast<size_t>(bin)];
  }
  return kInfinity;
}

}  // namespace th::reserve
