#pragma once
// ZeRO stage 1: each rank keeps the optimizer's moments of its shard of the parameters, and updates that
// shard only. Source: Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
// Models".

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "collective/collective.h"
#include "train/recipe.h"

namespace th::train {

/// Learning rate of update `step` (1 … steps): linear warm-up, then half a cosine down to lr · min_lr_share.
double learning_rate(const OptimizerOptions& options, int64_t step, int64_t steps);

struct StepStats {
  float loss = 0;        // mean over ranks
  double grad_norm = 0;  // of the whole gradient, before clipping
  bool stop = false;     // some rank wants to stop after this step
};

/// AdamW over one flat buffer that all ranks hold whole. Memory a rank: 2·size/world floats. Wire cost of an
/// update a rank: 2·size·(w-1)/w floats, as an all-reduce alone.
class ZeroOptimizer {
 public:
  /// Weight decay is for [0, decayed_size). `group` must outlive it.
  ZeroOptimizer(collective::Group& group, size_t size, size_t decayed_size, const OptimizerOptions& options);

  /// grads: the rank's own gradient divided by the world size; destroyed. Afterwards params is the same on
  /// all ranks. Errors: those of the group; kInternal when loss or gradient is not finite (params are then
  /// unchanged).
  Result<StepStats> update(std::span<float> params, std::span<float> grads, float loss, double learning_rate,
                           int64_t step, bool wants_stop = false);

  collective::Shard shard() const { return shard_; }
  std::span<float> m() { return m_; }
  std::span<float> v() { return v_; }

 private:
  collective::Group& group_;
  OptimizerOptions options_;
  collective::Shard shard_;
  size_t decayed_size_;
  std::vector<float> m_, v_;
};

}  // namespace th::train
