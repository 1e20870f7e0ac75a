#include "train/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace th::train {

Result<Schedule> parse_schedule(std::string_view text) {
  if (text == "cosine") return Schedule::kCosine;
  if (text == "linear") return Schedule::kLinear;
  if (text == "wsd") return Schedule::kWsd;
  return fail(Code::kInvalidArgument, fmt::format("want 'cosine', 'linear' or 'wsd', got '{}'", text));
}

double learning_rate(const OptimizerOptions& o, int64_t step, int64_t steps) {
  if (step <= o.warmup) {
    const auto at = static_cast<double>(step), end = static_cast<double>(o.warmup);
    const double up = o.warmup_shape == WarmUp::kLinear ? at / end : std::log(at + 1) / std::log(end + 1);
    return o.lr * (o.warmup_from + (1 - o.warmup_from) * up);
  }
  const auto span = static_cast<double>(std::max<int64_t>(steps - o.warmup, 1));
  const double progress = std::min(static_cast<double>(step - o.warmup) / span, 1.0);
  double left = 1 - progress;  // of the way down
  if (o.schedule == Schedule::kCosine) left = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  if (o.schedule == Schedule::kWsd) left = std::min(1.0, (1 - progress) / std::max(o.decay_share, 1e-9));
  return o.lr * (o.min_lr_share + (1 - o.min_lr_share) * left);
}

}  // namespace th::train
