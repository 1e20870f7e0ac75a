#include "train/ds_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"

namespace th::train {
namespace {

constexpr int64_t kMaxCount = 10'000'000;

struct Reason {
  std::string_view key;  // with a dot at its end: all below it
  std::string_view reason;
  bool is_so = false;  // true is what happens anyway
};
constexpr std::string_view kLayers = "buckets are layers";
constexpr std::string_view kLive = "three layers and the embedding are in memory as a whole";
constexpr std::string_view kMapped = "files are mapped; the kernel reads and writes them";
constexpr std::string_view kAverage = "gradients are divided before they are summed up";
constexpr Reason kReasons[] = {
    {"zero_optimization.reduce_bucket_size", kLayers},
    {"zero_optimization.allgather_bucket_size", kLayers},
    {"zero_optimization.stage3_prefetch_bucket_size", "the next layer is prefetched"},
    {"zero_optimization.stage3_param_persistence_threshold", "all weights are cut over the ranks"},
    {"zero_optimization.stage3_max_live_parameters", kLive},
    {"zero_optimization.stage3_max_reuse_distance", kLive},
    {"zero_optimization.sub_group_size", "the optimizer has 4 Mi elements in work at a time"},
    {"zero_optimization.overlap_comm", "collectives always run beside the computation", true},
    {"zero_optimization.contiguous_gradients", "a layer's gradients always lie in one buffer", true},
    {"zero_optimization.reduce_scatter", "gradients are always reduced to their owners", true},
    {"zero_optimization.allgather_partitions", "weights are always gathered as a whole", true},
    {"zero_optimization.stage3_gather_16bit_weights_on_model_save", "model/ is always whole", true},
    {"zero_optimization.stage3_gather_fp16_weights_on_model_save", "model/ is always whole", true},
    {"zero_optimization.offload_optimizer.", kMapped},
    {"zero_optimization.offload_param.", kMapped},
    {"aio.", kMapped},
    {"optimizer.params.adam_w_mode", "weight decay is always decoupled", true},
    {"optimizer.params.bias_correction", "moments are always corrected", true},
    {"optimizer.params.", "AdamW has lr, betas, eps and weight_decay"},
    {"scheduler.params.", "not a key of this schedule"},
    {"fp16.", "no loss scaling in bfloat16 and float32"},
    {"bf16.", "the sum over micro-batches has the gradients' precision"},
    {"activation_checkpointing.", "each layer's input is kept, the rest is computed again"},
    {"prescale_gradients", kAverage, true},
    {"gradient_predivide_factor", kAverage},
    {"fp32_allreduce", "sums are always taken in float32", true},
    {"communication_data_type", "gradients travel as they are; sums are taken in float32"},
    {"steps_per_print", "progress is told every half second"},
    {"wall_clock_breakdown", "times are always told", true},
    {"flops_profiler.", "MFU is always told"},
};

std::string reason_of(std::string_view key) {
  for (const Reason& r : kReasons) {
    if (key == r.key || (r.key.ends_with('.') && key.starts_with(r.key))) return std::string(r.reason);
  }
  return "not known here";
}

bool is_so_anyway(std::string_view key, const Json& value) {
  return value == true &&
         std::ranges::any_of(kReasons, [&](const Reason& r) { return r.is_so && r.key == key; });
}

/// The file's values by path. What was taken is honoured.
class Values {
 public:
  Values(const Json& root, std::string file) : file_(std::move(file)) { flatten(root, ""); }

  bool has_section(std::string_view path) const { return std::ranges::count(sections_, path) > 0; }

  tl::unexpected<Error> bad(std::string_view path, std::string_view problem) const {
    return fail(Code::kInvalidArgument, fmt::format("{}: {}: {}", file_, path, problem));
  }

  bool has(std::string_view path) const { return std::ranges::count(values_, path, &Value::path) > 0; }

