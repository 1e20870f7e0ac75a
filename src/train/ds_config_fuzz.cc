// Any bytes as a ds_config.json: an error, or values within their ranges; then with a recipe and any number
// of ranks.

#include <cstddef>
#include <cstdint>

#include "train/ds_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::train;
  auto config = parse_ds_config({reinterpret_cast<const char*>(data), size}, "ds_config.json");
  if (!config) {
    TH_CHECK(config.error().code == th::Code::kInvalidArgument);
    return 0;
  }
  Recipe recipe;
  recipe.steps = 100;
  if (!apply_ds_config(*config, {"steps", "optimizer.lr"}, recipe)) return 0;
  TH_CHECK(recipe.zero_stage >= 0 && recipe.zero_stage <= 3 && recipe.optimizer.lr > 0);
  for (int64_t step : {1, 50, 100}) {
    const double lr = learning_rate(recipe.optimizer, step, recipe.steps);
    TH_CHECK(lr >= 0);
  }
  const int64_t ranks = 1 + static_cast<int64_t>(size % 7);
  if (fit_batch(recipe, ranks) && recipe.train_batch > 0)
    TH_CHECK(recipe.batch * recipe.micro_batches * ranks == recipe.train_batch);
  return 0;
}
