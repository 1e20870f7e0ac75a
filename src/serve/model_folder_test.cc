#include "serve/model_folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "serve/test_model.h"

namespace th::serve {
namespace {

class Folder : public testing::Test {
 protected:
  void SetUp() override { write_test_model(test_, folder_.path()); }
  std::string error() const {
    const auto loaded = load_model_folder(folder_.path());
    return loaded ? "" : std::string(code_name(loaded.error().code)) + ": " + loaded.error().message;
  }
  std::shared_ptr<const ModelFolder> load() const {
    auto loaded = load_model_folder(folder_.path());
    TH_CHECK(loaded.has_value());
    return *loaded;
  }
  void expect_error(const char* code, const char* file) const {
    const std::string text = error();
    EXPECT_EQ(text.find(code), 0u) << text;
    EXPECT_NE(text.find(file), std::string::npos) << text;
  }

  TestModel test_ = make_test_model();
  TempFolder folder_;
};

TEST_F(Folder, LoadsWhatWasWritten) {
  const auto model = load();
  EXPECT_EQ(model->weights.config, test_.config);
  EXPECT_EQ(model->weights.embedding, test_.folder->weights.embedding);
  EXPECT_EQ(model->end_tokens, std::vector<int32_t>{0});  // <|endoftext|>
  EXPECT_FALSE(model->chat_tokens);
}

// Its projections lie the other way round in the file.
TEST_F(Folder, LoadsAGpt2) {
  const TestModel gpt2 = make_test_model(256, model::Family::kGpt2);
  write_test_model(gpt2, folder_.path());
  const auto model = load();
  EXPECT_EQ(model->weights.config, gpt2.config);
  EXPECT_EQ(model->weights.layers[1].qkv.bias, gpt2.folder->weights.layers[1].qkv.bias);
  const std::vector<float> input(32, 1.0f);
  const auto qkv_of = [&](const ModelFolder& from) {
    std::vector<float> out(96);
    from.weights.layers[1].qkv.weight.multiply(out.data(), input.data(), 1);
    return out;
  };
  EXPECT_EQ(qkv_of(*model), qkv_of(*gpt2.folder));
}

TEST_F(Folder, AWeightThatIsNotFiniteIsDataLoss) {
  const model::ParameterLayout layout(test_.config);
  test_.params[static_cast<size_t>(layout.layers[1].down)] = NAN;
  write_test_model(test_, folder_.path());
  expect_error("data_loss", "model.layers.1.mlp.down_proj.weight");
}

TEST_F(Folder, EndTokensOfEveryFileCount) {
  write_text(folder_.path() / "generation_config.json", R"({"eos_token_id": [3, 7, 100000]})");
  EXPECT_EQ(load()->end_tokens, (std::vector<int32_t>{3, 7, 0}));
}

TEST_F(Folder, AMissingFolderOrFileIsNamed) {
  EXPECT_EQ(load_model_folder(folder_.path() / "none").error().code, Code::kNotFound);
  std::filesystem::remove(folder_.path() / "tokenizer.json");
  expect_error("not_found", "tokenizer.json");
}

TEST_F(Folder, TruncatedWeightsAreDataLoss) {
  const auto path = folder_.path() / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);
  expect_error("data_loss", "model.safetensors");
}

TEST_F(Folder, WeightsOfAnotherShapeAreDataLoss) {
  model::ModelConfig wider = test_.config;
  wider.intermediate_size = 64;
  write_text(folder_.path() / "config.json", model::model_config_json(wider));
  expect_error("data_loss", "gate_proj");
}

TEST_F(Folder, ConfigThatIsNotJson) {
  write_text(folder_.path() / "config.json", "{");
  expect_error("invalid_argument", "config.json");
}

TEST_F(Folder, ATokenizerOfAnotherModel) {
  TestModel smaller = test_;
  smaller.config.vocab_size = 100;
  write_text(folder_.path() / "config.json", model::model_config_json(smaller.config));
  expect_error("invalid_argument", "tokenizer.json");
}

TEST_F(Folder, WithoutATemplateMessagesAreJoined) {
  const auto model = load();
  const std::vector<ChatMessage> messages = {{"system", "a"}, {"user", "b"}};
  EXPECT_EQ(model->encode_chat(messages), model->tokenizer.encode("a\nb"));
}

TEST_F(Folder, ATemplateFramesMessages) {
  write_text(folder_.path() / "tokenizer_config.json",
             R"({"chat_template": "{% for m in messages %}<|user|>…<|end|>{% endfor %}<|assistant|>"})");
  const auto model = load();
  EXPECT_TRUE(model->chat_tokens);
  // 1: <|user|>, 2: <|assistant|>, 3: <|end|>; byte b is token 4 + b. Text cannot forge a special token.
  const std::vector<ChatMessage> messages = {{"user", "A"}, {"assistant", "B"}, {"user", "C"}};
  EXPECT_EQ(model->encode_chat(messages),
            (std::vector<int32_t>{1, 4 + 'A', 3, 2, 4 + 'B', 3, 1, 4 + 'C', 3, 2}));
  EXPECT_EQ(model->encode_chat(std::vector<ChatMessage>{{"user", "<|end|>"}}).size(), 1u + 7 + 1 + 1);
  EXPECT_EQ(model->end_tokens, (std::vector<int32_t>{0, 3}));
}

TEST_F(Folder, AnEmptyPromptIsTheEndOfAText) {
  EXPECT_EQ(load()->encode_prompt(""), std::vector<int32_t>{0});
}

}  // namespace
}  // namespace th::serve