  /// DeepSpeed's default where a section is there and says nothing, not even "auto".
  template <class T>
  void fall_back(std::string_view path, DsValue<T>& value, T fallback) const {
    if (!has(path)) value = {std::move(fallback), DsValue<T>::From::kDefault};
  }

  /// Nothing when it is missing, null or "auto".
  const Json* take(std::string_view path) {
    const auto found = std::ranges::find(values_, path, &Value::path);
    if (found == values_.end()) return nullptr;
    found->is_taken = true;
    return *found->value == "auto" ? nullptr : found->value;
  }

  /// Sections that stand where a value may: "optimizer": 3.
  Status check_sections(std::initializer_list<std::string_view> paths) const {
    for (const std::string_view path : paths) {
      if (has(path)) return bad(path, "want an object");
    }
    return {};
  }

  struct Range {
    double min, max;
  };
  Status number(std::string_view path, DsValue<double>& into, Range range) {
    if (const Json* value = take(path)) return number(path, *value, into, range);
    return {};
  }
  Status number(std::string_view path, const Json& value, DsValue<double>& into, Range range) {
    const double got = value.is_number() ? value.get<double>() : std::nan("");
    if (!(got >= range.min && got <= range.max))
      return bad(path,
                 fmt::format("want a number from {} to {}, got {}", range.min, range.max, dump_json(value)));
    into = {got, DsValue<double>::From::kFile};
    return {};
  }
  template <class T>
  Status integer(std::string_view path, DsValue<T>& into, Range range) {
    DsValue<double> got;  // 1e4 is what people write
    TH_RETURN_IF_ERROR(number(path, got, range));
    if (!got.is_there()) return {};
    if (got.value != std::floor(got.value))
      return bad(path, fmt::format("want a whole number, got {}", got.value));
    into = {static_cast<T>(got.value), DsValue<T>::From::kFile};
    return {};
  }
  Status boolean(std::string_view path, std::optional<bool>& into) {
    const Json* value = take(path);
    if (value == nullptr) return {};
    if (!value->is_boolean()) return bad(path, fmt::format("want true or false, got {}", dump_json(*value)));
    into = value->get<bool>();
    return {};
  }
  Status string(std::string_view path, std::optional<std::string>& into) {
    const Json* value = take(path);
    if (value == nullptr) return {};
    if (!value->is_string()) return bad(path, fmt::format("want a text, got {}", dump_json(*value)));
    into = value->get<std::string>();
    return {};
  }

  /// All that nobody took; "auto" asks for nothing.
  std::vector<std::string> not_honoured() const {
    std::vector<std::string> list;
    for (const Value& v : values_) {
      if (v.is_taken || *v.value == "auto" || is_so_anyway(v.path, *v.value)) continue;
      list.push_back(fmt::format("{} ({})", v.path, reason_of(v.path)));
    }
    return list;
  }

