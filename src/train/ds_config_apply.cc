// What a ds_config.json says, into a recipe; and the batch sizes for a number of ranks.

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "train/ds_config.h"

namespace th::train {
namespace {

/// What the recipe says itself holds against a default of DeepSpeed's, and must not contradict the file.
class Merge {
 public:
  Merge(const DsConfig& config, const std::set<std::string, std::less<>>& given)
      : config_(config), given_(given) {}

  template <class T>
  Status operator()(const DsValue<T>& from, const char* ds_key, auto& into, const char* key) const {
    if (!from.is_there()) return {};
    const bool differs = !(into == from.value);
    if (!given_.contains(key)) into = from.value;
    if (!given_.contains(key) || !differs || from.from == DsValue<T>::From::kDefault) return {};
    return fail(
        Code::kInvalidArgument,
        fmt::format(
            "train.{} is {} in the recipe, and {} is {} in {}: say it in one place, or \"auto\" in {}", key,
            text(into), ds_key, text(from.value), config_.file, config_.file));
  }

 private:
  static std::string text(double value) { return fmt::format("{}", value); }
  static std::string text(int64_t value) { return fmt::format("{}", value); }
  static std::string text(int value) { return fmt::format("{}", value); }
  static std::string text(const std::filesystem::path& value) { return fmt::format("'{}'", value.string()); }
  static std::string text(Dtype value) { return std::string(dtype_name(value)); }
  static std::string text(Schedule value) {
    constexpr std::array kNames = {"cosine", "linear", "wsd"};
    return kNames[static_cast<size_t>(value)];
  }
  static std::string text(WarmUp value) { return value == WarmUp::kLog ? "log" : "linear"; }
  static std::string text(model::Recompute value) {
    constexpr std::array kNames = {"none", "selective", "full"};
    return kNames[static_cast<size_t>(value)];
  }
  const DsConfig& config_;
  const std::set<std::string, std::less<>>& given_;
};

Status merge_optimizer(const Merge& merge, const DsConfig& config, OptimizerOptions& o) {
  TH_RETURN_IF_ERROR(merge(config.lr, "the learning rate", o.lr, "optimizer.lr"));
  TH_RETURN_IF_ERROR(merge(config.beta1, "optimizer.params.betas[0]", o.beta1, "optimizer.beta1"));
  TH_RETURN_IF_ERROR(merge(config.beta2, "optimizer.params.betas[1]", o.beta2, "optimizer.beta2"));
  TH_RETURN_IF_ERROR(merge(config.epsilon, "optimizer.params.eps", o.epsilon, "optimizer.epsilon"));
  TH_RETURN_IF_ERROR(
      merge(config.weight_decay, "optimizer.params.weight_decay", o.weight_decay, "optimizer.weight_decay"));
  TH_RETURN_IF_ERROR(merge(config.clip, "gradient_clipping", o.clip, "optimizer.clip"));
  TH_RETURN_IF_ERROR(merge(config.warmup, "scheduler.params.warmup_num_steps", o.warmup, "optimizer.warmup"));
  TH_RETURN_IF_ERROR(merge(config.schedule, "scheduler.type", o.schedule, "optimizer.schedule"));
  TH_RETURN_IF_ERROR(merge(config.min_lr_share, "scheduler's last share of the rate", o.min_lr_share,
                           "optimizer.min_lr_share"));
  if (config.warmup_from.is_there()) o.warmup_from = config.warmup_from.value;
  if (config.warmup_min_lr.is_there()) o.warmup_from = config.warmup_min_lr.value / o.lr;
  if (config.warmup_shape.is_there()) o.warmup_shape = config.warmup_shape.value;
  return {};
}

tl::unexpected<Error> no_triple(const std::string& sentence) {
  return fail(Code::kInvalidArgument, "batch sizes: " + sentence);
}

}  // namespace

Status apply_ds_config(const DsConfig& config, const std::set<std::string, std::less<>>& given,
                       Recipe& recipe) {
  const Merge merge(config, given);
  TH_RETURN_IF_ERROR(merge(config.zero_stage, "zero_optimization.stage", recipe.zero_stage, "zero.stage"));
  TH_RETURN_IF_ERROR(merge(config.offload, "nvme_path", recipe.offload, "zero.offload"));
  TH_RETURN_IF_ERROR(merge(config.dtype, "bf16.enabled's precision", recipe.dtype, "dtype"));
  TH_RETURN_IF_ERROR(merge(config.recompute, "activation_checkpointing", recipe.recompute, "recompute"));
  TH_RETURN_IF_ERROR(merge_optimizer(merge, config, recipe.optimizer));
  TH_RETURN_IF_ERROR(merge(config.batch, "train_micro_batch_size_per_gpu", recipe.batch, "batch"));
  TH_RETURN_IF_ERROR(
      merge(config.micro_batches, "gradient_accumulation_steps", recipe.micro_batches, "micro_batches"));
  int64_t steps = recipe.steps;
  TH_RETURN_IF_ERROR(merge(config.steps, "scheduler.params.total_num_steps", steps, "steps"));
  if (!recipe.offload.empty() && recipe.zero_stage == 0) {
    return fail(Code::kInvalidArgument,
                fmt::format("train.zero.offload is for what is cut over the ranks, and {} has ZeRO stage 0",
                            config.file));
  }
  recipe.notes = config.not_honoured;
  for (std::string& note : recipe.notes) note = fmt::format("{}: not honoured: {}", config.file, note);
  if (!config.train_batch.is_there()) return {};
  recipe.train_batch = config.train_batch.value;
  if (!config.batch.is_there() && !given.contains("batch")) recipe.batch = 0;
  if (!config.micro_batches.is_there() && !given.contains("micro_batches")) recipe.micro_batches = 0;
  const int64_t known = recipe.batch * recipe.micro_batches;
  if (known == 0 || recipe.train_batch % known == 0) return {};
  return no_triple(fmt::format(
      "train_batch_size {} in {} is no multiple of {} a micro-batch × {} micro-batches = {}, so no "
      "number of ranks makes it",
      recipe.train_batch, config.file, recipe.batch, recipe.micro_batches, known));
}

Status fit_batch(Recipe& recipe, int64_t ranks) {
  const int64_t total = recipe.train_batch;
  if (total == 0) return {};
  if (recipe.batch == 0 && recipe.micro_batches == 0) recipe.micro_batches = 1;
  const bool knows_both = recipe.batch > 0 && recipe.micro_batches > 0;
  const int64_t known =
      std::max<int64_t>(recipe.batch, 1) * std::max<int64_t>(recipe.micro_batches, 1) * ranks;
  const std::string arithmetic = fmt::format(
      "{}{}{}", recipe.batch > 0 ? fmt::format("train_micro_batch_size_per_gpu {} × ", recipe.batch) : "",
      recipe.micro_batches > 0 ? fmt::format("gradient_accumulation_steps {} × ", recipe.micro_batches) : "",
      counted(ranks, "rank"));
  if (knows_both && known != total)
    return no_triple(fmt::format("{} = {}, and train_batch_size is {}", arithmetic, known, total));
  if (total % known != 0)
    return no_triple(fmt::format("train_batch_size {} is no multiple of {} = {}", total, arithmetic, known));
  if (recipe.batch == 0) recipe.batch = total / known;
  if (recipe.micro_batches == 0) recipe.micro_batches = total / known;
  return {};
}

}  // namespace th::train
