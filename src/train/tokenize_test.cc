#include "train/tokenize.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "model/bpe_trainer.h"
#include "train/dataset.h"
#include "train/test_gang.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;

class Tokenize : public testing::Test {
 protected:
  fs::path put(const std::string& name, const std::string& content) const {
    const fs::path path = folder_.path() / "in" / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << content;
    return path;
  }
  struct Read {
    std::vector<std::string> documents;
    Source source;
  };
  Read read(SourceOptions options = {}) const {
    if (options.path.empty()) options.path = folder_.path() / "in";
    Read out{{}, find_source(options).value()};
    EXPECT_TRUE(read_documents(out.source, [&](std::string_view document, int64_t) -> Status {
      out.documents.emplace_back(document);
      return {};
    }));
    return out;
  }
  TokenizeOptions options() const {
    TokenizeOptions options;
    options.source.path = folder_.path() / "in";
    options.out = folder_.path() / "out";
    options.vocab_size = 400;
    options.validation_share = 0.1;
    return options;
  }
  TemporaryFolder folder_;
};

TEST_F(Tokenize, AFolderGivesADocumentAFileAndTellsWhatItPassedOver) {
  put("b.py", "print(1)\n"), put("a/x.cc", "int x;\n"), put("notes.md", "# n\n"), put("Makefile", "all:\n");
  put("empty.cc", ""), put("photo.jpg", "jpg"), put(".git/x.cc", "no"), put(".hidden.cc", "no");
  put("blob.c", std::string("\x7f") + "ELF" + std::string(3, '\0'));
  put("large.txt", std::string(3000, 'x'));
  put("lines.jsonl", "{\"text\":\"one\"}\n");
  fs::create_symlink("b.py", folder_.path() / "in" / "link.py");
  const Read got = read({.path = {}, .max_file_bytes = 2000});
  EXPECT_EQ(got.documents, (std::vector<std::string>{"all:\n", "int x;\n", "print(1)\n", "one", "# n\n"}));
  const std::map<std::string, int64_t> skipped = {{"binary", 1}, {"empty", 1},          {"extension", 1},
                                                  {"hidden", 2}, {"link or device", 1}, {"too large", 1}};
  EXPECT_EQ(got.source.skipped, skipped);
  EXPECT_EQ(read({.path = {}, .extensions = {"jpg"}}).documents, (std::vector<std::string>{"jpg"}));
}

TEST_F(Tokenize, JsonLinesGiveADocumentALine) {
  put("d.jsonl",
      "{\"text\":\"first\\nsecond\",\"n\":1}\r\n\n{\"text\":7}\nnot "
      "json\n[]\n{\"other\":\"x\"}\n{\"text\":\"\"}\n"
      "{\"text\":\"last\"}");
  const fs::path path = folder_.path() / "in" / "d.jsonl";
  const Read got = read({.path = path});
  EXPECT_EQ(got.documents, (std::vector<std::string>{"first\nsecond", "last"}));
  const std::map<std::string, int64_t> skipped = {
      {"empty", 1}, {"no such field", 2}, {"not a JSON object", 2}};
  EXPECT_EQ(got.source.skipped, skipped);
  EXPECT_EQ(read({.path = path, .field = "other"}).documents, (std::vector<std::string>{"x"}));
}

TEST_F(Tokenize, ALongTextIsCutAtEndsOfLinesAndNothingIsLost) {
  std::string text;
  for (int i = 0; text.size() < (3 << 20); ++i) text += "line " + std::to_string(i) + "\n";
  const Read got = read({.path = put("t.txt", text)});
  std::string joined;
  for (const std::string& document : got.documents) {
    joined += document;
    EXPECT_EQ(document.back(), '\n');
    EXPECT_LT(document.size(), kDocumentBytes + 20);
    EXPECT_TRUE(document.size() >= kDocumentBytes || joined.size() == text.size());
  }
  EXPECT_EQ(joined, text);
  const std::string line(5 << 20, 'x');  // no end of a line in sight
  joined.clear();
  for (const std::string& document : read({.path = put("u.txt", line)}).documents) joined += document;
  EXPECT_EQ(joined, line);
}

