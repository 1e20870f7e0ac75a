#include "train/zero.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "tensor/cpu/optimizer.h"

namespace th::train {

double learning_rate(const OptimizerOptions& options, int64_t step, int64_t steps) {
  if (step <= options.warmup)
    return options.lr * static_cast<double>(step) / static_cast<double>(options.warmup);
  const auto span = static_cast<double>(std::max<int64_t>(steps - options.warmup, 1));
  const double progress = std::min(static_cast<double>(step - options.warmup) / span, 1.0);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return options.lr * (options.min_lr_share + (1 - options.min_lr_share) * cosine);
}

ZeroOptimizer::ZeroOptimizer(collective::Group& group, size_t size, size_t decayed_size,
                             const OptimizerOptions& options)
    : group_(group),
      options_(options),
      shard_(collective::shard_of(size, group.rank(), group.world_size())),
      decayed_size_(decayed_size),
      m_(shard_.size()),
      v_(shard_.size()) {}

Result<StepStats> ZeroOptimizer::update(std::span<float> params, std::span<float> grads, float loss,
                                        double learning_rate, int64_t step, bool wants_stop) {
  TH_RETURN_IF_ERROR(group_.reduce_scatter(grads));
  const std::span<float> mine = grads.subspan(shard_.begin, shard_.size());
  std::array<float, 3> sums = {static_cast<float>(tensor::sum_of_squares(mine)),
                               loss / static_cast<float>(group_.world_size()), wants_stop ? 1.f : 0.f};
  TH_RETURN_IF_ERROR(group_.all_reduce(sums));
  const StepStats stats = {
      .loss = sums[1], .grad_norm = std::sqrt(static_cast<double>(sums[0])), .stop = sums[2] > 0};
  if (!std::isfinite(stats.loss) || !std::isfinite(stats.grad_norm)) {
    return fail(Code::kInternal,
                fmt::format("step {}: loss {} and gradient norm {} are not finite; lower optimizer.lr", step,
                            stats.loss, stats.grad_norm));
  }
  if (stats.grad_norm > options_.clip)
    tensor::scale(mine, static_cast<float>(options_.clip / stats.grad_norm));
  tensor::AdamWOptions adamw{.learning_rate = static_cast<float>(learning_rate),
                             .beta1 = static_cast<float>(options_.beta1),
                             .beta2 = static_cast<float>(options_.beta2),
                             .weight_decay = static_cast<float>(options_.weight_decay),
                             .step = step};
  const size_t decayed = std::clamp(decayed_size_, shard_.begin, shard_.end) - shard_.begin;
  auto update_part = [&](size_t begin, size_t end) {
    tensor::adamw_update(
        params.subspan(shard_.begin + begin, end - begin), mine.subspan(begin, end - begin),
        {.m = std::span(m_).subspan(begin, end - begin), .v = std::span(v_).subspan(begin, end - begin)},
        adamw);
  };
  update_part(0, decayed);
  adamw.weight_decay = 0;
  update_part(decayed, shard_.size());
  TH_RETURN_IF_ERROR(group_.all_gather(params));
  return stats;
}

}  // namespace th::train
