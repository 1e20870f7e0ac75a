#include "safety/content_filter.h"

#include <gtest/gtest.h>

#include <string>

#include "base/files.h"
#include "safety/lexicon.h"

namespace th::safety {
namespace {

std::shared_ptr<const ContentFilter> make(Policy policy = {}) {
  return *ContentFilter::create(std::move(policy));
}

TEST(ContentFilter, OrdinaryTextIsSafe) {
  Verdict verdict = make()->check("The assembler classifies the passage; Essex and Scunthorpe are places.");
  for (Severity severity : verdict.severity) EXPECT_EQ(severity, Severity::kSafe);
  EXPECT_FALSE(verdict.blocked);
}

TEST(ContentFilter, GradesBySeverityAndBlocksAtTheLevel) {
  const std::string low = "David slew Goliath.";
  const std::string medium = "He is going to STAB them";
  const std::string high = "tell me how to build a  pipe-bomb";
  EXPECT_EQ(make()->check(low).of(Category::kViolence), Severity::kLow);
  EXPECT_EQ(make()->check(medium).of(Category::kViolence), Severity::kMedium);
  EXPECT_EQ(make()->check(high).of(Category::kViolence), Severity::kHigh);
  EXPECT_EQ(make()->check(high).of(Category::kHate), Severity::kSafe);

  const bool want[4][3] = {
      {false, false, false}, {false, false, true}, {false, true, true}, {true, true, true}};
  const char* levels[4] = {"off", "high", "medium", "low"};
  for (int i = 0; i < 4; ++i) {
    auto filter = make({.block_at = *parse_level(levels[i]), .blocklists = {}});
    EXPECT_EQ(filter->check(low).blocked, want[i][0]) << levels[i];
    EXPECT_EQ(filter->check(medium).blocked, want[i][1]) << levels[i];
    EXPECT_EQ(filter->check(high).blocked, want[i][2]) << levels[i];
  }
  EXPECT_EQ(parse_level("strict").error().code, Code::kInvalidArgument);
}

TEST(ContentFilter, EveryCategoryHasPhrasesOfEverySeverity) {
  bool seen[kNumCategories][4] = {};
  for (const LexiconEntry& entry : lexicon()) {
    seen[static_cast<size_t>(entry.category)][static_cast<size_t>(entry.severity)] = true;
  }
  for (auto& category : seen) {
    EXPECT_FALSE(category[0]);
    EXPECT_TRUE(category[1] && category[2] && category[3]);
  }
}

/// The longest text that a lexicon phrase matches, by the phrase's own grammar: literals, '?', "(a|b)", ' '
/// for 1 to 3.
size_t longest_match(std::string_view phrase, size_t& at) {
  size_t best = 0;
  size_t length = 0;
  for (; at < phrase.size() && phrase[at] != ')'; ++at) {
    if (phrase[at] == '|') {
      best = std::max(best, length);
      length = 0;
    } else if (phrase[at] == '(') {
      length += longest_match(phrase, ++at);
    } else if (phrase[at] != '?') {
      length += phrase[at] == ' ' ? 3 : 1;
    }
  }
  return std::max(best, length);
}

TEST(ContentFilter, NoLexiconPhraseIsLongerThanTheWindow) {
  for (const LexiconEntry& entry : lexicon()) {
    std::string_view phrase = entry.phrase;
    EXPECT_EQ(phrase.find_first_not_of("abcdefghijklmnopqrstuvwxyz ()|?"), std::string_view::npos) << phrase;
    size_t at = 0;
    EXPECT_LE(longest_match(phrase, at), ContentFilter::kWindowBytes) << phrase;
  }
}

// The King James Bible speaks of war and bloodshed throughout; a filter that stops it at medium is of no use
// to people who write ordinary English.
TEST(ContentFilter, ScriptureIsNotBlockedAtMedium) {
  auto text = read_file(TH_SOURCE_DIR "/recipes/data/kjv.txt");
  ASSERT_TRUE(text.has_value()) << text.error().message;
  auto filter = make();
  size_t lines = 0;
  for (size_t at = 0; at < text->size(); ++lines) {
    size_t end = std::min(text->find('\n', at), text->size());
    std::string_view line = std::string_view(*text).substr(at, end - at);
    EXPECT_FALSE(filter->check(line).blocked) << line;
    at = end + 1;
  }
  EXPECT_GT(lines, 10'000u);
  Verdict whole = filter->check(*text);
  EXPECT_FALSE(whole.blocked);
  EXPECT_EQ(whole.of(Category::kViolence), Severity::kLow);
}

TEST(ContentFilter, BlocklistsMatchWholeWordsInAnyCase) {
  auto filter =
      make({.block_at = std::nullopt,
            .blocklists = {{"house", {"Project Osprey", "c++"}}, {"names", {"ana"}}, {"none", {"zzz"}}}});
  EXPECT_FALSE(filter->check("banana, projectosprey, c+").blocked);
  Verdict verdict = filter->check("ANA knows of project osprey");
  EXPECT_TRUE(verdict.blocked);
  EXPECT_EQ(verdict.blocklists, (std::vector<std::string>{"house", "names"}));
  EXPECT_TRUE(filter->check("write C++14").blocked);
  // With the lexicon off, its findings are told but do not block.
  EXPECT_EQ(filter->check("how to build a bomb").of(Category::kViolence), Severity::kHigh);
  EXPECT_FALSE(filter->check("how to build a bomb").blocked);
}

TEST(ContentFilter, BadBlocklistsAreRefused) {
  for (const std::string& term : {std::string(), std::string(65, 'a'), std::string("\xff\xfe")}) {
    auto filter = ContentFilter::create({.block_at = {}, .blocklists = {{"house", {term}}}});
    ASSERT_FALSE(filter.has_value());
    EXPECT_NE(filter.error().message.find("'house'"), std::string::npos);
  }
  EXPECT_TRUE(
      ContentFilter::create({.block_at = {}, .blocklists = {{"house", {std::string(64, 'a')}}}}).has_value());
}

TEST(StreamCheck, ShowsTextAWindowLateAndAllAtTheEnd) {
  StreamCheck check(make());
  EXPECT_EQ(check.feed(std::string(64, 'a')), 0u);
  EXPECT_EQ(check.feed("bcd"), 3u);
  EXPECT_EQ(check.feed(" " + std::string(99, 'x')), 103u);
  EXPECT_EQ(check.finish(), 167u);
  EXPECT_FALSE(check.verdict().blocked);
}

TEST(StreamCheck, NothingOfABlockedPhraseIsShownHoweverItIsCut) {
  const std::string before = std::string(150, 'a') + " and so he asked them ";
  const std::string phrase = "how to build a pipe bomb";
  const std::string text = before + phrase + " in the morning";
  for (size_t step : {1u, 2u, 3u, 7u, 30u, 1000u}) {
    StreamCheck check(make());
    uint64_t shown = 0;
    for (size_t at = 0; at < text.size(); at += step)
      shown = check.feed(std::string_view(text).substr(at, step));
    shown = check.finish();
    EXPECT_TRUE(check.verdict().blocked) << step;
    EXPECT_LE(shown, before.size()) << step;
    EXPECT_EQ(check.verdict().of(Category::kViolence), Severity::kHigh);
  }
}

TEST(StreamCheck, AgreesWithTheWholeTextOnWordsThatAreCut) {
  auto filter = make({.block_at = std::nullopt, .blocklists = {{"list", {"kill", "ring the bell"}}}});
  const struct {
    std::string text;
    bool blocked;
  } cases[] = {
      {"killjoy skill overkill killing", false},
      {std::string(80, 'w') + "kill", false},
      {std::string(64, ' ') + "s" + std::string("kill") + std::string(80, ' '), false},
      {"they kill", true},
      {std::string(80, 'w') + " kill", true},
      {std::string(200, ' ') + "ring the bell", true},
      {"string the bell", false},
  };
  for (const auto& c : cases) {
    ASSERT_EQ(filter->check(c.text).blocked, c.blocked) << c.text;
    for (size_t step = 1; step < 9; ++step) {
      StreamCheck check(filter);
      for (size_t at = 0; at < c.text.size(); at += step)
        check.feed(std::string_view(c.text).substr(at, step));
      check.finish();
      EXPECT_EQ(check.verdict().blocked, c.blocked) << c.text << " in steps of " << step;
    }
  }
}

}  // namespace
}  // namespace th::safety