 private:
  struct Value {
    std::string path;
    const Json* value;
    bool is_taken = false;
  };
  void flatten(const Json& object, const std::string& prefix) {
    for (const auto& [key, value] : object.items()) {
      const std::string path = prefix + (key.find('.') == key.npos ? key : '"' + key + '"');
      if (value.is_null()) continue;
      if (!value.is_object()) {
        values_.push_back({path, &value});
        continue;
      }
      sections_.push_back(path);
      flatten(value, path + ".");
    }
  }
  std::string file_;
  std::vector<Value> values_;
  std::vector<std::string> sections_;
};

template <class T>
void set(DsValue<T>& value, T to) {
  value = {std::move(to), DsValue<T>::From::kFile};
}

Status read_offload(Values& values, DsConfig& config) {
  for (const char* section : {"zero_optimization.offload_optimizer", "zero_optimization.offload_param"}) {
    const std::string device_key = fmt::format("{}.device", section),
                      path_key = fmt::format("{}.nvme_path", section);
    std::optional<std::string> device, path;
    TH_RETURN_IF_ERROR(values.string(device_key, device));
    if (device == "nvme") TH_RETURN_IF_ERROR(values.string(path_key, path));
    if (!device || device == "none") continue;
    if (device == "cpu") {
      config.not_honoured.push_back(device_key + " (cpu: it is computed on the CPU and stays in its memory)");
      continue;
    }
    if (device != "nvme")
      return values.bad(device_key, fmt::format("want 'none', 'cpu' or 'nvme', got '{}'", *device));
    if (!path || path->empty()) return values.bad(path_key, "is missing: the folder for the files");
    if (config.offload.is_there() && config.offload.value != *path) {
      return values.bad(path_key,
                        fmt::format("is '{}', and that of offload_optimizer '{}': want one folder for both",
                                    *path, config.offload.value));
    }
    set(config.offload, *path);
  }
  if (config.offload.is_there() && config.zero_stage.value == 0)
    return values.bad("zero_optimization.stage",
                      "is 0, and offloading is for what is cut over the ranks: want 1 to 3");
  return {};
}

Status read_zero(Values& values, DsConfig& config) {
  if (!values.has_section("zero_optimization")) return {};
  TH_RETURN_IF_ERROR(values.integer("zero_optimization.stage", config.zero_stage, {0, 3}));
  values.fall_back("zero_optimization.stage", config.zero_stage, 0);
  return read_offload(values, config);
}

Status read_precision(Values& values, DsConfig& config) {
  std::optional<bool> fp16, bf16;
  TH_RETURN_IF_ERROR(values.boolean("fp16.enabled", fp16));
  TH_RETURN_IF_ERROR(values.boolean("bf16.enabled", bf16));
  if (fp16.value_or(false))
    return values.bad("fp16.enabled",
                      "there is no float16 here; use bf16.enabled, which needs no loss scaling");
  if (bf16) set(config.dtype, *bf16 ? Dtype::kBf16 : Dtype::kFloat32);
  return {};
}

Status read_optimizer(Values& values, DsConfig& config) {
  if (!values.has_section("optimizer")) return {};
  std::optional<std::string> type;
  TH_RETURN_IF_ERROR(values.string("optimizer.type", type));
  if (type && type != "Adam" && type != "AdamW")
    return values.bad("optimizer.type", fmt::format("want 'Adam' or 'AdamW', got '{}'", *type));
  const auto number = [&](const char* key, DsValue<double>& into, double fallback, Values::Range range) {
    values.fall_back(key, into, fallback);
    return values.number(key, into, range);
  };
  TH_RETURN_IF_ERROR(number("optimizer.params.lr", config.lr, 0.001, {1e-12, 1}));
  TH_RETURN_IF_ERROR(number("optimizer.params.eps", config.epsilon, 1e-8, {1e-30, 0.1}));
  TH_RETURN_IF_ERROR(number("optimizer.params.weight_decay", config.weight_decay, 0.0, {0, 10}));
  constexpr const char* kBetas = "optimizer.params.betas";
  values.fall_back(kBetas, config.beta1, 0.9);
  values.fall_back(kBetas, config.beta2, 0.999);
  if (const Json* betas = values.take(kBetas)) {
    if (!betas->is_array() || betas->size() != 2) return values.bad(kBetas, "want two numbers");
    const Values::Range range = {0, 0.999999999};
    TH_RETURN_IF_ERROR(values.number(kBetas, (*betas)[0], config.beta1, range));
    TH_RETURN_IF_ERROR(values.number(kBetas, (*betas)[1], config.beta2, range));
  }
  return {};
}

/// DeepSpeed's schedules end at nothing else but the share that they name; WarmupLR stays at the full rate.
Status read_scheduler(Values& values, DsConfig& config) {
  if (!values.has_section("scheduler")) return {};
  std::optional<std::string> type, shape;
  TH_RETURN_IF_ERROR(values.string("scheduler.type", type));
  if (!type) return values.bad("scheduler.type", "is missing");
  const bool is_cosine = type == "WarmupCosineLR", decays = type == "WarmupDecayLR";
  if (!is_cosine && !decays && type != "WarmupLR") {
    return values.bad("scheduler.type",
                      fmt::format("want 'WarmupLR', 'WarmupDecayLR' or 'WarmupCosineLR', got '{}'", *type));
  }
  const auto key = [](const char* name) { return std::string("scheduler.params.") + name; };
  values.fall_back(key("warmup_num_steps"), config.warmup, int64_t{1000});
  TH_RETURN_IF_ERROR(values.integer(key("warmup_num_steps"), config.warmup, {0, kMaxCount}));
  TH_RETURN_IF_ERROR(values.string(key("warmup_type"), shape));
  if (shape && shape != "log" && shape != "linear")
    return values.bad(key("warmup_type"), fmt::format("want 'log' or 'linear', got '{}'", *shape));
  set(config.warmup_shape, shape == "linear" ? WarmUp::kLinear : WarmUp::kLog);
  if (is_cosine || decays)
    TH_RETURN_IF_ERROR(values.integer(key("total_num_steps"), config.steps, {1, kMaxCount}));
  set(config.schedule, is_cosine ? Schedule::kCosine : Schedule::kLinear);
  if (is_cosine) {
    TH_RETURN_IF_ERROR(values.number(key("warmup_min_ratio"), config.warmup_from, {0, 1}));
    values.fall_back(key("cos_min_ratio"), config.min_lr_share, 0.0001);
    return values.number(key("cos_min_ratio"), config.min_lr_share, {0, 1});
  }
  set(config.min_lr_share, decays ? 0.0 : 1.0);
  // These two schedules know their rate themselves, and overrule the optimizer's.
  DsValue<double> max_lr;
  const std::string max_key = key("warmup_max_lr");
  values.fall_back(max_key, max_lr, 0.001);
  TH_RETURN_IF_ERROR(values.number(max_key, max_lr, {1e-12, 1}));
  TH_RETURN_IF_ERROR(values.number(key("warmup_min_lr"), config.warmup_min_lr, {0, 1}));
  if (max_lr.is_there()) {
    if (config.lr.from == DsValue<double>::From::kFile && config.lr.value != max_lr.value)
      config.not_honoured.push_back(
          fmt::format("optimizer.params.lr ({}'s warmup_max_lr, {}, holds)", *type, max_lr.value));
    config.lr = max_lr;
  }
  return {};
}

Status read_batch(Values& values, DsConfig& config) {
  const Values::Range range = {1, kMaxCount};
  TH_RETURN_IF_ERROR(values.integer("train_batch_size", config.train_batch, range));
  TH_RETURN_IF_ERROR(values.integer("train_micro_batch_size_per_gpu", config.batch, range));
  return values.integer("gradient_accumulation_steps", config.micro_batches, range);
}

}  // namespace

Result<DsConfig> parse_ds_config(std::string_view text, const std::string& file) {
  TH_TRY(const Json root, parse_json(text, file));
  if (!root.is_object()) return fail(Code::kInvalidArgument, fmt::format("{}: want a JSON object", file));
  Values values(root, file);
  TH_RETURN_IF_ERROR(
      values.check_sections({"zero_optimization", "zero_optimization.offload_optimizer",
                             "zero_optimization.offload_param", "optimizer", "optimizer.params", "scheduler",
                             "scheduler.params", "bf16", "fp16", "activation_checkpointing"}));
  DsConfig config;
  config.file = file;
  TH_RETURN_IF_ERROR(read_batch(values, config));
  TH_RETURN_IF_ERROR(read_zero(values, config));
  TH_RETURN_IF_ERROR(read_precision(values, config));
  TH_RETURN_IF_ERROR(read_optimizer(values, config));
  TH_RETURN_IF_ERROR(read_scheduler(values, config));
  TH_RETURN_IF_ERROR(values.number("gradient_clipping", config.clip, {0, 1e9}));
  if (values.has_section("activation_checkpointing")) set(config.recompute, model::Recompute::kFull);
  std::ranges::move(values.not_honoured(), std::back_inserter(config.not_honoured));
  return config;
}

}  // namespace th::train
