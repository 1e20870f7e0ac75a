// Tokenizers in the forms of others: GPT-2's pair of files, a split pattern of its own, SentencePiece.

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"
#include "base/text.h"
#include "model/bpe_trainer.h"
#include "model/pretokenizer.h"
#include "model/tokenizer.h"

namespace th::model {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBibleFile = TH_SOURCE_DIR "/recipes/data/kjv.txt";

std::string some_text() { return read_file(kBibleFile).value().substr(5000, 60'000); }

class TokenizerForms : public testing::Test {
 protected:
  TokenizerForms() {
    std::string pattern = (fs::temp_directory_path() / "th_tokenizer_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~TokenizerForms() override { fs::remove_all(folder_); }

  std::string put(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name) << content;
    return folder_ / name;
  }
  /// Runs one of SentencePiece's own programs; what it wrote.
  std::string run(const std::string& command) const {
    const std::string out = folder_ / "out";
    EXPECT_EQ(std::system((command + " > " + out + " 2> " + out + ".log").c_str()), 0)
        << command << ": " << read_file(out + ".log").value_or("is package sentencepiece installed?");
    return read_file(out).value_or("");
  }
  Tokenizer spm_train(const std::string& text, const std::string& options) const {
    put("text", text);
    run("spm_train --input=" + (folder_ / "text").string() + " --model_prefix=" + (folder_ / "t").string() +
        " " + options);
    return Tokenizer::load(folder_ / "t.model").value();
  }
  /// The same text by the library's own program, line by line.
  std::vector<int32_t> spm_encode(const std::string& text) const {
    put("asked", text);
    std::istringstream ids(run("spm_encode --model=" + (folder_ / "t.model").string() +
                               " --output_format=id < " + (folder_ / "asked").string()));
    return {std::istream_iterator<int32_t>(ids), {}};
  }

  fs::path folder_;
};

std::vector<int32_t> encode_lines(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids;
  for (const std::string& line : split(text, '\n')) {
    const auto more = tokenizer.encode(line);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

/// vocab.json and merges.txt of a tokenizer.
std::pair<std::string, std::string> gpt2_files(const Tokenizer& tokenizer) {
  nlohmann::json vocab;
  std::string merges = "#version: 0.2\n";
  const auto letters = [&](int32_t id) {
    const std::string& token = tokenizer.parts().tokens[id];
    return tokenizer.is_special(id) ? token : bytes_to_letters(token);
  };
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) vocab[letters(id)] = id;
  for (auto [left, right] : tokenizer.parts().merges) merges += letters(left) + " " + letters(right) + "\n";
  return {vocab.dump(), merges};
}

TEST_F(TokenizerForms, Gpt2sFilesGiveTheSameTokenizer) {
  const Tokenizer tokenizer = train_bpe(some_text(), {.vocab_size = 600}).value();
  const auto [vocab, merges] = gpt2_files(tokenizer);
  put("vocab.json", vocab), put("merges.txt", merges);
  for (const fs::path& path : {folder_, folder_ / "vocab.json"}) {
    const Tokenizer loaded = Tokenizer::load(path).value();
    EXPECT_EQ(loaded.encode(some_text()), tokenizer.encode(some_text()));
    EXPECT_EQ(loaded.end_of_text(), tokenizer.end_of_text());
    EXPECT_EQ(loaded.to_json(), tokenizer.to_json());
  }
}

TEST_F(TokenizerForms, Gpt2sMergesByHand) {
  // The 256 letters in the order of their bytes, then "lo", "low" and "Ġlow": a blank goes with its word, and
  // the lower rank goes first.
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte)
    vocab[bytes_to_letters(std::string(1, static_cast<char>(byte)))] = byte;
  vocab["lo"] = 256, vocab["low"] = 257, vocab["\u0120low"] = 258, vocab["<|endoftext|>"] = 259;
  const std::string merges = "#version: 0.2\nl o\r\nlo w\n\u0120 low\n";
  const Tokenizer tokenizer = Tokenizer::from_gpt2(vocab.dump(), merges, "x").value();
  EXPECT_EQ(tokenizer.encode("low slow lot"), (std::vector<int32_t>{257, ' ', 's', 257, ' ', 256, 't'}));
  EXPECT_EQ(tokenizer.encode("a low"), (std::vector<int32_t>{'a', 258}));
  EXPECT_EQ(tokenizer.end_of_text(), 259);
  EXPECT_EQ(tokenizer.encode("<|endoftext|>").size(), 13u);  // text stays text
  auto error = [&](const std::string& v, const std::string& m) {
    return Tokenizer::from_gpt2(v, m, "x").error().message;
  };
  EXPECT_EQ(error("[1]", merges), "x: want a JSON object of tokens and their ids");
  EXPECT_EQ(error(vocab.dump(), "l o\nlow l\n"),
            "x: tokenizer: the result of merge 1 is not in the vocabulary");
  vocab.erase("a");
  EXPECT_EQ(error(vocab.dump(), merges), "x: no token has id 97; want ids without gaps");
}

TEST(TokenizerJson, AcceptsGpt2sPatternAsAStepOfItsOwn) {
  const Tokenizer tokenizer = train_bpe("low low lower", {.vocab_size = 264}).value();
  auto json = nlohmann::json::parse(tokenizer.to_json());
  auto& pre = json["pre_tokenizer"];
  const nlohmann::json split = {
      {"type", "Split"}, {"pattern", {{"Regex", kGpt2Pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const nlohmann::json letters = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  pre = {{"type", "Sequence"}, {"pretokenizers", {split, letters}}};
  EXPECT_EQ(Tokenizer::from_json(json.dump(), "x")->to_json(), tokenizer.to_json());
  auto error = [&] { return Tokenizer::from_json(json.dump(), "x").error().message; };
  pre["pretokenizers"][1]["use_regex"] = true;
  EXPECT_NE(error().find("use_regex"), std::string::npos);
  pre["pretokenizers"][0]["pattern"]["Regex"] = "\\w+";
  EXPECT_EQ(error(), "x: pre_tokenizer: splits by another pattern than GPT-2's");
  pre["pretokenizers"] = {split};
  EXPECT_EQ(error(), "x: pre_tokenizer: want ByteLevel, or Split and ByteLevel");
}

TEST_F(TokenizerForms, SentencePieceBpeByHand) {
  // "▁a" stands 4 times and "▁ab" 3 times: 2 merges, and with <unk>, <s>, </s> and the 4 letters 9 pieces.
  const Tokenizer tokenizer = spm_train("ab ab ab ac\n", "--model_type=bpe --vocab_size=9");
  EXPECT_EQ(tokenizer.vocab_size(), 9);
  std::vector<std::string> pieces;
  const auto ids = tokenizer.encode("ab ac b");
  for (const int32_t id : ids) pieces.emplace_back(tokenizer.token_bytes(id));
  EXPECT_EQ(pieces, (std::vector<std::string>{" ab", " a", "c", " ", "b"}));
  EXPECT_EQ(tokenizer.decode(ids), "ab ac b");
  EXPECT_EQ(tokenizer.end_of_text(), 2);
  EXPECT_TRUE(tokenizer.is_special(1));
  for (const int32_t id : tokenizer.encode("</s>")) EXPECT_FALSE(tokenizer.is_special(id));
  EXPECT_EQ(tokenizer.encode_with_specials("ab</s>").back(), 2);
  EXPECT_EQ(tokenizer.encode("x").back(), 0);  // a letter that no piece has
}

TEST_F(TokenizerForms, SentencePieceAsTheLibraryCutsIt) {
  for (const char* kind : {"bpe", "unigram"}) {
    const Tokenizer tokenizer = spm_train(some_text(), "--vocab_size=500 --model_type=" + std::string(kind));
    EXPECT_EQ(tokenizer.vocab_size(), 500);
    const std::string other = read_file(kBibleFile).value().substr(200'000, 20'000) + "caf\u00e9 \u4e2d\n";
    EXPECT_EQ(encode_lines(tokenizer, other), spm_encode(other)) << kind;
    const TokenizerFile file = tokenizer.file();
    EXPECT_EQ(file.name, "tokenizer.model");
    put(file.name, file.content);
    EXPECT_EQ(Tokenizer::load(folder_)->encode(other), tokenizer.encode(other));
    fs::remove(folder_ / file.name);
  }
}

TEST_F(TokenizerForms, SentencePieceWithBytesKeepsEveryText) {
  const Tokenizer tokenizer =
      spm_train(some_text(),
                "--vocab_size=600 --model_type=bpe --byte_fallback=true --normalization_rule_name=identity "
                "--remove_extra_whitespaces=false");
  for (const std::string text : {"In the beginning", "  two\n\tlines  ", "caf\u00e9 \u4e2d \U0001F600", ""})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST_F(TokenizerForms, NamesWhatIsNoTokenizer) {
  auto error = [](const fs::path& path) { return Tokenizer::load(path).error(); };
  EXPECT_EQ(error(folder_).code, Code::kNotFound);
  EXPECT_NE(error(folder_).message.find("has no tokenizer.json"), std::string::npos);
  for (const std::string content : {"", "not a model", "\x0a\x03"}) {
    const Error problem = error(put("bad.model", content));
    EXPECT_EQ(problem.code, Code::kInvalidArgument);
    EXPECT_NE(problem.message.find("bad.model: "), std::string::npos) << problem.message;
  }
  put("vocab.json", "{}");
  EXPECT_EQ(error(folder_ / "vocab.json").code, Code::kNotFound);  // no merges.txt
}

}  // namespace
}  // namespace th::model
