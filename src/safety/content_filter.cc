#include "safety/content_filter.h"

#include <fmt/format.h>
#include <re2/re2.h>
#include <re2/set.h>

#include <algorithm>

#include "base/log.h"
#include "safety/lexicon.h"

namespace th::safety {

namespace {

constexpr size_t kMaxTerms = 10'000;
constexpr int64_t kMaxAutomatonBytes = int64_t{64} << 20;

bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

RE2::Options pattern_options() {
  RE2::Options options;
  options.set_case_sensitive(false);
  options.set_log_errors(false);
  options.set_max_mem(kMaxAutomatonBytes);
  return options;
}

std::string lexicon_pattern(std::string_view phrase) {
  std::string pattern = "\\b(?:";
  for (char c : phrase) {
    if (c == ' ') {
      pattern += "[[:space:][:punct:]]{1,3}";
    } else {
      pattern += c;
    }
  }
  return pattern + ")\\b";
}

std::string term_pattern(const std::string& term) {
  std::string quoted = RE2::QuoteMeta(term);
  return (is_word(term.front()) ? "\\b" : "") + quoted + (is_word(term.back()) ? "\\b" : "");
}

/// One RE2 set; `ok` is false when the automaton ran out of memory on this text.
std::vector<int> matches(const RE2::Set& set, std::string_view text, bool& ok) {
  std::vector<int> found;
  RE2::Set::ErrorInfo error{};
  set.Match(re2::StringPiece(text.data(), text.size()), &found, &error);
  ok = error.kind == RE2::Set::kNoError;
  return found;
}

const RE2::Set& lexicon_set() {
  static const RE2::Set set = [] {
    RE2::Set built(pattern_options(), RE2::UNANCHORED);
    for (const LexiconEntry& entry : lexicon())
      TH_CHECK(built.Add(lexicon_pattern(entry.phrase), nullptr) >= 0);
    TH_CHECK(built.Compile());
    return built;
  }();
  return set;
}

}  // namespace

std::string_view category_name(Category category) {
  constexpr std::string_view kNames[] = {"hate", "self_harm", "sexual", "violence"};
  return kNames[static_cast<size_t>(category)];
}

std::string_view severity_name(Severity severity) {
  constexpr std::string_view kNames[] = {"safe", "low", "medium", "high"};
  return kNames[static_cast<size_t>(severity)];
}

Result<std::optional<Severity>> parse_level(std::string_view level) {
  if (level == "off") return std::optional<Severity>();
  for (Severity severity : {Severity::kLow, Severity::kMedium, Severity::kHigh}) {
    if (level == severity_name(severity)) return std::optional<Severity>(severity);
  }
  return fail(Code::kInvalidArgument,
              fmt::format("content filter level '{}' is unknown: give off, low, medium or high", level));
}

void Verdict::merge(const Verdict& other) {
  for (size_t i = 0; i < kNumCategories; ++i) severity[i] = std::max(severity[i], other.severity[i]);
  for (const std::string& name : other.blocklists) {
    if (std::find(blocklists.begin(), blocklists.end(), name) == blocklists.end()) blocklists.push_back(name);
  }
  blocked = blocked || other.blocked;
}

struct ContentFilter::Patterns {
  RE2::Set terms{pattern_options(), RE2::UNANCHORED};
  std::vector<size_t> list_of_term;  // index into Policy::blocklists
};

ContentFilter::ContentFilter(Policy policy)
    : policy_(std::move(policy)), patterns_(std::make_unique<Patterns>()) {}
ContentFilter::~ContentFilter() = default;

Result<std::shared_ptr<const ContentFilter>> ContentFilter::create(Policy policy) {
  std::shared_ptr<ContentFilter> filter(new ContentFilter(std::move(policy)));
  Patterns& patterns = *filter->patterns_;
  for (size_t list = 0; list < filter->policy_.blocklists.size(); ++list) {
    const Blocklist& blocklist = filter->policy_.blocklists[list];
    for (const std::string& term : blocklist.terms) {
      if (term.empty() || term.size() > kWindowBytes) {
        return fail(Code::kInvalidArgument, fmt::format("blocklist '{}': a term of {} bytes; give 1 to {}",
                                                        blocklist.name, term.size(), kWindowBytes));
      }
      if (patterns.list_of_term.size() == kMaxTerms) {
        return fail(Code::kInvalidArgument,
                    fmt::format("blocklist '{}': over {} terms; give fewer", blocklist.name, kMaxTerms));
      }
      if (patterns.terms.Add(term_pattern(term), nullptr) < 0) {
        return fail(Code::kInvalidArgument,
                    fmt::format("blocklist '{}': a term is not valid UTF-8", blocklist.name));
      }
      patterns.list_of_term.push_back(list);
    }
  }
  if (!patterns.list_of_term.empty() && !patterns.terms.Compile()) {
    return fail(Code::kInvalidArgument, "the blocklists are too large together: give fewer or shorter terms");
  }
  return std::shared_ptr<const ContentFilter>(std::move(filter));
}

Verdict ContentFilter::check(std::string_view text) const {
  Verdict verdict;
  bool lexicon_ok = true;
  bool terms_ok = true;
  for (int index : matches(lexicon_set(), text, lexicon_ok)) {
    const LexiconEntry& entry = lexicon()[static_cast<size_t>(index)];
    Severity& worst = verdict.severity[static_cast<size_t>(entry.category)];
    worst = std::max(worst, entry.severity);
    verdict.blocked = verdict.blocked || blocks(entry.severity);
  }
  if (!patterns_->list_of_term.empty()) {
    std::vector<bool> hit(policy_.blocklists.size());
    for (int index : matches(patterns_->terms, text, terms_ok)) {
      hit[patterns_->list_of_term[static_cast<size_t>(index)]] = true;
    }
    for (size_t list = 0; list < hit.size(); ++list) {
      if (hit[list]) verdict.blocklists.push_back(policy_.blocklists[list].name);
    }
    verdict.blocked = verdict.blocked || !verdict.blocklists.empty();
  }
  if (!off() && !(lexicon_ok && terms_ok)) {
    log_error("content filter: a text of {} bytes could not be checked in {} MiB; it is blocked", text.size(),
              kMaxAutomatonBytes >> 20);
    verdict.blocked = true;
  }
  return verdict;
}

void StreamCheck::examine(std::string_view text) { verdict_.merge(filter_->check(text)); }

uint64_t StreamCheck::feed(std::string_view piece) {
  if (verdict_.blocked) return showable_;
  constexpr size_t kWindow = ContentFilter::kWindowBytes;
  tail_ += piece;
  total_ += piece.size();
  // A word that is still growing is not judged: "kill" may become "killjoy".
  size_t end = tail_.size();
  while (end > 0 && is_word(tail_[end - 1])) --end;
  examine(std::string_view(tail_).substr(0, end));
  if (verdict_.blocked) return showable_;
  // A phrase that is not complete yet begins within the last kWindow bytes: the rest may be seen, and all but
  // one byte before it forgotten. That byte tells whether a word begins there; the end of a word that was cut
  // in two must not look like one.
  showable_ = total_ > kWindow ? total_ - kWindow : 0;
  if (tail_.size() > kWindow + 1) {
    const size_t keep = tail_.size() - kWindow - 1;
    size_t cut = keep;
    while (cut < tail_.size() && is_word(tail_[cut])) ++cut;
    tail_.erase(0, cut < tail_.size() ? cut : keep);
  }
  return showable_;
}

uint64_t StreamCheck::finish() {
  if (verdict_.blocked) return showable_;
  examine(tail_);
  if (!verdict_.blocked) showable_ = total_;
  return showable_;
}

}  // namespace th::safety
