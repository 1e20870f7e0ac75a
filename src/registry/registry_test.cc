#include "registry/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace th::registry {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "registry-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    fs::create_directories(model());
    put("config.json", R"({"model_type":"llama"})");
    put("tokenizer.json", "{}");
    put("model.safetensors", safetensors(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8));
  }
  void TearDown() override { fs::remove_all(dir_); }
  fs::path model() const { return dir_ / "source"; }
  void put(const std::string& name, const std::string& text) {
    std::ofstream(model() / name, std::ios::binary) << text;
  }
  /// 8 bytes of header length (little endian), header, data.
  static std::string safetensors(const std::string& header, size_t data_bytes) {
    std::string out(8, '\0');
    for (int i = 0; i < 8; ++i)
      out[static_cast<size_t>(i)] = static_cast<char>(header.size() >> (8 * i) & 0xff);
    return out + header + std::string(data_bytes, 'd');
  }
  std::string problem() {
    const Status checked = check_model_folder(model());
    return checked ? "sound" : checked.error().message;
  }
  fs::path dir_;
};

TEST_F(RegistryTest, ImportsListsAndVerifies) {
  const Registry registry = *Registry::open(dir_ / "models");
  const auto imported = registry.import_folder(model(), "llama", "1");
  ASSERT_TRUE(imported) << imported.error().message;
  EXPECT_EQ(imported->path, dir_ / "models" / "llama" / "1");
  ASSERT_EQ(imported->files.size(), 3u);
  EXPECT_EQ(imported->files[2].name, "tokenizer.json");
  // sha256 of "{}", by sha256sum.
  EXPECT_EQ(imported->files[2].sha256, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
  EXPECT_TRUE(registry.verify(*imported));
  ASSERT_EQ(registry.list().size(), 1u);
  EXPECT_EQ(registry.list()[0].bytes, imported->bytes);
  std::ofstream(imported->path / "config.json") << R"({"model_type":"other"})";
  const Status changed = registry.verify(*registry.find("llama", "1"));
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().code, Code::kDataLoss);
  EXPECT_THAT(changed.error().message, HasSubstr("config.json"));
}

TEST_F(RegistryTest, TheSameAgainIsASuccessAndOtherContentIsNot) {
  const Registry registry = *Registry::open(dir_ / "models");
  ASSERT_TRUE(registry.import_folder(model(), "llama", "1"));
  EXPECT_TRUE(registry.import_folder(model(), "llama", "1"));
  put("config.json", R"({"model_type":"gpt"})");
  const auto other = registry.import_folder(model(), "llama", "1");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Code::kAlreadyExists);
  EXPECT_TRUE(registry.import_folder(model(), "llama", "2"));
}

TEST_F(RegistryTest, AHalfImportIsRemovedAtTheStart) {
  fs::create_directories(dir_ / "models" / "llama" / ".partial-1");
  const Registry registry = *Registry::open(dir_ / "models");
  EXPECT_FALSE(fs::exists(dir_ / "models" / "llama" / ".partial-1"));
  EXPECT_TRUE(registry.list().empty());
}

TEST_F(RegistryTest, AFailedImportLeavesNothing) {
  const Registry registry = *Registry::open(dir_ / "models");
  put("config.json", "not json");
  EXPECT_FALSE(registry.import_folder(model(), "llama", "1"));
  EXPECT_TRUE(registry.list().empty());
  EXPECT_FALSE(fs::exists(dir_ / "models" / "llama" / ".partial-1"));
}

TEST_F(RegistryTest, WhatIsNoModelIsNamed) {
  EXPECT_EQ(problem(), "sound");
  fs::remove(model() / "tokenizer.json");
  EXPECT_THAT(problem(), HasSubstr("tokenizer.json: is missing"));
  put("tokenizer.json", "[]");
  EXPECT_THAT(problem(), HasSubstr("tokenizer.json: want a JSON object"));
  put("tokenizer.json", "{}");
  put("model.safetensors", "abc");
  EXPECT_THAT(problem(), HasSubstr("shorter than its header"));
  put("model.safetensors", safetensors(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4));
  EXPECT_THAT(problem(), HasSubstr("tensor 'w' lies outside of the file"));
  put("model.safetensors", safetensors(R"({"w":{"data_offsets":[0,8]},"v":{"data_offsets":[4,12]}})", 12));
  EXPECT_THAT(problem(), HasSubstr("overlap or leave a gap"));
  put("model.safetensors", safetensors(R"({"w":{"data_offsets":[0,8]}})", 12));
  EXPECT_THAT(problem(), HasSubstr("do not cover it"));
  put("model.safetensors", std::string(8, '\xff') + "{}");
  EXPECT_THAT(problem(), HasSubstr("header is longer than the file"));
}

TEST_F(RegistryTest, LinksAndFoldersInsideAreRefused) {
  fs::create_symlink("/etc/hostname", model() / "extra.txt");
  EXPECT_THAT(problem(), HasSubstr("extra.txt: is not a plain file"));
  fs::remove(model() / "extra.txt");
  fs::create_directory(model() / "sub");
  EXPECT_THAT(problem(), HasSubstr("sub: is not a plain file"));
  fs::remove(model() / "sub");
  fs::create_directory_symlink(model(), dir_ / "link");
  EXPECT_FALSE(check_model_folder(dir_ / "link"));
}

TEST_F(RegistryTest, DataSetsHaveTokens) {
  const Registry registry = *Registry::open(dir_ / "data", Kind::kDataSet);
  const auto import = [&] { return registry.import_folder(model(), "bible", "1"); };
  EXPECT_THAT(import().error().message, HasSubstr("dataset.json: is missing"));
  put("dataset.json", "{}"), put("train.tokens", "THTOKENS..."), put("validation.tokens", "THTOKEN");
  EXPECT_THAT(import().error().message, HasSubstr("validation.tokens: is not a token file"));
  put("validation.tokens", "THTOKENS");
  fs::remove(model() / "tokenizer.json");
  EXPECT_THAT(import().error().message, HasSubstr("tokenizer.json: is missing"));
  put("tokenizer.model", "any");
  ASSERT_TRUE(import()) << import().error().message;
  EXPECT_EQ(registry.list().size(), 1u);
  EXPECT_THAT(registry.find("bible", "2").error().message, HasSubstr("data set 'bible' version '2' is not"));
}

TEST_F(RegistryTest, AModelMayHaveSentencePiecesFile) {
  fs::rename(model() / "tokenizer.json", model() / "tokenizer.model");
  EXPECT_EQ(problem(), "sound");
}

}  // namespace
}  // namespace th::registry
