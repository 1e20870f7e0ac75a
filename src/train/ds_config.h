#pragma once
// DeepSpeed's configuration file, read as it is. Keys, their meaning and their defaults: "DeepSpeed
// Configuration JSON" (https://www.deepspeed.ai/docs/config-json/) and the learning rate schedules
// (https://deepspeed.readthedocs.io/en/latest/schedulers.html). "auto" and what is not said is the recipe's.

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "train/recipe.h"

namespace th::train {

/// What the file says about one thing; where a section is there, DeepSpeed's default for what it leaves out.
template <class T>
struct DsValue {
  enum class From { kNowhere, kDefault, kFile };
  T value{};
  From from = From::kNowhere;
  bool is_there() const { return from != From::kNowhere; }
};

struct DsConfig {
  std::string file;  // its name, for messages
  // train_batch_size = train_micro_batch_size_per_gpu · gradient_accumulation_steps · ranks
  DsValue<int64_t> train_batch, batch, micro_batches;
  DsValue<int> zero_stage;
  DsValue<std::string> offload;  // folder for what is cut over the ranks
  DsValue<Dtype> dtype;
  DsValue<model::Recompute> recompute;
  DsValue<double> lr, beta1, beta2, epsilon, weight_decay, clip;
  DsValue<int64_t> warmup, steps;
  DsValue<double> warmup_from, warmup_min_lr, min_lr_share;  // the second one is no share
  DsValue<WarmUp> warmup_shape;
  DsValue<Schedule> schedule;
  /// "zero_optimization.reduce_bucket_size (buckets are layers)", in the file's order.
  std::vector<std::string> not_honoured;
};

/// `file` names the text in errors. Errors: kInvalidArgument, naming the key: a value of the wrong kind or
/// range, fp16, an optimizer or schedule that is not here. Every other key is in `not_honoured`.
Result<DsConfig> parse_ds_config(std::string_view text, const std::string& file);

/// Into a recipe that was read; `given`: the keys below `train` that it has itself ("optimizer.lr"). What the
/// file leaves out of a batch triple becomes 0, for fit_batch. Errors: kInvalidArgument, naming both places
/// that say different things, or the batch triple's arithmetic where no number of ranks would make it true.
Status apply_ds_config(const DsConfig& config, const std::set<std::string, std::less<>>& given,
                       Recipe& recipe);

/// With `train_batch` of a recipe: its batch and micro_batches for so many ranks. Errors: kInvalidArgument,
/// showing the arithmetic.
Status fit_batch(Recipe& recipe, int64_t ranks);

}  // namespace th::train
