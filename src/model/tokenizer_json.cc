// tokenizer.json in and out, and GPT-2's two files (docs/formats.md). Sources: huggingface/tokenizers,
// tokenizers/src/models/bpe/serialization.rs; openai/gpt-2, src/encoder.py.

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/files.h"
#include "base/text.h"
#include "model/pretokenizer.h"
#include "model/tokenizer.h"

namespace th::model {
namespace {

namespace fs = std::filesystem;

// Not base's Json: its objects are lists, and a vocabulary has 100,000 keys.
using FastJson = nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxTokens = 1'000'000;

tl::unexpected<Error> bad(std::string_view what, std::string_view problem) {
  return fail(Code::kInvalidArgument, fmt::format("{}: {}", what, problem));
}

const FastJson& member(const FastJson& object, const char* name) {
  static const FastJson null;
  auto found = object.is_object() ? object.find(name) : object.end();
  return found == object.end() ? null : *found;
}

bool is_text(const FastJson& value, std::string_view text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

/// ByteLevel by itself splits by GPT-2's pattern; some files split by it first and leave ByteLevel the
/// letters.
Status check_pre_tokenizer(const FastJson& pre, std::string_view what) {
  const FastJson* level = &pre;
  bool splits = true;
  if (is_text(member(pre, "type"), "Sequence")) {
    const FastJson& steps = member(pre, "pretokenizers");
    if (!steps.is_array() || steps.size() != 2 || !is_text(member(steps[0], "type"), "Split"))
      return bad(what, "pre_tokenizer: want ByteLevel, or Split and ByteLevel");
    if (!is_text(member(member(steps[0], "pattern"), "Regex"), kGpt2Pattern))
      return bad(what, "pre_tokenizer: splits by another pattern than GPT-2's");
    if (!is_text(member(steps[0], "behavior"), "Isolated") || member(steps[0], "invert") == FastJson(true))
      return bad(what, "pre_tokenizer: want a Split that is Isolated and not inverted");
    level = &steps[1], splits = false;
  }
  if (!is_text(member(*level, "type"), "ByteLevel"))
    return bad(what, "pre_tokenizer.type: want \"ByteLevel\"");
  const FastJson& regex = member(*level, "use_regex");
  if (member(*level, "add_prefix_space") == FastJson(true) ||
      (regex.is_null() || regex == FastJson(true)) != splits)
    return bad(what,
               "pre_tokenizer: want add_prefix_space false, and use_regex true unless Split is before it");
  return {};
}

/// The parts of the pipeline that would change the result and are not supported.
Status check_pipeline(const FastJson& root, std::string_view what) {
  const FastJson& model = member(root, "model");
  if (!is_text(member(model, "type"), "BPE")) return bad(what, "model.type: want \"BPE\"");
  for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const FastJson& value = member(model, key);
    if (!value.is_null() && !is_text(value, ""))
      return bad(what, fmt::format("model.{} is not supported", key));
  }
  for (const char* key : {"byte_fallback", "ignore_merges"}) {
    if (member(model, key) == FastJson(true)) return bad(what, fmt::format("model.{} is not supported", key));
  }
  if (!member(root, "normalizer").is_null()) return bad(what, "a normalizer is not supported");
  TH_RETURN_IF_ERROR(check_pre_tokenizer(member(root, "pre_tokenizer"), what));
  if (!is_text(member(member(root, "decoder"), "type"), "ByteLevel")) {
    return bad(what, "decoder.type: want \"ByteLevel\"");
  }
  return {};
}

class Reader {
 public:
  Reader(const FastJson& root, std::string_view what) : root_(root), what_(what) {}

  Result<TokenizerParts> read() {
    TH_RETURN_IF_ERROR(read_added());
    TH_RETURN_IF_ERROR(read_vocab());
    TH_RETURN_IF_ERROR(read_merges());
    return std::move(parts_);
  }

