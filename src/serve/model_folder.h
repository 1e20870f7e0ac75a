#pragma once
// A Hugging Face model folder, read and checked: what the engine and the API need of it.

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/tokenizer.h"
#include "serve/forward.h"

namespace th::serve {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// Immutable once loaded. Thread: const members are safe from any thread.
struct ModelFolder {
  DecoderWeights weights;
  model::Tokenizer tokenizer;
  std::vector<int32_t> end_tokens;   // any of them ends a completion
  std::optional<int32_t> bos_token;  // stands before every prompt
  bool chat_tokens = false;          // messages are framed by special tokens, not just joined

  /// Tokens of a prompt; the end-of-text token alone if `text` is empty, where there is one.
  std::vector<int32_t> encode_prompt(const std::string& text) const;
  /// With chat_tokens: <|user|>…<|end|> a message, then <|assistant|>; a system message is framed as the
  /// user's. Else the contents, one a line, and nothing between the last and the completion
  /// (docs/serving.md).
  std::vector<int32_t> encode_chat(std::span<const ChatMessage> messages) const;
};

/// Reads config.json (Llama or GPT-2), tokenizer.json, the weights (model::WeightFolder), and where they are
/// there generation_config.json and tokenizer_config.json. Errors: kNotFound, kInvalidArgument, kDataLoss,
/// naming the file and what is wrong with it. Memory: the weights once more, packed for the kernels. Cost:
/// one pass over the weights.
Result<std::shared_ptr<const ModelFolder>> load_model_folder(const std::filesystem::path& folder);

}  // namespace th::serve
