#pragma once
// The `train` section of a recipe: what is trained, on what, how. The keys are described in docs/training.md.

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "model/config.h"
#include "train/engine.h"

namespace th::train {

struct DataOptions {
  std::string text = {};  // path in the job's folder; empty: `set`
  std::string set = {};   // NAME or NAME@VERSION of a data set, in data/NAME of the job's folder
  int32_t vocab_size = 2048;
  double validation_share = 0.02;  // of each block of the text
};

struct CheckpointOptions {
  int64_t every = 50;  // steps; 0: none
  int64_t keep = 2;
  std::string store = {};                // "az://CONTAINER/PREFIX", "%j" in it for the job's id; empty: none
  int64_t store_wait_ns = 10 * kMinute;  // how long the end of a run waits for the last upload
};

struct Recipe {
  std::string name;
  model::ModelConfig model;  // vocab_size is set once the tokenizer is known
  int32_t vocab_size = 0;    // of the model; 0: the tokenizer's
  std::string from = {};     // a Hugging Face folder to go on from; empty: random weights
  LoraOptions lora = {};
  DataOptions data;
  OptimizerOptions optimizer;
  CheckpointOptions checkpoint;
  int64_t steps = 0;
  int64_t batch = 1;          // sequences a rank and micro-batch
  int64_t micro_batches = 1;  // a step, their gradients summed up
  // Sequences of a step on all ranks, from a ds_config.json; batch or micro_batches are then 0 where they
  // follow from it (fit_batch). 0: batch · micro_batches · ranks.
  int64_t train_batch = 0;
  int64_t ranks = 0;               // that the job asks for (gpus); 0: not said, or a part of one
  std::filesystem::path trace;     // file for Perfetto; empty: none
  std::vector<std::string> notes;  // for people, about what is not done
  Dtype dtype = Dtype::kFloat32;
  model::Recompute recompute = model::Recompute::kNone;
  int zero_stage = 1;
  std::filesystem::path offload;   // folder; empty: none
  int64_t memory_limit_bytes = 0;  // of a rank; 0: none
  int64_t seq = 128;               // tokens a sequence
  uint64_t seed = 1;
  std::vector<std::pair<std::string, std::string>>
      stage;                     // path in the job's folder → path beside the recipe
  std::filesystem::path folder;  // where the recipe lies
};

/// `file` names the text in errors; `train.deepspeed` is read too. The keys that other programs read (gpus,
/// time, …) are known here but not checked. Errors: kInvalidArgument "recipe.yaml:12:
/// train.model.hidden_size: …".
Result<Recipe> parse_recipe(std::string_view text, const std::filesystem::path& file);

/// Reads the file, and checks that the text it trains on is there; a data set only comes with the job.
/// Errors: as parse_recipe, kNotFound.
Result<Recipe> load_recipe(const std::filesystem::path& file);

/// The text to train on: in the working folder, else where `stage` takes it from. Errors: kNotFound, naming
/// both.
Result<std::filesystem::path> find_text(const Recipe& recipe);

/// train.deepspeed: in the working folder, else beside the recipe, else where `stage` takes it from. Errors:
/// kNotFound.
Result<std::filesystem::path> find_ds_config(const Recipe& recipe, const std::string& name);

/// train.model.from: in the working folder, else beside the recipe, else where `stage` takes it from. Errors:
/// kNotFound.
Result<std::filesystem::path> find_model(const Recipe& recipe);

/// The folder of the data set: data/NAME in the working folder. Errors: kNotFound, telling how it gets there.
Result<std::filesystem::path> find_data_set(const Recipe& recipe);

}  // namespace th::train