 private:
  Status place(int64_t id, std::string token) {
    if (id < 0 || id >= static_cast<int64_t>(kMaxTokens))
      return bad(what_, fmt::format("token id {} is out of range", id));
    if (static_cast<size_t>(id) >= parts_.tokens.size()) {
      parts_.tokens.resize(id + 1);
      taken_.resize(id + 1);
    }
    if (taken_[id]) return bad(what_, fmt::format("token id {} is given twice", id));
    taken_[id] = true;
    parts_.tokens[id] = std::move(token);
    return {};
  }

  Status read_added() {
    const FastJson& added = member(root_, "added_tokens");
    if (!added.is_null() && !added.is_array()) return bad(what_, "added_tokens: want a list");
    for (const FastJson& token : added) {
      const FastJson& content = member(token, "content");
      const FastJson& id = member(token, "id");
      if (!content.is_string() || !id.is_number_integer()) {
        return bad(what_, "added_tokens: want objects with a text 'content' and an integer 'id'");
      }
      const auto& text = content.get_ref<const std::string&>();
      if (!added_.emplace(text, id.get<int64_t>()).second)
        return bad(what_, fmt::format("added token '{}' stands twice", text));
      TH_RETURN_IF_ERROR(place(id.get<int64_t>(), text));
      parts_.specials.push_back(id.get<int32_t>());
    }
    return {};
  }

  Status read_vocab() {
    const FastJson& vocab = member(member(root_, "model"), "vocab");
    if (!vocab.is_object()) return bad(what_, "model.vocab: want an object");
    for (const auto& [letters, id] : vocab.items()) {
      if (!id.is_number_integer())
        return bad(what_, fmt::format("model.vocab: the id of '{}' is not an integer", letters));
      if (auto found = added_.find(letters); found != added_.end()) {
        if (found->second == id.get<int64_t>()) continue;  // a special token may stand in both
        return bad(what_, fmt::format("token '{}' has two ids", letters));
      }
      std::optional<std::string> bytes = letters_to_bytes(letters);
      if (!bytes)
        return bad(what_, fmt::format("model.vocab: '{}' has a letter that stands for no byte", letters));
      TH_RETURN_IF_ERROR(place(id.get<int64_t>(), *bytes));
      ids_.emplace(letters, id.get<int32_t>());
    }
    for (size_t id = 0; id < taken_.size(); ++id) {
      if (!taken_[id]) return bad(what_, fmt::format("no token has id {}; want ids without gaps", id));
    }
    return {};
  }

  // "Ġ t", or ["Ġ","t"] as newer versions write it.
  Status read_merges() {
    const FastJson& merges = member(member(root_, "model"), "merges");
    if (!merges.is_array()) return bad(what_, "model.merges: want a list");
    for (size_t i = 0; i < merges.size(); ++i) {
      std::string left, right;
      if (const FastJson& merge = merges[i]; merge.is_string()) {
        const auto& text = merge.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space != std::string::npos) left = text.substr(0, space), right = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0], right = merge[1];
      }
      auto a = ids_.find(left), b = ids_.find(right);
      if (a == ids_.end() || b == ids_.end()) {
        return bad(what_, fmt::format("model.merges[{}]: want two tokens of the vocabulary", i));
      }
      parts_.merges.emplace_back(a->second, b->second);
    }
    return {};
  }

  const FastJson& root_;
  std::string_view what_;
  TokenizerParts parts_;
  std::vector<bool> taken_;
  std::unordered_map<std::string, int64_t> added_;
  std::unordered_map<std::string, int32_t> ids_;  // letters → id, specials not among them
};

Result<Tokenizer> read_tokenizer(const FastJson& root, std::string_view what) {
  TH_TRY(TokenizerParts parts, Reader(root, what).read());
  auto tokenizer = Tokenizer::from_parts(std::move(parts));
  if (!tokenizer) return bad(what, tokenizer.error().message);
  return tokenizer;
}

}  // namespace

