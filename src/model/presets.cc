#include "model/presets.h"

#include <fmt/format.h>

#include <cmath>

#include "model/layout.h"

namespace th::model {
namespace {

struct Gpt2Size {
  std::string_view name;
  int64_t hidden, layers, heads;
};
constexpr Gpt2Size kSizes[] = {{"gpt2-124m", 768, 12, 12},
                               {"gpt2-355m", 1024, 24, 16},
                               {"gpt2-774m", 1280, 36, 20},
                               {"gpt2-1558m", 1600, 48, 25}};

ModelConfig llama(int64_t hidden, int64_t layers) {
  constexpr int64_t kHeadDim = 64, kTogether = 64;
  return {.vocab_size = 32000,
          .hidden_size = hidden,
          // Two thirds of 4 times the width: as many weights as GPT-2's two matrices (Shazeer 2020).
          .intermediate_size = (hidden * 8 / 3 + kTogether - 1) / kTogether * kTogether,
          .num_hidden_layers = layers,
          .num_attention_heads = hidden / kHeadDim,
          .num_key_value_heads = hidden / kHeadDim,
          .head_dim = kHeadDim,
          .max_position_embeddings = 4096,
          .norm_eps = 1e-5,
          .tie_word_embeddings = true};
}

double size_of(const ModelConfig& config) { return static_cast<double>(ParameterLayout(config).size); }

}  // namespace

Result<ModelConfig> find_preset(std::string_view name) {
  std::string names;
  for (const Gpt2Size& size : kSizes) {
    names += (names.empty() ? "" : ", ") + std::string(size.name);
    if (size.name != name) continue;
    return ModelConfig{.family = Family::kGpt2,
                       .vocab_size = 50257,
                       .hidden_size = size.hidden,
                       .intermediate_size = 4 * size.hidden,
                       .num_hidden_layers = size.layers,
                       .num_attention_heads = size.heads,
                       .num_key_value_heads = size.heads,
                       .head_dim = size.hidden / size.heads,
                       .max_position_embeddings = 1024,
                       .norm_eps = 1e-5,
                       .tie_word_embeddings = true};
  }
  return fail(Code::kInvalidArgument, fmt::format("there is no model '{}'; there are {}", name, names));
}

Result<ModelConfig> model_of_size(double parameters) {
  if (!(parameters >= 1e7 && parameters <= 1e12))
    return fail(Code::kInvalidArgument,
                fmt::format("parameters: want 10 million to a trillion, got {}", parameters));
  // The width first, at 128 times the depth; then as many layers as come nearest.
  int64_t hidden = 128;
  while (size_of(llama(hidden + 128, (hidden + 128) / 128)) < parameters) hidden += 128;
  const double outside = size_of(llama(hidden, 1)), layer = size_of(llama(hidden, 2)) - outside;
  const auto layers = static_cast<int64_t>(std::lround((parameters - outside) / layer)) + 1;
  return llama(hidden, std::max<int64_t>(1, layers));
}

}  // namespace th::model
