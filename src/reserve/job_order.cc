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

}  // namespace

double known_duration_key(double remaining_s, int32_t gpus) {
  return remaining_s * std::pow(static_cast<double>(gpus), kSizeExponent);
}

JobOrder::JobOrder(const JobOrderOptions& options) : options_(options) {
  for (int32_t rank = 0; rank <= options.neighbours; ++rank)
    rank_weight_.push_back(options.neighbour_weight * std::exp(-rank / options.rank_decay));
  hazard_.fill(kPriorHazard);
}

JobOrder::Job JobOrder::submit(double submit_s, int32_t gpus) {
  TH_CHECK(gpus >= 1);
  Size& size = sizes_[gpus];
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
    hazard_[b] = (ends_[b] + options_.all_weight * kPriorHazard) / (at_risk_[b] + options_.all_weight);
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

/// Adds the weight of `other` at its bin, to be summed from the last bin down to what was at risk.
void JobOrder::observe(Around& around, const Seen& from, Job other, int32_t rank) const {
  const Seen& seen = seen_[static_cast<size_t>(other)];
  if (seen.bin < around.first_bin || (!seen.ended && seen.bin == around.first_bin)) return;
  const double weight = rank_weight_[static_cast<size_t>(rank)] /
                        std::sqrt(1 + std::abs(seen.submit_s - from.submit_s) / options_.apart_s);
  const auto bin = static_cast<size_t>(seen.bin);
  if (!seen.ended) {
    around.at_risk[bin - 1] += weight;
    return;
  }
  // Neighbours end at about the same age: half of it counts as one bin earlier or later.
  const size_t before = bin - (bin > 0 ? 1 : 0), after = std::min<size_t>(bin + 1, kBins - 1);
  for (auto [at, share] : {std::pair(before, 0.25), std::pair(bin, 0.5), std::pair(after, 0.25)}) {
    around.ends[at] += share * weight;
    around.at_risk[at] += share * weight;
  }
}

JobOrder::Around JobOrder::look_around(Job job) const {
  const Seen& seen = seen_[static_cast<size_t>(job)];
  Around around;
  around.size = &sizes_.at(seen.gpus);
  around.first_bin = seen.bin;
  const std::vector<Job>& same = around.size->jobs;
  const auto all_same = static_cast<int32_t>(same.size()), all = static_cast<int32_t>(seen_.size());
  for (int32_t rank = 1; rank <= options_.neighbours; ++rank) {
    for (int32_t at : {seen.rank - rank, seen.rank + rank})
      if (at >= 0 && at < all_same) observe(around, seen, same[static_cast<size_t>(at)], rank);
    for (int32_t at : {job - rank, job + rank})
      if (at >= 0 && at < all && seen_[static_cast<size_t>(at)].gpus != seen.gpus)
        observe(around, seen, at, rank);
  }
  for (auto b = static_cast<size_t>(kBins) - 1; b-- > static_cast<size_t>(seen.bin);)
    around.at_risk[b] += around.at_risk[b + 1];
  return around;
}

/// The chance that a job ends in the bin if it has come to it: its neighbours', leaning on that of its GPU
/// count where they are few, which leans on that of all jobs.
double JobOrder::hazard(const Around& around, size_t bin) const {
  const double of_size = (around.size->ends[bin] + options_.size_weight * hazard_[bin]) /
                         (around.size->at_risk[bin] + options_.size_weight);
  return (around.ends[bin] + options_.local_weight * of_size) / (around.at_risk[bin] + options_.local_weight);
}

/// The best chance of ending per second of service over all moments to stop looking, seen from `service_s`.
/// Ends are even within a bin.
double JobOrder::best_rate(const Around& around, int bin, double service_s) const {
  const auto& edge = edges();
  auto at = static_cast<size_t>(bin);
  double width = edge[at + 1] - edge[at];
  const double left = std::clamp((edge[at + 1] - service_s) / width, 0.0, 1.0);
  double end = hazard(around, at);
  end *= left / (1 - end * (1 - left));
  width *= left;
  double alive = 1, spent = 0, best = 0;
  for (;;) {
    spent += alive * width * (1 - end / 2);
    alive *= 1 - end;
    if (spent > 0) best = std::max(best, (1 - alive) / spent);
    // What is still to come cannot beat the best so far: no later stop gives more than 1 / spent.
    if (++at >= static_cast<size_t>(kBins) || best * spent >= 1) return best;
    width = edge[at + 1] - edge[at];
    end = hazard(around, at);
  }
}

double JobOrder::key(Job job) {
  Seen& seen = seen_[static_cast<size_t>(job)];
  if (seen.key == 0) seen.key = seen.gpus / best_rate(look_around(job), seen.bin, seen.service_s);
  return seen.key;
}

void JobOrder::renew() {
  for (Seen& seen : seen_) seen.key = 0;
}

double JobOrder::passes_at(Job job, double limit, double from_s, double to_s) const {
  const Seen& seen = seen_[static_cast<size_t>(job)];
  if (from_s > to_s) return kInfinity;
  const Around around = look_around(job);
  int bin = bin_of(from_s, seen.bin);
  for (double at = from_s; at <= to_s;) {
    if (seen.gpus / best_rate(around, bin, at) > limit) return at;
    if (++bin >= kBins) break;
    at = edges()[static_cast<size_t>(bin)];
  }
  return kInfinity;
}

}  // namespace th::reserve