Result<Tokenizer> Tokenizer::from_json(std::string_view json, std::string_view what) {
  if (json.size() > kMaxFileBytes) return bad(what, "over 64 MiB");
  FastJson root = FastJson::parse(json, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return bad(what, "not JSON");
  TH_RETURN_IF_ERROR(check_pipeline(root, what));
  return read_tokenizer(root, what);
}

Result<Tokenizer> Tokenizer::from_gpt2(std::string_view vocab_json, std::string_view merges_txt,
                                       std::string_view what) {
  if (vocab_json.size() + merges_txt.size() > kMaxFileBytes) return bad(what, "over 64 MiB");
  FastJson vocab = FastJson::parse(vocab_json, nullptr, /*allow_exceptions=*/false);
  if (!vocab.is_object()) return bad(what, "want a JSON object of tokens and their ids");
  FastJson root = {{"added_tokens", FastJson::array()}, {"model", {{"merges", FastJson::array()}}}};
  // The split pattern never puts letters and other characters into one word, so no merge makes such a token.
  for (const auto& [letters, id] : vocab.items()) {
    if (letters.size() > 4 && letters.starts_with("<|") && letters.ends_with("|>"))
      root["added_tokens"].push_back({{"content", letters}, {"id", id}});
  }
  root["model"]["vocab"] = std::move(vocab);
  for (const std::string& line : split(merges_txt, '\n')) {
    const bool is_comment = line.starts_with("#version");
    if (!line.empty() && !is_comment) root["model"]["merges"].push_back(line.substr(0, line.find('\r')));
  }
  return read_tokenizer(root, what);
}

namespace {

Result<Tokenizer> load_gpt2(const fs::path& vocab) {
  const fs::path merges = vocab.parent_path() / "merges.txt";
  TH_TRY(const std::string vocab_json, read_file(vocab, kMaxFileBytes));
  TH_TRY(const std::string merges_txt, read_file(merges, kMaxFileBytes));
  return Tokenizer::from_gpt2(vocab_json, merges_txt, vocab.string() + " and merges.txt");
}

/// Some models come with a tokenizer.json that is not byte-level beside SentencePiece's file.
Result<Tokenizer> load_folder(const fs::path& folder) {
  std::error_code ignored;
  Result<Tokenizer> tokenizer =
      fail(Code::kNotFound,
           fmt::format("{}: has no tokenizer.json, no tokenizer.model and no vocab.json", folder.string()));
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json"}) {
    if (!fs::is_regular_file(folder / name, ignored)) continue;
    auto found = Tokenizer::load(folder / name);
    if (found || tokenizer.error().code == Code::kNotFound) tokenizer = std::move(found);
    if (tokenizer) break;
  }
  return tokenizer;
}

}  // namespace

Result<Tokenizer> Tokenizer::load(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return load_folder(path);
  if (path.filename() == "vocab.json") return load_gpt2(path);
  TH_TRY(std::string content, read_file(path, kMaxFileBytes));
  if (path.extension() == ".model") return from_sentencepiece(std::move(content), path.string());
  return from_json(content, path.string());
}

std::string Tokenizer::to_json() const {
  using Ordered = nlohmann::ordered_json;
  Ordered added = Ordered::array(), merges = Ordered::array();
  Ordered::object_t vocab;
  auto text_of = [this](int32_t id) {
    const std::string& token = parts().tokens[id];
    return is_special(id) ? token : bytes_to_letters(token);
  };
  for (int32_t id = 0; id < vocab_size(); ++id) {
    vocab.emplace_back(text_of(id), id);
    if (!is_special(id)) continue;
    added.push_back({{"id", id},
                     {"content", text_of(id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  for (auto [left, right] : parts().merges) merges.push_back(text_of(left) + " " + text_of(right));
  const Ordered byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  Ordered model = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false}};
  model["vocab"] = std::move(vocab);
  model["merges"] = std::move(merges);
  Ordered root = {{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", std::move(added)},
                  {"normalizer", nullptr},
                  {"pre_tokenizer", byte_level},
                  {"post_processor", byte_level},
                  {"decoder", byte_level},
                  {"model", std::move(model)}};
  return root.dump(2) + "\n";
}

}  // namespace th::model
