#pragma once
// Models by name or by size, for benchmarks.

#include <string_view>

#include "base/result.h"
#include "model/config.h"

namespace th::model {

/// "gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m": the four sizes of Radford et al. 2019 with the
/// parameters that they have. Errors: kInvalidArgument, naming them.
Result<ModelConfig> find_preset(std::string_view name);

/// A Llama of about so many parameters: heads of 64, 128 times as wide as deep or a little less, a vocabulary
/// of 32,000, embedding and head tied. Errors: kInvalidArgument (below 10 million, above a trillion).
Result<ModelConfig> model_of_size(double parameters);

}  // namespace th::model
