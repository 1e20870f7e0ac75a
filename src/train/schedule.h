#pragma once
// AdamW's options, and the learning rate over the steps.

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace th::train {

/// After a linear warm-up: half a cosine down to the end; a straight line down to the end; or the full rate,
/// and a straight line down over the last part (warm-up, stable, decay; Hu et al. 2024, MiniCPM).
enum class Schedule { kCosine, kLinear, kWsd };

/// A straight line up, or as the logarithm: fast at first, as DeepSpeed's WarmupLR does by default.
enum class WarmUp { kLinear, kLog };

struct OptimizerOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;       // global norm of the gradient; 0: none
  int64_t warmup = 0;      // steps
  double warmup_from = 0;  // share of lr before the first step of the warm-up
  WarmUp warmup_shape = WarmUp::kLinear;
  double min_lr_share = 0.1;  // of lr, at the end of the schedule
  Schedule schedule = Schedule::kCosine;
  double decay_share = 0.2;  // wsd: of the steps after the warm-up
};

/// "cosine", "linear", "wsd". Errors: kInvalidArgument, naming them.
Result<Schedule> parse_schedule(std::string_view text);

/// Of update `step` (1 … steps).
double learning_rate(const OptimizerOptions& options, int64_t step, int64_t steps);

}  // namespace th::train
