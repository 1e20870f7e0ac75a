#include "train/dataset.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "base/files.h"
#include "model/bpe_trainer.h"
#include "train/recipe.h"
#include "train/test_gang.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;

using Documents = std::vector<std::vector<int32_t>>;

TokenHeader write_tokens(const fs::path& path, int32_t vocab, const Documents& documents) {
  auto writer = TokenWriter::create(path, vocab).value();
  for (const auto& document : documents) EXPECT_TRUE(writer.add_document(document, 10));
  return writer.finish().value();
}

std::vector<int32_t> all_of(const TokenFile& file) {
  std::vector<int32_t> out;
  file.tokens(0, file.size(), out);
  return out;
}

TEST(TokenFile, GivesBackWhatWasWritten) {
  TemporaryFolder folder;
  const fs::path path = folder.path() / "t.tokens";
  for (const int32_t vocab : {300, 1 << 16, (1 << 16) + 1}) {
    const TokenHeader header = write_tokens(path, vocab, {{0, 5, vocab - 1}, {}, {0}, {0, 7}});
    // Header, then 6 tokens of 2 or 4 bytes, filled up to a multiple of 8, then 3 documents of 8.
    EXPECT_EQ(fs::file_size(path), vocab <= 1 << 16 ? 128u + 16 + 24 : 128u + 24 + 24);
    const TokenFile file = TokenFile::open(path).value();
    EXPECT_EQ(all_of(file), (std::vector<int32_t>{0, 5, vocab - 1, 0, 0, 7}));
    EXPECT_EQ(file.header().num_documents, 3);
    EXPECT_EQ(file.document_begin(2), 4);
    EXPECT_EQ(file.header().text_bytes, 30);
    EXPECT_EQ(file.header().sha256, header.sha256);
    std::vector<int32_t> some = {9};
    file.tokens(1, 2, some);
    EXPECT_EQ(some, (std::vector<int32_t>{9, 5, vocab - 1}));
  }
}

