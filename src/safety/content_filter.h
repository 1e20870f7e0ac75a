#pragma once
// A content filter of word lists and patterns. It is lexical: it knows phrases, not meaning, and is no
// trained classifier. Categories, severities and levels are those of Azure OpenAI, so that its clients read
// the results as they are.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::safety {

enum class Category : uint8_t { kHate, kSelfHarm, kSexual, kViolence };
inline constexpr size_t kNumCategories = 4;
enum class Severity : uint8_t { kSafe, kLow, kMedium, kHigh };

std::string_view category_name(Category category);  // "hate", "self_harm", "sexual", "violence"
std::string_view severity_name(Severity severity);  // "safe", "low", "medium", "high"

/// Terms of an operator. A term matches whole words, in any case; at most ContentFilter::kWindowBytes bytes
/// each.
struct Blocklist {
  std::string name;
  std::vector<std::string> terms;
};

struct Policy {
  std::optional<Severity> block_at =
      Severity::kMedium;              // this severity and above is blocked; nullopt: none is
  std::vector<Blocklist> blocklists;  // always block
};

/// "off", "low", "medium", "high" (the level blocks this severity and above). Errors: kInvalidArgument.
Result<std::optional<Severity>> parse_level(std::string_view level);

/// What was found in a text.
struct Verdict {
  std::array<Severity, kNumCategories> severity{};  // by Category; the worst that was found
  std::vector<std::string> blocklists;              // names of those that matched, in the policy's order
  bool blocked = false;

  Severity of(Category category) const { return severity[static_cast<size_t>(category)]; }
  void merge(const Verdict& other);
};

/// Thread: immutable, safe from any thread. Cost: one pass of RE2 over the text for the lexicon, one for the
/// blocklists.
class ContentFilter {
 public:
  /// No phrase that the filter knows is longer.
  static constexpr size_t kWindowBytes = 64;

  /// Errors: kInvalidArgument: a term is empty, longer than kWindowBytes or not UTF-8, or there are over
  /// 10,000 of them.
  static Result<std::shared_ptr<const ContentFilter>> create(Policy policy);
  ~ContentFilter();

  Verdict check(std::string_view text) const;
  /// Whether `category` at this severity is blocked by the policy.
  bool blocks(Severity severity) const { return policy_.block_at && severity >= *policy_.block_at; }
  /// True when the policy blocks nothing at all: texts need no checking.
  bool off() const { return !policy_.block_at && policy_.blocklists.empty(); }

 private:
  struct Patterns;
  explicit ContentFilter(Policy policy);
  Policy policy_;
  std::unique_ptr<Patterns> patterns_;
};

/// Checks a text that grows piece by piece. Text is shown kWindowBytes late, so that the first words of a
/// blocked phrase are not seen before its last one is known. Thread: one owner. Cost of a piece:
/// O(kWindowBytes + piece).
class StreamCheck {
 public:
  explicit StreamCheck(std::shared_ptr<const ContentFilter> filter) : filter_(std::move(filter)) {}
  /// Appends `piece`. Returns how many bytes, from the start of the whole text, may be shown by now.
  uint64_t feed(std::string_view piece);
  /// No more text comes. Returns the same: all bytes, unless the verdict is blocked.
  uint64_t finish();
  const Verdict& verdict() const { return verdict_; }

 private:
  void examine(std::string_view text);

  std::shared_ptr<const ContentFilter> filter_;
  std::string tail_;  // the last bytes of the text, at least kWindowBytes + 1 where there are as many
  uint64_t total_ = 0;
  uint64_t showable_ = 0;
  Verdict verdict_;
};

}  // namespace th::safety
