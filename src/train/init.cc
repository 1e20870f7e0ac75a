#include "train/init.h"

#include "base/files.h"
#include "model/weights.h"

namespace th::train {

Result<model::ModelConfig> read_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  TH_TRY(const std::string text, read_file(path, size_t{1} << 20));
  return model::parse_model_config(text, path.string());
}

Status init_from_folder(Engine& engine, const std::filesystem::path& folder) {
  TH_TRY(const model::WeightFolder weights, model::WeightFolder::open(folder, engine.layout()));
  return engine.load_weights(
      [&](int64_t begin, std::span<float> values) { return weights.read(begin, values); });
}

}  // namespace th::train