TEST_F(Tokenize, TheSplitGivesTheShareThatWasAskedFor) {
  DocumentSplit split(0.1);
  int64_t validation = 0, all = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string document(100 + i % 400, 'x');
    const auto parts = split.split(document);
    EXPECT_EQ(parts.train.size() + parts.validation.size(), document.size());
    EXPECT_TRUE(parts.train.empty() || parts.validation.empty());
    validation += static_cast<int64_t>(parts.validation.size()), all += static_cast<int64_t>(document.size());
  }
  EXPECT_NEAR(static_cast<double>(validation) / static_cast<double>(all), 0.1, 0.005);
  std::string large;
  while (large.size() < 40'000) large += "nine char\n";
  const auto parts = split.split(large);
  EXPECT_EQ(parts.train.size(), 36'010u);  // the cut at 36,000 moves to the end of the line there
  EXPECT_EQ(parts.validation.size(), 3'990u);
}

TEST_F(Tokenize, MakesAFolderThatATrainingReads) {
  const std::string bible = read_file(TH_SOURCE_DIR "/recipes/data/kjv.txt").value();
  for (int i = 0; i < 40; ++i) put("d" + std::to_string(i) + ".txt", bible.substr(i * 5000, 5000));
  const Json made = tokenize(options()).value();
  EXPECT_EQ(made["files"], 40);
  EXPECT_EQ(made["train"]["text_bytes"].get<int64_t>() + made["validation"]["text_bytes"].get<int64_t>(),
            200'000);
  const fs::path out = folder_.path() / "out";
  const model::Tokenizer tokenizer = model::Tokenizer::load(out).value();
  EXPECT_EQ(tokenizer.vocab_size(), 400);
  const Dataset data = open_dataset(out, tokenizer, 64).value();
  EXPECT_EQ(data.validation_bytes, 20'000);  // 4 documents of 40
  const TokenFile train = TokenFile::open(out / kTrainTokens).value();
  ASSERT_EQ(train.header().num_documents, 36);
  EXPECT_EQ(train.header().sha256, made["train"]["sha256"]);
  std::vector<int32_t> first;
  train.tokens(0, train.document_begin(1), first);
  EXPECT_EQ(first[0], tokenizer.end_of_text());
  EXPECT_EQ(tokenizer.decode(first), bible.substr(0, 5000));
}

TEST_F(Tokenize, TheSameSourceGivesTheSameBytes) {
  for (int i = 0; i < 20; ++i) put("d" + std::to_string(i) + ".txt", "some words " + std::to_string(i % 7));
  const Json first = tokenize(options()).value();
  TokenizeOptions other = options();
  other.out = folder_.path() / "again";
  EXPECT_EQ(tokenize(other).value(), first);
}

TEST_F(Tokenize, TakesATokenizerThatIsGiven) {
  for (int i = 0; i < 20; ++i) put("d" + std::to_string(i) + ".txt", "some words");
  const model::Tokenizer tokenizer = model::train_bpe("abc abc", {.vocab_size = 262}).value();
  TokenizeOptions given = options();
  given.tokenizer = put("../tokenizer.json", tokenizer.to_json());
  EXPECT_EQ(tokenize(given).value()["vocab_size"], 262);
  EXPECT_EQ(tokenize(given).error().code, Code::kAlreadyExists);
}

TEST_F(Tokenize, NamesWhatIsWrong) {
  auto has = [](const Error& error, std::string_view part) {
    EXPECT_EQ(error.code, Code::kInvalidArgument);
    EXPECT_NE(error.message.find(part), std::string::npos) << error.message;
  };
  put("photo.jpg", "jpg");
  has(tokenize(options()).error(), "holds no document to learn from; skipped extension: 1");
  put("one.txt", "only one");
  has(tokenize(options()).error(), "1 documents to learn from and 0 to measure on");
  auto json = nlohmann::json::parse(model::train_bpe("abc abc", {.vocab_size = 262})->to_json());
  json["added_tokens"][0]["content"] = "<other>", json["model"]["vocab"].erase("<|endoftext|>");
  TokenizeOptions given = options();
  given.tokenizer = put("../tokenizer.json", json.dump());
  has(tokenize(given).error(), "neither <|endoftext|> nor </s>");
  given.source.path = folder_.path() / "none";
  EXPECT_EQ(tokenize(given).error().code, Code::kNotFound);
  EXPECT_FALSE(fs::exists(folder_.path() / "out" / "dataset.json"));
}

}  // namespace
}  // namespace th::train
