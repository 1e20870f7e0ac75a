#pragma once
// For tests: a tiny random model, in memory and as a folder on disk.

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/env.h"
#include "model/decoder.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "serve/model_folder.h"

namespace th::serve {

struct TestModel {
  model::ModelConfig config;
  std::vector<float> params;  // in the layout of model::ParameterLayout
  std::shared_ptr<ModelFolder> folder;
};

/// The 4 special tokens, the 256 bytes.
inline model::Tokenizer byte_tokenizer() {
  model::TokenizerParts parts;
  for (const auto text : {model::kEndOfText, model::kUserToken, model::kAssistantToken, model::kEndToken}) {
    parts.specials.push_back(static_cast<int32_t>(parts.tokens.size()));
    parts.tokens.emplace_back(text);
  }
  for (int byte = 0; byte < 256; ++byte) parts.tokens.emplace_back(1, static_cast<char>(byte));
  auto tokenizer = model::Tokenizer::from_parts(std::move(parts));
  TH_CHECK(tokenizer.has_value());
  return *tokenizer;
}

/// 2 layers, 4 heads, a Llama's over 2 KV heads. Weights are larger than a fresh model's, so that logits
/// differ clearly. It has no end tokens, so that completions are as long as was asked for.
inline TestModel make_test_model(int64_t context = 256, model::Family family = model::Family::kLlama) {
  const bool is_gpt2 = family == model::Family::kGpt2;
  TestModel test;
  test.config.family = family;
  test.config.vocab_size = 260;
  test.config.hidden_size = 32;
  test.config.intermediate_size = 48;
  test.config.num_hidden_layers = 2;
  test.config.num_attention_heads = 4;
  test.config.num_key_value_heads = is_gpt2 ? 4 : 2;
  test.config.tie_word_embeddings = is_gpt2;
  test.config.head_dim = 8;
  test.config.max_position_embeddings = context;
  const model::ParameterLayout layout(test.config);
  test.params.resize(static_cast<size_t>(layout.size));
  model::init_parameters(test.params, 0, layout, 7);
  Prng prng(8);
  for (const model::Parameter& p : layout.parameters) {
    const auto values =
        std::span(test.params).subspan(static_cast<size_t>(p.offset), static_cast<size_t>(p.size));
    for (float& value : values)
      value = p.shape.size() > 1 ? 8 * value : value + static_cast<float>(prng.normal()) / 4;
  }
  auto weights = pack_weights(test.config, layout, [&](int64_t begin, std::span<float> values) -> Status {
    std::copy_n(test.params.begin() + begin, values.size(), values.begin());
    return {};
  });
  TH_CHECK(weights.has_value());
  test.folder =
      std::make_shared<ModelFolder>(ModelFolder{*std::move(weights), byte_tokenizer(), {}, {}, false});
  return test;
}

/// A fresh folder, removed at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "th-serve-XXXXXX").string();
    TH_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

/// config.json, tokenizer.json and model.safetensors.
inline void write_test_model(const TestModel& test, const std::filesystem::path& folder) {
  write_text(folder / "config.json", model::model_config_json(test.config));
  write_text(folder / "tokenizer.json", byte_tokenizer().to_json());
  TH_CHECK(
      model::write_weights(folder / "model.safetensors", model::ParameterLayout(test.config), test.params)
          .has_value());
}

}  // namespace th::serve
