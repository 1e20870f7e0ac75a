#include "model/config.h"

#include <gtest/gtest.h>

#include <string>

namespace th::model {
namespace {

// SmolLM-like, as transformers writes it, shortened.
const std::string kText = R"({"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 64,
  "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 300,
  "rope_theta": 10000.0, "max_position_embeddings": 256, "bos_token_id": 0, "use_cache": true})";

std::string with(const std::string& old_text, const std::string& new_text) {
  std::string text = kText;
  return text.replace(text.find(old_text), old_text.size(), new_text);
}

TEST(ModelConfig, FillsInWhatHuggingFaceLeavesOut) {
  const auto config = parse_model_config(kText, "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->num_key_value_heads, 4);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->norm_eps, 1e-6);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_EQ(config->bos_token_id, 0);
  EXPECT_EQ(config->eos_token_id, std::nullopt);
}

TEST(ModelConfig, WhatIsWrittenIsReadBack) {
  ModelConfig config = *parse_model_config(kText, "config.json");
  config.num_key_value_heads = 2;
  config.tie_word_embeddings = true;
  config.norm_eps = 1e-5;
  const auto again = parse_model_config(model_config_json(config), "again");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, config);
}

// The fields of the 124M model as Hugging Face publishes them (openai-community/gpt2).
const std::string kGpt2 = R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
  "attn_pdrop": 0.1, "bos_token_id": 50256, "eos_token_id": 50256, "layer_norm_epsilon": 1e-05,
  "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
  "vocab_size": 50257})";

TEST(ModelConfig, ReadsGpt2) {
  const auto config = parse_model_config(kGpt2, "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->family, Family::kGpt2);
  EXPECT_EQ(config->intermediate_size, 4 * 768);
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(*parse_model_config(model_config_json(*config), "again"), *config);
  std::string other = kGpt2;
  other.replace(other.find("gelu_new"), 8, "relu");
  EXPECT_EQ(parse_model_config(other, "c").error().message,
            "c: field 'activation_function': want 'gelu_new', got 'relu'");
  other = kGpt2;
  other.replace(other.find("\"n_head\": 12"), 12, "\"n_head\": 5");
  EXPECT_EQ(parse_model_config(other, "c").error().message,
            "c: field 'n_head': want a divisor of n_embd (768), got 5");
}

TEST(ModelConfig, NamesTheFieldThatIsWrong) {
  const auto message = [](const std::string& text) {
    const auto config = parse_model_config(text, "config.json");
    return config ? "accepted" : config.error().message;
  };
  EXPECT_EQ(message(with("\"vocab_size\": 300", "\"vocab_size\": 0")),
            "config.json: field 'vocab_size': want an integer from 1 to 4194304, got 0");
  EXPECT_EQ(message(with("\"use_cache\": true", "\"num_key_value_heads\": 3")),
            "config.json: field 'num_key_value_heads': want a divisor of num_attention_heads (4), got 3");
  EXPECT_EQ(message(with("\"use_cache\": true", "\"head_dim\": 5")),
            "config.json: field 'head_dim': want an even number (rotary pairs), got 5");
  EXPECT_EQ(message(with("silu", "gelu")), "config.json: field 'hidden_act': want 'silu', got 'gelu'");
  EXPECT_EQ(message(with("\"use_cache\": true", "\"rope_scaling\": {\"rope_type\": \"llama3\"}")),
            "config.json: field 'rope_scaling': want rope_type 'default', got 'llama3'");
  EXPECT_EQ(message(with("\"bos_token_id\": 0", "\"bos_token_id\": 300")),
            "config.json: field 'bos_token_id': want a token in [0, 300), got 300");
  EXPECT_NE(message(with("LlamaForCausalLM", "MistralForCausalLM")).find("architectures"), std::string::npos);
  EXPECT_NE(message("[]").find("want a JSON object"), std::string::npos);
  EXPECT_NE(message(kText.substr(0, 40)), "accepted");
}

}  // namespace
}  // namespace th::model