TEST(TokenFile, MoreThanTheBuffersHold) {
  TemporaryFolder folder;
  const fs::path path = folder.path() / "t.tokens";
  auto writer = TokenWriter::create(path, 70'000).value();
  constexpr int64_t kDocuments = 200'000;  // 1.6 MB of offsets, 2.4 MB of tokens
  for (int32_t i = 0; i < kDocuments; ++i) {
    const std::vector<int32_t> document = {0, i % 70'000, 69'999};
    ASSERT_TRUE(writer.add_document(document, 1));
  }
  ASSERT_TRUE(writer.finish());
  const TokenFile file = TokenFile::open(path).value();
  EXPECT_EQ(file.size(), 3 * kDocuments);
  for (const int64_t i : {int64_t{0}, int64_t{99'999}, kDocuments - 1}) {
    EXPECT_EQ(file.document_begin(i), 3 * i);
    std::vector<int32_t> document;
    file.tokens(3 * i, 3, document);
    EXPECT_EQ(document, (std::vector<int32_t>{0, static_cast<int32_t>(i % 70'000), 69'999}));
  }
}

TEST(TokenFile, IsNotThereUntilItIsWhole) {
  TemporaryFolder folder;
  const fs::path path = folder.path() / "t.tokens";
  {
    auto writer = TokenWriter::create(path, 300).value();
    EXPECT_TRUE(writer.add_document(std::vector<int32_t>{0, 1}, 1));
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  write_tokens(path, 300, {{0}});
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(TokenFile, NamesWhatIsDamaged) {
  TemporaryFolder folder;
  const fs::path path = folder.path() / "t.tokens";
  write_tokens(path, 300, {{0, 1, 2}, {0, 4}});
  const std::string good = read_file(path).value();
  auto error_of = [&](std::string bytes) {
    std::ofstream(path) << bytes;
    auto file = TokenFile::open(path);
    EXPECT_FALSE(file.has_value());
    return file ? std::string() : file.error().message;
  };
  auto has = [&](const std::string& message, std::string_view part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  auto with = [&](size_t at, char byte) {
    std::string bytes = good;
    bytes[at] = byte;
    return bytes;
  };
  has(error_of(good.substr(0, good.size() - 1)), "truncated");
  has(error_of(good.substr(0, 100)), "is not a token file");
  has(error_of(with(0, 'x')), "is not a token file");
  has(error_of(with(8, 9)), "version 9");
  has(error_of(with(12, 4)), "4 bytes a token do not fit a vocabulary of 300");
  for (size_t at = 128; at < good.size(); ++at)
    has(error_of(with(at, static_cast<char>(good[at] ^ 1))), "checksum");
  EXPECT_EQ(TokenFile::open(folder.path() / "none").error().code, Code::kNotFound);
}

/// A set of `documents` documents of 9 words each, and its tokenizer.
model::Tokenizer write_set(const fs::path& folder, int documents) {
  model::Tokenizer tokenizer = model::train_bpe("one two three one two three", {.vocab_size = 280}).value();
  auto train = TokenWriter::create(folder / kTrainTokens, tokenizer.vocab_size()).value();
  auto validation = TokenWriter::create(folder / kValidationTokens, tokenizer.vocab_size()).value();
  for (int i = 0; i < documents; ++i) {
    const std::string text = "one two three " + std::to_string(i);
    std::vector<int32_t> ids = tokenizer.encode(text);
    ids.insert(ids.begin(), *tokenizer.special_id(model::kEndOfText));
    EXPECT_TRUE((i % 5 == 4 ? validation : train).add_document(ids, static_cast<int64_t>(text.size())));
  }
  EXPECT_TRUE(train.finish() && validation.finish());
  return tokenizer;
}

TEST(DataSet, IsReadFromItsFolder) {
  TemporaryFolder folder;
  const model::Tokenizer tokenizer = write_set(folder.path(), 100);
  const Dataset data = open_dataset(folder.path(), tokenizer, 8).value();
  std::string text;
  for (int i = 4; i < 100; i += 5) text += "one two three " + std::to_string(i);
  EXPECT_EQ(tokenizer.decode(data.validation), text);
  EXPECT_EQ(data.validation_bytes, static_cast<int64_t>(text.size()));
  EXPECT_EQ(tokenizer.decode(data.train.first(5)).substr(0, 3), "one");
  EXPECT_EQ(open_dataset(folder.path(), tokenizer, 100'000).error().code, Code::kInvalidArgument);
}

TEST(DataSet, TokensOfAnotherVocabularyAreRefused) {
  TemporaryFolder folder;
  write_set(folder.path(), 100);
  const model::Tokenizer other = model::train_bpe("abc abc", {.vocab_size = 270}).value();
  auto data = open_dataset(folder.path(), other, 8);
  ASSERT_FALSE(data.has_value());
  EXPECT_NE(data.error().message.find("its tokenizer's is " + std::to_string(other.vocab_size())),
            std::string::npos)
      << data.error().message;
}

TEST(Vocabulary, OneThatDoesNotFitTheModelIsRefused) {
  const model::Tokenizer tokenizer = model::train_bpe("abc abc", {.vocab_size = 262}).value();
  EXPECT_EQ(fit_vocabulary(0, tokenizer).value(), 262);
  EXPECT_EQ(fit_vocabulary(512, tokenizer).value(), 512);
  const std::string message = fit_vocabulary(261, tokenizer).error().message;
  EXPECT_NE(message.find("261"), std::string::npos);
  EXPECT_NE(message.find("262"), std::string::npos);
}

/// What all ranks together see in one step, sequence after sequence.
std::vector<int32_t> step_of(const TokenSource& tokens, int64_t position, int world, int64_t sequences,
                             int64_t& next) {
  std::vector<int32_t> seen, inputs, targets;
  for (int rank = 0; rank < world; ++rank) {
    SequenceStream stream(tokens, 16, 7, position);
    stream.take({rank, world, sequences}, inputs, targets);
    for (size_t i = 0; i + 1 < inputs.size(); ++i) {
      if (i % 16 == 15) continue;
      EXPECT_EQ(targets[i], inputs[i + 1]);
    }
    seen.insert(seen.end(), inputs.begin(), inputs.end());
    next = stream.position();
  }
  return seen;
}

TEST(SequenceStream, GoesOnWhereItWasOnAnyNumberOfRanks) {
  TemporaryFolder folder;
  const model::Tokenizer tokenizer = write_set(folder.path(), 400);
  const Dataset data = open_dataset(folder.path(), tokenizer, 16).value();
  std::vector<int32_t> whole, inputs, targets;
  SequenceStream alone(data.train, 16, 7, 0);
  const int64_t epoch = (data.train.size() - 1) / 16;
  ASSERT_GT(epoch, 40);
  while (alone.position() < epoch + 24) {  // into a second epoch
    alone.take({0, 1, 1}, inputs, targets);
    whole.insert(whole.end(), inputs.begin(), inputs.end());
  }
  std::vector<int32_t> seen;
  int64_t position = 0;
  // As if it had been stopped after each step and gone on with another number of ranks.
  for (int step = 0; position + 8 <= epoch + 24; ++step) {
    const int world = std::vector<int>{4, 2, 1, 3}[step % 4];
    const auto now = step_of(data.train, position, world, step % 2 + 1, position);
    seen.insert(seen.end(), now.begin(), now.end());
  }
  whole.resize(seen.size());
  EXPECT_EQ(seen, whole);
  EXPECT_EQ(static_cast<int64_t>(seen.size()), position * 16);
}

TEST(Recipe, TellsHowADataSetComesToBeThere) {
  Recipe recipe;
  recipe.data.set = "none-such@2";
  const std::string message = find_data_set(recipe).error().message;
  EXPECT_NE(message.find("th data add none-such PATH"), std::string::npos) << message;
}

}  // namespace
}  // namespace th::train
