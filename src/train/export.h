#pragma once
// The trained model as a Hugging Face folder, which transformers and th-serve load.

#include <filesystem>
#include <span>

#include "base/result.h"
#include "model/decoder.h"
#include "model/tokenizer.h"

namespace th::train {

/// config.json, generation_config.json, tokenizer.json, tokenizer_config.json, model.safetensors. Written
/// beside `folder` and then put in its place, so it is whole or not there. Errors: kNoSpace,
/// kPermissionDenied, kInternal.
Status export_model(const std::filesystem::path& folder, const model::ModelConfig& config,
                    std::span<const float> params, const model::Tokenizer& tokenizer);

}  // namespace th::train
