#pragma once
// A training that begins with the weights of a Hugging Face folder: fine-tuning.

#include <filesystem>

#include "base/result.h"
#include "model/config.h"
#include "train/engine.h"

namespace th::train {

/// Of config.json. Errors: as read_file and parse_model_config.
Result<model::ModelConfig> read_model_config(const std::filesystem::path& folder);

/// The folder's weights become the engine's, cut as those are. Errors: those of WeightFolder; of the group.
Status init_from_folder(Engine& engine, const std::filesystem::path& folder);

}  // namespace th::train
