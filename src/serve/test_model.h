#pragma once
// For tests: a tiny random model, in memory and as a folder on disk.

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/safetensors.h"
#include "model/tokenizer.h"
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

/// 2 layers, 4 heads over 2 KV heads. Weights are larger than a fresh model's, so that logits differ clearly.
/// It has no end tokens, so that completions are as long as was asked for.
inline TestModel make_test_model(int64_t context = 256) {
  TestModel test;
  test.config.vocab_size = 260;
  test.config.hidden_size = 32;
  test.config.intermediate_size = 48;
  test.config.num_hidden_layers = 2;
  test.config.num_attention_heads = 4;
  test.config.num_key_value_heads = 2;
  test.config.head_dim = 8;
  test.config.max_position_embeddings = context;
  const model::ParameterLayout layout(test.config);
  test.params.resize(static_cast<size_t>(layout.size));
  model::init_parameters(test.params, 0, layout, 7);
  for (const model::Unit& unit : layout.units) {
    for (int64_t i = 0; i < unit.decayed_size; ++i) test.params[static_cast<size_t>(unit.offset + i)] *= 8;
  }
  auto weights =
      pack_weights(test.config, [&](const model::Parameter& parameter) -> Result<std::span<const float>> {
        return std::span<const float>(test.params)
            .subspan(static_cast<size_t>(parameter.offset), static_cast<size_t>(parameter.size));
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
  std::vector<model::F32Tensor> tensors;
  for (const model::Parameter& parameter : model::ParameterLayout(test.config).parameters) {
    tensors.push_back(
        {parameter.name, parameter.shape,
         std::span<const float>(test.params)
             .subspan(static_cast<size_t>(parameter.offset), static_cast<size_t>(parameter.size))});
  }
  TH_CHECK(model::write_safetensors(folder / "model.safetensors", tensors, {}).has_value());
}

}  // namespace th::serve
