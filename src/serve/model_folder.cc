#include "serve/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "model/weights.h"

namespace th::serve {
namespace {

constexpr size_t kMaxConfigBytes = size_t{4} << 20;

// An object, empty where the file is missing.
Result<Json> read_optional_json(const std::filesystem::path& path) {
  Result<std::string> text = read_file(path, kMaxConfigBytes);
  if (!text && text.error().code == Code::kNotFound) return Json::object();
  if (!text) return fail(std::move(text).error());
  TH_TRY(Json json, parse_json(*text, path.string()));
  if (!json.is_object()) return fail(Code::kInvalidArgument, path.string() + ": want a JSON object");
  return json;
}

void add_token(std::vector<int32_t>& tokens, int64_t token, int32_t vocab) {
  if (token < 0 || token >= vocab) return;
  const auto id = static_cast<int32_t>(token);
  if (std::find(tokens.begin(), tokens.end(), id) == tokens.end()) tokens.push_back(id);
}

// generation_config.json says one id or several.
void add_tokens(std::vector<int32_t>& tokens, const Json& config, int32_t vocab) {
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return;
  if (found->is_number_integer()) add_token(tokens, found->get<int64_t>(), vocab);
  if (!found->is_array()) return;
  for (const Json& token : *found) {
    if (token.is_number_integer()) add_token(tokens, token.get<int64_t>(), vocab);
  }
}

Result<DecoderWeights> read_weights(const std::filesystem::path& folder, const model::ModelConfig& config) {
  const model::ParameterLayout layout(config);
  TH_TRY(const model::WeightFolder weights, model::WeightFolder::open(folder, layout));
  auto packed = pack_weights(
      config, layout, [&](int64_t begin, std::span<float> values) { return weights.read(begin, values); });
  if (!packed) return fail(packed.error().code, folder.string() + ": " + packed.error().message);
  return packed;
}

bool has_chat_tokens(const Json& tokenizer_config, const model::Tokenizer& tokenizer) {
  const auto found = tokenizer_config.find("chat_template");
  if (found == tokenizer_config.end() || !found->is_string()) return false;
  const std::string text = found->get<std::string>();
  for (const std::string_view token : {model::kUserToken, model::kAssistantToken, model::kEndToken}) {
    if (text.find(token) == std::string::npos || !tokenizer.special_id(token)) {
      log_warn("the chat_template does not use the special token {}: messages are joined as plain text",
               token);
      return false;
    }
  }
  return true;
}

}  // namespace

std::vector<int32_t> ModelFolder::encode_prompt(const std::string& text) const {
  std::vector<int32_t> tokens = tokenizer.encode(text);
  if (bos_token) tokens.insert(tokens.begin(), *bos_token);
  if (tokens.empty()) {
    if (const std::optional<int32_t> end = tokenizer.end_of_text()) tokens.push_back(*end);
  }
  return tokens;
}

std::vector<int32_t> ModelFolder::encode_chat(std::span<const ChatMessage> messages) const {
  if (!chat_tokens) {
    std::string text;
    for (const ChatMessage& message : messages) {
      if (!text.empty()) text += '\n';
      text += message.content;
    }
    return encode_prompt(text);
  }
  std::vector<int32_t> tokens;
  if (bos_token) tokens.push_back(*bos_token);
  for (const ChatMessage& message : messages) {
    tokens.push_back(
        *tokenizer.special_id(message.role == "assistant" ? model::kAssistantToken : model::kUserToken));
    const std::vector<int32_t> content = tokenizer.encode(message.content);
    tokens.insert(tokens.end(), content.begin(), content.end());
    tokens.push_back(*tokenizer.special_id(model::kEndToken));
  }
  tokens.push_back(*tokenizer.special_id(model::kAssistantToken));
  return tokens;
}

Result<std::shared_ptr<const ModelFolder>> load_model_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    return fail(Code::kNotFound, folder.string() +
                                     ": not a folder; want one with config.json, tokenizer.json and " +
                                     "model.safetensors");
  }
  const std::filesystem::path config_path = folder / "config.json";
  TH_TRY(const std::string config_text, read_file(config_path, kMaxConfigBytes));
  TH_TRY(const model::ModelConfig config, model::parse_model_config(config_text, config_path.string()));
  TH_TRY(model::Tokenizer tokenizer, model::Tokenizer::load(folder));
  const int32_t vocab = tokenizer.vocab_size();
  if (vocab > config.vocab_size) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("{}: {} tokens, but config.json has a vocab_size of {}: the files are of two models",
                    (folder / tokenizer.file().name).string(), vocab, config.vocab_size));
  }
  TH_TRY(const Json generation, read_optional_json(folder / "generation_config.json"));
  TH_TRY(const Json tokenizer_config, read_optional_json(folder / "tokenizer_config.json"));
  TH_TRY(DecoderWeights weights, read_weights(folder, config));

  auto loaded = std::make_shared<ModelFolder>(ModelFolder{std::move(weights), tokenizer, {}, {}, false});
  loaded->chat_tokens = has_chat_tokens(tokenizer_config, tokenizer);
  add_tokens(loaded->end_tokens, generation, vocab);
  add_token(loaded->end_tokens, config.eos_token_id.value_or(-1), vocab);
  add_token(loaded->end_tokens, tokenizer.end_of_text().value_or(-1), vocab);
  if (loaded->chat_tokens) add_token(loaded->end_tokens, *tokenizer.special_id(model::kEndToken), vocab);
  TH_TRY(const bool add_bos, get_bool(tokenizer_config, "add_bos_token", false));
  const int64_t bos = config.bos_token_id.value_or(-1);
  if (add_bos && bos >= 0 && bos < vocab) loaded->bos_token = static_cast<int32_t>(bos);
  return loaded;
}

}  // namespace th::serve
