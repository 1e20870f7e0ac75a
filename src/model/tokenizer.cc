#include "model/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <queue>
#include <unordered_map>

#include "model/pretokenizer.h"
#include "model/sentencepiece.h"

namespace th::model {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr size_t kMaxTokens = 1'000'000;

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

struct Merge {
  int32_t rank;
  int32_t result;
};

// One symbol of a word while it is merged: a doubly linked list over the word's bytes.
struct Symbol {
  int32_t id;
  int32_t previous;
  int32_t next;
  bool gone = false;
};

struct Candidate {
  int32_t rank;
  int32_t left;  // index of the left symbol
  int32_t left_id, right_id;
  // The best rank first; of equal ranks the leftmost.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

}  // namespace

struct Tokenizer::Table {
  TokenizerParts parts;
  std::vector<bool> special;                                      // by id
  std::vector<std::pair<std::string_view, int32_t>> special_ids;  // longest text first
  std::array<int32_t, 256> byte_ids{};
  std::unordered_map<uint64_t, Merge> merges;
  WordSplitter splitter;
  std::shared_ptr<const SentencePieces> pieces;  // in place of bytes, merges and words

  Status take_specials();
  void encode_word(std::string_view word, std::vector<int32_t>& out) const;
};

void Tokenizer::Table::encode_word(std::string_view word, std::vector<int32_t>& out) const {
  const auto size = static_cast<int32_t>(word.size());
  std::vector<Symbol> symbols(word.size());
  std::priority_queue<Candidate> queue;
  auto offer = [&](int32_t left) {
    if (left < 0 || symbols[left].next >= size) return;
    const int32_t a = symbols[left].id, b = symbols[symbols[left].next].id;
    if (auto found = merges.find(pair_key(a, b)); found != merges.end()) {
      queue.push({found->second.rank, left, a, b});
    }
  };
  for (int32_t i = 0; i < size; ++i) {
    symbols[i] = {byte_ids[static_cast<unsigned char>(word[i])], i - 1, i + 1};
  }
  for (int32_t i = 0; i < size; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    if (left.gone || left.id != best.left_id || left.next >= size) continue;
    Symbol& right = symbols[left.next];
    if (right.id != best.right_id) continue;  // an older offer: one of the two was merged since
    left.id = merges.at(pair_key(left.id, right.id)).result;
    right.gone = true;
    left.next = right.next;
    if (right.next < size) symbols[right.next].previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
  for (int32_t i = 0; i < size; i = symbols[i].next) out.push_back(symbols[i].id);
}

Status Tokenizer::Table::take_specials() {
  auto bad = [](std::string problem) { return fail(Code::kInvalidArgument, "tokenizer: " + problem); };
  special.resize(parts.tokens.size());
  for (int32_t id : parts.specials) {
    if (id < 0 || id >= static_cast<int32_t>(parts.tokens.size()))
      return bad(fmt::format("special token {} is outside of the vocabulary", id));
    if (parts.tokens[id].empty()) return bad(fmt::format("special token {} has no text", id));
    if (special[id]) return bad(fmt::format("special token {} stands twice", id));
    special[id] = true;
    special_ids.emplace_back(parts.tokens[id], id);
  }
  std::stable_sort(special_ids.begin(), special_ids.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  return {};
}

Result<Tokenizer> Tokenizer::from_sentencepiece(std::string file, std::string_view what) {
  auto table = std::make_shared<Table>();
  TH_TRY(table->pieces, SentencePieces::parse(std::move(file), what));
  table->parts.tokens = table->pieces->tokens();
  table->parts.specials = table->pieces->controls();
  if (Status taken = table->take_specials(); !taken)
    return fail(taken.error().code, fmt::format("{}: {}", what, taken.error().message));
  return Tokenizer(std::move(table));
}

const SentencePieces* Tokenizer::sentencepieces() const { return table_->pieces.get(); }

TokenizerFile Tokenizer::file() const {
  if (table_->pieces) return {"tokenizer.model", table_->pieces->file()};
  return {"tokenizer.json", to_json()};
}

Result<Tokenizer> Tokenizer::from_parts(TokenizerParts parts) {
  auto bad = [](std::string problem) { return fail(Code::kInvalidArgument, "tokenizer: " + problem); };
  if (parts.tokens.size() > kMaxTokens) return bad(fmt::format("over {} tokens", kMaxTokens));
  auto table = std::make_shared<Table>();
  table->parts = std::move(parts);
  const TokenizerParts& all = table->parts;
  const auto vocab_size = static_cast<int32_t>(all.tokens.size());
  TH_RETURN_IF_ERROR(table->take_specials());
  std::unordered_map<std::string_view, int32_t> ids;
  for (int32_t id = 0; id < vocab_size; ++id) {
    if (table->special[id]) continue;
    if (all.tokens[id].empty()) return bad(fmt::format("token {} is empty", id));
    if (!ids.emplace(all.tokens[id], id).second) return bad(fmt::format("token {} stands twice", id));
  }
  for (int byte = 0; byte < 256; ++byte) {
    auto found = ids.find(std::string(1, static_cast<char>(byte)));
    if (found == ids.end())
      return bad(fmt::format("no token for byte 0x{:02x}; want a byte-level BPE", byte));
    table->byte_ids[byte] = found->second;
  }
  for (size_t rank = 0; rank < all.merges.size(); ++rank) {
    auto [left, right] = all.merges[rank];
    for (int32_t id : {left, right}) {
      if (id < 0 || id >= vocab_size || table->special[id]) {
        return bad(fmt::format("merge {} is of token {}, which is not in the vocabulary", rank, id));
      }
    }
    auto found = ids.find(all.tokens[left] + all.tokens[right]);
    if (found == ids.end()) return bad(fmt::format("the result of merge {} is not in the vocabulary", rank));
    table->merges.emplace(pair_key(left, right), Merge{static_cast<int32_t>(rank), found->second});
  }
  return Tokenizer(std::move(table));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  if (table_->pieces) {
    table_->pieces->encode(text, ids);
    return ids;
  }
  std::unordered_map<std::string_view, std::pair<size_t, size_t>>
      seen;  // word → where its ids stand in `ids`
  table_->splitter.split(text, [&](std::string_view word) {
    auto [found, is_new] = seen.try_emplace(word, ids.size(), 0);
    auto& [first, count] = found->second;
    if (is_new) {
      table_->encode_word(word, ids);
      count = ids.size() - first;
    } else {
      for (size_t i = 0; i < count; ++i) ids.push_back(ids[first + i]);
    }
  });
  return ids;
}

std::vector<int32_t> Tokenizer::encode_with_specials(std::string_view text) const {
  std::vector<int32_t> ids;
  auto append = [&](std::string_view ordinary) {
    std::vector<int32_t> more = encode(ordinary);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const std::pair<std::string_view, int32_t>* hit = nullptr;
    for (const auto& special : table_->special_ids) {
      if (text.substr(i).starts_with(special.first)) {
        hit = &special;
        break;
      }
    }
    if (hit == nullptr) {
      ++i;
      continue;
    }
    append(text.substr(begin, i - begin));
    ids.push_back(hit->second);
    i += hit->first.size();
    begin = i;
  }
  append(text.substr(begin));
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (int32_t id : ids) text += id < 0 || id >= vocab_size() ? kReplacement : token_bytes(id);
  if (table_->pieces && table_->pieces->adds_blank() && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(table_->parts.tokens.size()); }

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size() || table_->special[id]) return {};
  return table_->parts.tokens[id];
}

bool Tokenizer::is_special(int32_t id) const { return id >= 0 && id < vocab_size() && table_->special[id]; }

std::optional<int32_t> Tokenizer::special_id(std::string_view text) const {
  for (const auto& [special, id] : table_->special_ids) {
    if (special == text) return id;
  }
  return std::nullopt;
}

std::optional<int32_t> Tokenizer::end_of_text() const {
  return table_->pieces ? table_->pieces->end_id() : special_id(kEndOfText);
}

const TokenizerParts& Tokenizer::parts() const { return table_->parts; }

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = utf8_step(rest);
    if (!step.complete) break;
    out += step.length > 0 ? rest.substr(0, step.length) : kReplacement;
    rest.remove_prefix(step.length > 0 ? step.length : step.invalid);
  }
  pending_ = std::string(rest);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out(pending_.empty() ? std::string_view{} : kReplacement);
  pending_.clear();
  return out;
}

}  // namespace th::model
