#pragma once
// For tests: a small training in a folder of its own, with as many ranks as wanted.

#include <fstream>
#include <string>
#include <vector>

#include "base/files.h"
#include "train/test_gang.h"
#include "train/trainer.h"

namespace th::train {

inline Recipe small_recipe(int world_size) {
  Recipe recipe;
  recipe.name = "small";
  recipe.model = {.vocab_size = 0,
                  .hidden_size = 32,
                  .intermediate_size = 64,
                  .num_hidden_layers = 2,
                  .num_attention_heads = 4,
                  .num_key_value_heads = 2,
                  .head_dim = 8,
                  .max_position_embeddings = 32,
                  .tie_word_embeddings = true,
                  .bos_token_id = {},
                  .eos_token_id = {}};
  recipe.data = {.text = "text.txt", .vocab_size = 300, .validation_share = 0.05};
  recipe.optimizer = {.lr = 0.005, .warmup = 5};
  recipe.checkpoint = {.every = 0, .keep = 2};
  recipe.steps = 40;
  recipe.batch = 4 / world_size;  // the same 4 sequences a step, however many ranks
  recipe.seq = 32;
  return recipe;
}

/// A job's folder with 100 KB of text.
class Job {
 public:
  explicit Job(int world_size) : world_size_(world_size), recipe(small_recipe(world_size)) {
    write_text(folder_.path());
    recipe.data.text = folder_.path() / "text.txt";
  }
  static void write_text(const std::filesystem::path& folder) {
    std::ofstream(folder / "text.txt")
        << read_file(TH_SOURCE_DIR "/recipes/data/kjv.txt").value().substr(0, 100'000);
  }
  const std::filesystem::path& folder() const { return folder_.path(); }
  std::vector<pid_t> start() {
    return start_gang(world_size_, [this](collective::Group& group) {
      const TrainOptions options = {.job_folder = folder(), .metrics_file = folder() / "metrics.jsonl"};
      return train(recipe, group, options).has_value();
    });
  }
  bool run() { return wait_gang(start()); }
  std::string weights() const { return read_file(folder() / "model" / "model.safetensors").value(); }
  std::string metrics() const { return read_file(folder() / "metrics.jsonl").value(); }

 private:
  TemporaryFolder folder_;
  int world_size_;

 public:
  Recipe recipe;
};

}  // namespace th::train
