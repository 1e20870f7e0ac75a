#include "train/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/log.h"
#include "base/units.h"
#include "tensor/cpu/matmul.h"
#include "tensor/cpu/packed_products.h"
#include "train/memory.h"

namespace th::train {
namespace {

constexpr int64_t kReportNs = kSecond / 2;
constexpr int64_t kPeakNs = 50 * kMillisecond;
constexpr int64_t kPeakSize = 768;
constexpr double kLateBy = 1.5;
constexpr int kLateReports = 3;
constexpr int64_t kFirstLosses = 20;  // before the mean means something
constexpr double kForget = 0.02;      // what a step counts in the running mean
constexpr double kDeviations = 6;
constexpr double kLeastDeviation = 0.01;  // of the mean: a loss that hardly moves may move

double ms(int64_t ns) { return std::round(static_cast<double>(ns) / 1e4) / 100; }

}  // namespace

double StragglerWatch::median(std::span<const float> busy) {
  std::vector<float> sorted(busy.begin(), busy.end());
  std::ranges::sort(sorted);
  return sorted.empty() ? 0 : static_cast<double>(sorted[(sorted.size() - 1) / 2]);
}

std::optional<size_t> StragglerWatch::add(std::span<const float> busy) {
  late_.resize(busy.size());
  const double limit = kLateBy * median(busy);
  std::optional<size_t> found;
  for (size_t rank = 0; rank < busy.size(); ++rank) {
    late_[rank] = static_cast<double>(busy[rank]) > limit ? late_[rank] + 1 : 0;
    if (late_[rank] == kLateReports && (!found || busy[rank] > busy[*found])) found = rank;
  }
  return found;
}

std::optional<double> LossWatch::add(double loss) {
  const double expected = mean_;
  const double deviation = std::max(std::sqrt(variance_), kLeastDeviation * std::abs(mean_));
  const double limit = mean_ + kDeviations * deviation;
  const bool is_high = ++count_ > kFirstLosses && loss > limit, was_high = is_high_;
  is_high_ = is_high;
  // A jump counts as little more than the limit, or it would hide the next one.
  const double counted = is_high ? limit : loss;
  const double weight = std::max(kForget, 1 / static_cast<double>(count_));
  const double difference = counted - mean_;
  mean_ += weight * difference;
  variance_ = (1 - weight) * (variance_ + weight * difference * difference);
  if (!is_high || was_high) return std::nullopt;
  return expected;
}

Progress::Progress(ProgressOptions options, Metrics& metrics)
    : options_(std::move(options)),
      metrics_(metrics),
      start_ns_(Env::real().monotonic_ns()),
      reported_ns_(start_ns_) {}

void Progress::add(const Step& step, bool is_last) {
  const int64_t now_ns = Env::real().monotonic_ns();
  tokens_per_s_ = static_cast<double>((step.number - options_.first_step) * options_.tokens_per_step) *
                  kSecond / static_cast<double>(now_ns - start_ns_);
  ++steps_;
  data_ns_ += step.data_ns;
  times_.compute_ns += step.times.compute_ns;
  times_.optimizer_ns += step.times.optimizer_ns;
  times_.waited_ns += step.times.waited_ns;
  times_.collective_ns += step.times.collective_ns;
  busy_s_.resize(step.stats.busy_s.size());
  for (size_t rank = 0; rank < busy_s_.size(); ++rank) busy_s_[rank] += step.stats.busy_s[rank];
  watch_loss(step);
  if (step.number > 1 && !is_last && now_ns - reported_ns_ < kReportNs) return;
  report(step, now_ns);
  watch_ranks(step.number);
  reported_ns_ = now_ns;
  steps_ = data_ns_ = 0;
  times_ = {};
  std::ranges::fill(busy_s_, 0.f);
}

void Progress::report(const Step& step, int64_t now_ns) {
  const double eta_s =
      static_cast<double>((options_.steps - step.number) * options_.tokens_per_step) / tokens_per_s_;
  const double seconds = static_cast<double>(std::max<int64_t>(now_ns - reported_ns_, 1)) / kSecond;
  const double flop_per_s =
      options_.flop_per_token * static_cast<double>(steps_ * options_.tokens_per_step) / seconds;
  const double mfu = options_.peak_flop_per_s > 0 ? flop_per_s / options_.peak_flop_per_s : 0;
  const int64_t memory = resident_bytes();
  const StepTimes each = {times_.compute_ns / steps_, times_.optimizer_ns / steps_, times_.waited_ns / steps_,
                          times_.collective_ns / steps_};
  fmt::print(
      "step {:>5}/{}  loss {:.4f}  grad {:.3g}  {:.0f} tokens/s  MFU {:.0f} %  {}  compute {} + optimizer {} "
      "+ "
      "wait {} + data {} ms  {:.0f} s left\n",
      step.number, options_.steps, step.stats.loss, step.stats.grad_norm, tokens_per_s_, 100 * mfu,
      format_bytes(memory), ms(each.compute_ns), ms(each.optimizer_ns), ms(each.waited_ns),
      ms(data_ns_ / steps_), eta_s);
  std::fflush(stdout);
  metrics_.write({{"event", "progress"},
                  {"step", step.number},
                  {"steps", options_.steps},
                  {"loss", step.stats.loss},
                  {"grad_norm", step.stats.grad_norm},
                  {"lr", step.learning_rate},
                  {"tokens_per_s", std::round(tokens_per_s_)},
                  {"eta_s", std::round(eta_s * 10) / 10},
                  {"mfu", std::round(mfu * 1e4) / 1e4},
                  {"step_ms", std::round(seconds * 1e5 / static_cast<double>(steps_)) / 100},
                  {"compute_ms", ms(each.compute_ns)},
                  {"optimizer_ms", ms(each.optimizer_ns)},
                  {"waited_ms", ms(each.waited_ns)},
                  {"collective_ms", ms(each.collective_ns)},
                  {"data_ms", ms(data_ns_ / steps_)},
                  {"memory_bytes", memory},
                  {"peak_memory_bytes", peak_resident_bytes()}});
}

void Progress::watch_ranks(int64_t step) {
  const auto rank = stragglers_.add(busy_s_);
  if (!rank) return;
  const double times = static_cast<double>(busy_s_[*rank]) / StragglerWatch::median(busy_s_);
  log_warn(
      "step {}: rank {} on node {} is a straggler: it computes {:.1f} times as long as the median rank, and "
      "the "
      "others wait for it",
      step, *rank, options_.nodes[*rank], times);
  metrics_.write({{"event", "straggler"},
                  {"step", step},
                  {"rank", *rank},
                  {"node", options_.nodes[*rank]},
                  {"times_median", std::round(times * 100) / 100}});
}

void Progress::watch_loss(const Step& step) {
  const auto expected = losses_.add(static_cast<double>(step.stats.loss));
  if (!expected) return;
  log_warn("step {}: the loss jumped to {:.4f}, expected about {:.4f}", step.number, step.stats.loss,
           *expected);
  metrics_.write(
      {{"event", "loss_spike"}, {"step", step.number}, {"loss", step.stats.loss}, {"expected", *expected}});
}

Result<double> measure_peak_flop_per_s(collective::Group& group, Dtype dtype) {
  const bool is_bf16 = dtype == Dtype::kBf16 && tensor::has_bf16_products();
  auto product = tensor::PackedProducts::create({{kPeakSize, kPeakSize, kPeakSize}}, is_bf16);
  if (product) product->run();
  TH_RETURN_IF_ERROR(group.barrier());
  int64_t runs = 0, took_ns = 0;
  for (const int64_t begin_ns = Env::real().monotonic_ns(); product && took_ns < kPeakNs; ++runs) {
    product->run();
    took_ns = Env::real().monotonic_ns() - begin_ns;
  }
  const double flop = 2.0 * kPeakSize * kPeakSize * kPeakSize * static_cast<double>(runs);
  float rate[] = {took_ns == 0 ? 0.f : static_cast<float>(flop / static_cast<double>(took_ns))};  // flop a ns
  TH_RETURN_IF_ERROR(group.all_reduce(rate));
  return static_cast<double>(rate[0]) * kSecond;
}

Result<std::vector<std::string>> node_names(collective::Group& group) {
  constexpr size_t kBytes = 64;  // a float each: groups have no bytes
  std::array<char, kBytes> name = {};
  const char* told = std::getenv("TH_NODE");
  if (told == nullptr) told = std::getenv("SLURMD_NODENAME");
  if (told != nullptr && *told != '\0') {
    std::string_view(told).copy(name.data(), kBytes - 1);
  } else if (gethostname(name.data(), kBytes - 1) != 0) {
    name = {'?'};
  }
  const auto world = static_cast<size_t>(group.world_size()), rank = static_cast<size_t>(group.rank());
  std::vector<float> all(world * kBytes, 0.f);
  std::ranges::copy(name, all.begin() + static_cast<int64_t>(rank * kBytes));
  TH_RETURN_IF_ERROR(group.all_gather(all));
  std::vector<std::string> names(world);
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] != 0.f) names[i / kBytes] += static_cast<char>(all[i]);
  }
  return names;
}

}  // namespace th::train
