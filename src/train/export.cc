#include "train/export.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "model/weights.h"

namespace th::train {
namespace {

Status write_json(const std::filesystem::path& path, const Json& json) {
  return write_file_durable(path, json.dump(2) + "\n");
}

Status write_all(const std::filesystem::path& folder, const model::ModelConfig& config,
                 std::span<const float> params, const model::Tokenizer& tokenizer) {
  const model::ParameterLayout layout(config);
  const int32_t end = tokenizer.end_of_text().value();
  TH_RETURN_IF_ERROR(write_file_durable(folder / "config.json", model::model_config_json(config)));
  TH_RETURN_IF_ERROR(
      write_json(folder / "generation_config.json", {{"bos_token_id", end}, {"eos_token_id", end}}));
  const model::TokenizerFile file = tokenizer.file();
  TH_RETURN_IF_ERROR(write_file_durable(folder / file.name, file.content));
  const bool is_json = file.name == "tokenizer.json";
  const std::string& end_text = tokenizer.parts().tokens[end];
  TH_RETURN_IF_ERROR(write_json(folder / "tokenizer_config.json",
                                {{"tokenizer_class", is_json ? "PreTrainedTokenizerFast" : "LlamaTokenizer"},
                                 {"bos_token", end_text},
                                 {"eos_token", end_text},
                                 {"model_max_length", config.max_position_embeddings},
                                 {"clean_up_tokenization_spaces", false}}));
  return model::write_weights(folder / "model.safetensors", layout, params);
}

}  // namespace

Status export_model(const std::filesystem::path& folder, const model::ModelConfig& config,
                    std::span<const float> params, const model::Tokenizer& tokenizer) {
  const std::filesystem::path temporary = folder.string() + ".tmp";
  std::error_code error;
  std::filesystem::remove_all(temporary, error);
  if (!error) std::filesystem::create_directories(temporary, error);
  Status status = error ? fail(errno_error(temporary.string(), error.value()))
                        : write_all(temporary, config, params, tokenizer);
  if (status) {
    std::filesystem::remove_all(folder, error);
    if (!error) std::filesystem::rename(temporary, folder, error);
    if (error) status = fail(errno_error(folder.string(), error.value()));
  }
  if (!status) std::filesystem::remove_all(temporary, error);
  return status;
}

}  // namespace th::train
