#include "model/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>

#include "base/result.h"

namespace th::model {
namespace {

// Printable Latin-1 bytes stand for themselves, the other 68 for U+0100 and up (openai/gpt-2,
// bytes_to_unicode).
bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE);
}

constexpr int kLetters = 0x100 + 68;

struct Alphabet {
  std::array<int, 256> letter_of;
  std::array<int, kLetters> byte_of;
  Alphabet() {
    byte_of.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      letter_of[byte] = stands_for_itself(byte) ? byte : next++;
      byte_of[letter_of[byte]] = byte;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

Utf8Step utf8_step(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {.length = 1};
  size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return {.invalid = 1};
  // The second byte's range rules out overlong forms, surrogates and what lies above U+10FFFF (Unicode, table
  // 3-7).
  unsigned char low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {.complete = false, .invalid = i};
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < low || byte > high) return {.invalid = i};
    low = 0x80, high = 0xBF;
  }
  return {.length = length};
}

WordSplitter::WordSplitter() {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kGpt2Pattern), PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  TH_CHECK(code != nullptr);
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without a JIT it only matches slower
  pattern_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
}

void WordSplitter::split(std::string_view text, const std::function<void(std::string_view)>& word) const {
  const auto* code = static_cast<const pcre2_code*>(pattern_.get());
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code, nullptr), &pcre2_match_data_free);
  TH_CHECK(match != nullptr);
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = begin;
    while (end < text.size()) {
      Utf8Step step = utf8_step(text.substr(end));
      if (step.length == 0) break;
      end += step.length;
    }
    if (end > begin) split_valid(text.substr(begin, end - begin), match.get(), word);
    begin = end;
    while (end < text.size() && utf8_step(text.substr(end)).length == 0) ++end;
    if (end > begin) word(text.substr(begin, end - begin));
    begin = end;
  }
}

void WordSplitter::split_valid(std::string_view text, void* match,
                               const std::function<void(std::string_view)>& word) const {
  const auto* code = static_cast<const pcre2_code*>(pattern_.get());
  auto* match_data = static_cast<pcre2_match_data*>(match);
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match_data);
  size_t begin = 0;
  while (begin < text.size()) {
    int count = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin,
                            PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, match_data, nullptr);
    // The pattern matches at every place; only a resource limit can say no, and then the rest is one word.
    size_t end = count > 0 && range[1] > begin ? range[1] : text.size();
    word(text.substr(begin, end - begin));
    begin = end;
  }
}

std::string bytes_to_letters(std::string_view bytes) {
  std::string letters;
  for (char c : bytes) {
    int letter = alphabet().letter_of[static_cast<unsigned char>(c)];
    if (letter < 0x80) {
      letters += static_cast<char>(letter);
    } else {
      letters += static_cast<char>(0xC0 | (letter >> 6));
      letters += static_cast<char>(0x80 | (letter & 0x3F));
    }
  }
  return letters;
}

std::optional<std::string> letters_to_bytes(std::string_view letters) {
  std::string bytes;
  for (size_t i = 0; i < letters.size(); ++i) {
    int letter = static_cast<unsigned char>(letters[i]);
    if (letter >= 0x80) {
      if (letter < 0xC2 || letter > 0xDF || i + 1 == letters.size() || !is_continuation(letters[i + 1])) {
        return std::nullopt;
      }
      letter = ((letter & 0x1F) << 6) | (static_cast<unsigned char>(letters[++i]) & 0x3F);
    }
    if (letter >= kLetters || alphabet().byte_of[letter] < 0) return std::nullopt;
    bytes += static_cast<char>(alphabet().byte_of[letter]);
  }
  return bytes;
}

}  // namespace th::model
