#include "train/recipe.h"

#include <fmt/format.h>

#include <set>

#include "base/config.h"
#include "base/files.h"
#include "base/text.h"
#include "storage/account.h"
#include "train/ds_config.h"

namespace th::train {
namespace {

constexpr int64_t kMaxSteps = 10'000'000;
constexpr size_t kMaxRecipeBytes = size_t{1} << 20;

Status need(bool good, const Config& section, const char* key, std::string_view problem) {
  if (!good) return section.bad(key, problem);
  return {};
}

Status read_model(const Config& train, Recipe& recipe) {
  TH_TRY(Config section,
         train.map("model", {"from", "family", "hidden_size", "intermediate_size", "num_hidden_layers",
                             "num_attention_heads", "num_key_value_heads", "rope_theta",
                             "tie_word_embeddings", "vocab_size"}));
  if (section.has("from")) {
    TH_TRY(recipe.from, section.string("from"));
    for (const char* key :
         {"family", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "num_key_value_heads", "rope_theta", "tie_word_embeddings", "vocab_size"})
      TH_RETURN_IF_ERROR(need(!section.has(key), section, key, "is that of the model in 'from'"));
    return {};
  }
  model::ModelConfig& model = recipe.model;
  TH_TRY(const std::string family, section.string("family", "llama"));
  TH_RETURN_IF_ERROR(
      need(family == "llama" || family == "gpt2", section, "family", "want 'llama' or 'gpt2'"));
  if (family == "gpt2") {
    model.family = model::Family::kGpt2, model.norm_eps = 1e-5;
    for (const char* key : {"num_key_value_heads", "rope_theta", "tie_word_embeddings"})
      TH_RETURN_IF_ERROR(need(!section.has(key), section, key, "GPT-2 has none"));
  }
  const IntRange size = {.min = 1, .max = 1 << 20};
  TH_TRY(model.hidden_size, section.integer("hidden_size", size));
  if (family == "gpt2") {
    TH_TRY(model.intermediate_size, section.integer_or("intermediate_size", 4 * model.hidden_size, size));
  } else {
    TH_TRY(model.intermediate_size, section.integer("intermediate_size", size));
  }
  TH_TRY(model.num_hidden_layers, section.integer("num_hidden_layers", {.min = 1, .max = 1024}));
  TH_TRY(model.num_attention_heads, section.integer("num_attention_heads", size));
  TH_TRY(model.num_key_value_heads,
         section.integer_or("num_key_value_heads", model.num_attention_heads, size));
  TH_TRY(model.rope_theta, section.number_or("rope_theta", 10000));
  TH_TRY(model.tie_word_embeddings, section.boolean_or("tie_word_embeddings", true));
  TH_RETURN_IF_ERROR(need(model.hidden_size % model.num_attention_heads == 0, section, "num_attention_heads",
                          "does not divide hidden_size"));
  model.head_dim = model.hidden_size / model.num_attention_heads;
  model.max_position_embeddings = recipe.seq;
  TH_TRY(recipe.vocab_size, section.integer_or("vocab_size", 0, {.min = 1, .max = 1'000'000}));
  model.vocab_size = recipe.vocab_size > 0 ? recipe.vocab_size : recipe.data.vocab_size;
  if (Status status = model::check_model_config(model); !status)
    return train.bad("model", status.error().message);
  return {};
}

Status read_data(const Config& train, DataOptions& data) {
  TH_TRY(Config section, train.map("data", {"text", "set", "vocab_size", "validation_share"}));
  if (section.has("set")) {
    TH_TRY(data.set, section.string("set"));
    for (const char* key : {"text", "vocab_size", "validation_share"})
      TH_RETURN_IF_ERROR(need(!section.has(key), section, key, "goes with 'text'; a data set has its own"));
    const size_t at = data.set.find('@');
    Status name = check_name(data.set.substr(0, at), "data set");
    if (name && at != data.set.npos) name = check_name(data.set.substr(at + 1), "version");
    return name ? name : section.bad("set", name.error().message);
  }
  TH_TRY(data.text, section.string("text"));
  TH_TRY(data.vocab_size, section.integer_or("vocab_size", data.vocab_size, {.min = 260, .max = 1'000'000}));
  TH_TRY(data.validation_share, section.number_or("validation_share", data.validation_share));
  return need(data.validation_share > 0 && data.validation_share <= 0.5, section, "validation_share",
              "want a number above 0, at most 0.5");
}

/// `knows_lr`: another file says it.
Status read_optimizer(const Config& train, bool knows_lr, OptimizerOptions& o) {
  if (knows_lr && !train.has("optimizer")) return {};
  TH_TRY(Config section, train.map("optimizer", {"lr", "beta1", "beta2", "epsilon", "weight_decay", "clip",
                                                 "warmup", "schedule", "min_lr_share", "decay_share"}));
  if (!knows_lr || section.has("lr")) {
    TH_TRY(o.lr, section.number("lr"));
  }
  TH_TRY(o.beta1, section.number_or("beta1", o.beta1));
  TH_TRY(o.beta2, section.number_or("beta2", o.beta2));
  TH_TRY(o.epsilon, section.number_or("epsilon", o.epsilon));
  TH_TRY(o.weight_decay, section.number_or("weight_decay", o.weight_decay));
  TH_TRY(o.clip, section.number_or("clip", o.clip));
  TH_TRY(o.warmup, section.integer_or("warmup", o.warmup, {.min = 0, .max = kMaxSteps}));
  TH_TRY(o.min_lr_share, section.number_or("min_lr_share", o.min_lr_share));
  TH_TRY(std::string schedule, section.string("schedule", "cosine"));
  auto parsed = parse_schedule(schedule);
  if (!parsed) return section.bad("schedule", parsed.error().message);
  o.schedule = *parsed;
  TH_TRY(o.decay_share, section.number_or("decay_share", o.decay_share));
  TH_RETURN_IF_ERROR(
      need(o.decay_share > 0 && o.decay_share <= 1, section, "decay_share", "want above 0, at most 1"));
  TH_RETURN_IF_ERROR(need(o.epsilon > 0 && o.epsilon < 1, section, "epsilon", "want above 0, below 1"));
  TH_RETURN_IF_ERROR(need(o.lr > 0 && o.lr <= 1, section, "lr", "want a number above 0, at most 1"));
  TH_RETURN_IF_ERROR(need(o.beta1 >= 0 && o.beta1 < 1, section, "beta1", "want a number from 0 to below 1"));
  TH_RETURN_IF_ERROR(need(o.beta2 >= 0 && o.beta2 < 1, section, "beta2", "want a number from 0 to below 1"));
  TH_RETURN_IF_ERROR(
      need(o.weight_decay >= 0 && o.weight_decay <= 10, section, "weight_decay", "want 0 to 10"));
  TH_RETURN_IF_ERROR(need(o.clip >= 0, section, "clip", "want a number above 0, or 0 for none"));
  return need(o.min_lr_share >= 0 && o.min_lr_share <= 1, section, "min_lr_share", "want 0 to 1");
}

Status read_checkpoint(const Config& train, CheckpointOptions& o) {
  TH_TRY(Config section, train.map("checkpoint", {"every", "keep", "store", "store_wait"}));
  TH_TRY(o.every, section.integer_or("every", o.every, {.min = 0, .max = kMaxSteps}));
  TH_TRY(o.keep, section.integer_or("keep", o.keep, {.min = 1, .max = 1000}));
  TH_TRY(o.store, section.string("store", ""));
  TH_TRY(const std::string wait, section.string("store_wait", ""));
  if (!wait.empty()) {
    auto wait_ns = parse_duration_ns(wait);
    if (!wait_ns) return section.bad("store_wait", wait_ns.error().message);
    o.store_wait_ns = *wait_ns;
  }
  if (o.store.empty()) return {};
  std::string example = o.store;
  for (size_t at; (at = example.find("%j")) != std::string::npos;) example.replace(at, 2, "job-1");
  auto place = storage::parse_place(example);
  return place ? Status() : section.bad("store", place.error().message);
}

Status read_zero(const Config& train, Recipe& recipe) {
  TH_TRY(Config section, train.map("zero", {"stage", "offload", "memory_limit"}));
  TH_TRY(recipe.zero_stage, section.integer_or("stage", recipe.zero_stage, {.min = 0, .max = 3}));
  TH_TRY(const std::string offload, section.string("offload", ""));
  recipe.offload = offload;
  TH_RETURN_IF_ERROR(need(offload.empty() || recipe.zero_stage > 0, section, "offload",
                          "is for what is cut over the ranks, so for stage 1 to 3"));
  TH_TRY(const std::string limit, section.string("memory_limit", ""));
  if (limit.empty()) return {};
  auto bytes = parse_bytes(limit);
  if (!bytes) return section.bad("memory_limit", bytes.error().message);
  recipe.memory_limit_bytes = *bytes;
  return {};
}

Status read_lora(const Config& train, Recipe& recipe) {
  TH_TRY(Config section, train.map("lora", {"rank", "alpha", "targets"}));
  TH_TRY(recipe.lora.rank, section.integer("rank", {.min = 1, .max = 1 << 16}));
  TH_TRY(recipe.lora.alpha, section.number_or("alpha", 2 * static_cast<double>(recipe.lora.rank)));
  TH_TRY(recipe.lora.targets, section.strings("targets"));
  TH_RETURN_IF_ERROR(need(recipe.lora.alpha > 0, section, "alpha", "want a number above 0"));
  return need(!recipe.from.empty(), train, "lora", "wants a model to adapt: set model.from");
}

Result<DsConfig> read_deepspeed(const Config& train, const Recipe& recipe) {
  if (!train.has("deepspeed")) return DsConfig{};
  TH_TRY(const std::string name, train.string("deepspeed"));
  TH_TRY(const std::filesystem::path path, find_ds_config(recipe, name));
  TH_TRY(const std::string text, read_file(path, kMaxRecipeBytes));
  return parse_ds_config(text, name);
}

Status merge_deepspeed(const Config& train, const DsConfig& deepspeed, Recipe& recipe) {
  if (deepspeed.file.empty()) return {};
  std::set<std::string, std::less<>> given;
  for (const char* key : {"steps", "batch", "micro_batches", "dtype", "recompute"}) {
    if (train.has(key)) given.insert(key);
  }
  for (const char* section : {"optimizer", "zero"}) {
    TH_TRY(const auto keys, train.string_map(section));
    for (const auto& [key, value] : keys) given.insert(fmt::format("{}.{}", section, key));
  }
  const Status merged = apply_ds_config(deepspeed, given, recipe);
  return merged ? merged : train.bad("deepspeed", merged.error().message);
}

Status read_train(const Config& train, Recipe& recipe) {
  TH_TRY(recipe.steps, train.integer("steps", {.min = 1, .max = kMaxSteps}));
  TH_TRY(recipe.batch, train.integer_or("batch", recipe.batch, {.min = 1, .max = 1 << 20}));
  TH_TRY(recipe.seq, train.integer_or("seq", recipe.seq, {.min = 2, .max = 1 << 20}));
  TH_TRY(int64_t seed, train.integer_or("seed", 1, {.min = 0}));
  recipe.seed = static_cast<uint64_t>(seed);
  TH_TRY(std::string dtype, train.string("dtype", "float32"));
  auto parsed = parse_dtype(dtype);
  if (!parsed) return train.bad("dtype", parsed.error().message);
  recipe.dtype = *parsed;
  TH_TRY(const std::string trace, train.string("trace", ""));
  recipe.trace = trace;
  TH_TRY(recipe.micro_batches,
         train.integer_or("micro_batches", recipe.micro_batches, {.min = 1, .max = 1 << 20}));
  TH_TRY(const std::string recompute, train.string("recompute", "none"));
  auto recomputed = parse_recompute(recompute);
  if (!recomputed) return train.bad("recompute", recomputed.error().message);
  recipe.recompute = *recomputed;
  if (train.has("zero")) TH_RETURN_IF_ERROR(read_zero(train, recipe));
  TH_RETURN_IF_ERROR(read_data(train, recipe.data));
  TH_RETURN_IF_ERROR(read_model(train, recipe));
  if (train.has("lora")) TH_RETURN_IF_ERROR(read_lora(train, recipe));
  TH_TRY(const DsConfig deepspeed, read_deepspeed(train, recipe));
  TH_RETURN_IF_ERROR(read_optimizer(train, deepspeed.lr.is_there(), recipe.optimizer));
  if (train.has("checkpoint")) {
    TH_RETURN_IF_ERROR(read_checkpoint(train, recipe.checkpoint));
  }
  return merge_deepspeed(train, deepspeed, recipe);
}

}  // namespace

Result<Recipe> parse_recipe(std::string_view text, const std::filesystem::path& file) {
  TH_TRY(Config root,
         Config::parse(
             text, file.string(),
             {"name", "slice", "gpus", "command", "env", "workdir", "retries", "time", "memory", "stage",
              "register", "train",
              // Options of the job, which the controller has checked.
              "min_gpus", "can_rescale", "requeue", "account", "qos", "reservation", "dependency", "nodelist",
              "exclude", "constraint", "max_switches", "switches_wait_ns", "segment", "priority", "nice",
              "begin_ns", "deadline_ns", "min_nodes", "max_nodes", "gpus_per_node", "exclusive", "signal"}));
  Recipe recipe;
  recipe.folder = file.parent_path();
  TH_TRY(recipe.name, root.string("name"));
  TH_TRY(recipe.stage, root.string_map("stage"));
  if (root.has("gpus"))
    recipe.ranks = root.integer("gpus").value_or(0);  // parts of one are no number of ranks
  TH_TRY(Config train,
         root.map("train", {"model", "data", "optimizer", "checkpoint", "steps", "batch", "micro_batches",
                            "seq", "seed", "dtype", "recompute", "zero", "lora", "deepspeed", "trace"}));
  TH_RETURN_IF_ERROR(read_train(train, recipe));
  return recipe;
}

Result<Recipe> load_recipe(const std::filesystem::path& file) {
  TH_TRY(std::string text, read_file(file, kMaxRecipeBytes));
  TH_TRY(Recipe recipe, parse_recipe(text, file));
  if (recipe.data.set.empty()) TH_RETURN_IF_ERROR(find_text(recipe));
  if (!recipe.from.empty()) TH_RETURN_IF_ERROR(find_model(recipe));
  return recipe;
}

Result<std::filesystem::path> find_text(const Recipe& recipe) {
  std::error_code error;
  std::filesystem::path path = recipe.data.text;
  if (std::filesystem::is_regular_file(path, error)) return path;
  std::string also = "and stage does not bring it";
  for (const auto& [to, from] : recipe.stage) {
    if (to != recipe.data.text) continue;
    path = recipe.folder / from;
    if (std::filesystem::is_regular_file(path, error)) return path;
    also = fmt::format("nor is '{}', from which stage takes it", path.string());
  }
  return fail(Code::kNotFound,
              fmt::format("train.data.text: no file '{}' in the working folder, {}", recipe.data.text, also));
}

namespace {

/// In the working folder, else beside the recipe, else where `stage` takes it from.
Result<std::filesystem::path> find_near(const Recipe& recipe, const std::string& name, const char* key,
                                        bool folder) {
  std::vector<std::filesystem::path> places = {name, recipe.folder / name};
  for (const auto& [to, from] : recipe.stage) {
    if (to == name) places.push_back(recipe.folder / from);
  }
  std::error_code error;
  for (const std::filesystem::path& path : places) {
    if (folder ? std::filesystem::is_directory(path, error) : std::filesystem::is_regular_file(path, error))
      return path;
  }
  return fail(
      Code::kNotFound,
      fmt::format("{}: no {} '{}' in the working folder or beside the recipe, and stage does not bring it",
                  key, folder ? "folder" : "file", name));
}

}  // namespace

Result<std::filesystem::path> find_ds_config(const Recipe& recipe, const std::string& name) {
  return find_near(recipe, name, "train.deepspeed", false);
}

Result<std::filesystem::path> find_model(const Recipe& recipe) {
  return find_near(recipe, recipe.from, "train.model.from", true);
}

Result<std::filesystem::path> find_data_set(const Recipe& recipe) {
  const std::string name = recipe.data.set.substr(0, recipe.data.set.find('@'));
  const std::filesystem::path path = std::filesystem::path("data") / name;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return path;
  return fail(Code::kNotFound,
              fmt::format("train.data.set: no folder '{}' in the working folder; 'th data add {} PATH' makes "
                          "the set, and a job of 'th submit' finds it there",
                          path.string(), name));
}

}  // namespace th::train
