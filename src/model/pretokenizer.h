#pragma once
// What happens before BPE: bytes into words by GPT-2's pattern, and GPT-2's letters for bytes.

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace th::model {

/// At text[0]: the length of a valid UTF-8 sequence (1–4).
/// `complete` false: not yet valid, but may become so with more bytes. length 0 then, and for what is never
/// valid; `invalid` is then how many bytes are to be replaced together (1–3, Unicode's "maximal subpart").
struct Utf8Step {
  size_t length = 0;
  bool complete = true;
  size_t invalid = 0;
};
Utf8Step utf8_step(std::string_view text);

/// Source: openai/gpt-2, src/encoder.py.
inline constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Splits by GPT-2's pattern (contractions, letters, digits, other, white space). Cheap to copy; thread-safe.
class WordSplitter {
 public:
  WordSplitter();
  /// Calls `word` with each piece, in order; together they are `text`. A run of bytes that is not UTF-8 is a
  /// word of its own. Cost: O(n).
  void split(std::string_view text, const std::function<void(std::string_view)>& word) const;

 private:
  void split_valid(std::string_view text, void* match,
                   const std::function<void(std::string_view)>& word) const;
  std::shared_ptr<const void> pattern_;  // pcre2_code
};

/// The printable letter that stands for each byte in a tokenizer.json ("Ġ" for a blank), joined.
std::string bytes_to_letters(std::string_view bytes);
/// The other way; nothing when `letters` has a letter that stands for no byte.
std::optional<std::string> letters_to_bytes(std::string_view letters);

}  // namespace th::model
