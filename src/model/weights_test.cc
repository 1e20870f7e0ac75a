#include "model/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "base/bf16.h"

namespace th::model {
namespace {

namespace fs = std::filesystem;

ModelConfig tiny(Family family) {
  return {.family = family,
          .vocab_size = 11,
          .hidden_size = 8,
          .intermediate_size = 12,
          .num_hidden_layers = 2,
          .num_attention_heads = 2,
          .num_key_value_heads = 2,
          .head_dim = 4,
          .max_position_embeddings = 16,
          .tie_word_embeddings = true};
}

class Weights : public testing::Test {
 protected:
  Weights() {
    std::string pattern = (fs::temp_directory_path() / "th_weights_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~Weights() override { fs::remove_all(folder_); }
  std::string error_of(const ParameterLayout& layout) const {
    auto weights = WeightFolder::open(folder_, layout);
    return weights ? "" : weights.error().message;
  }
  fs::path folder_;
};

std::vector<float> counted(const ParameterLayout& layout) {
  std::vector<float> values(static_cast<size_t>(layout.size));
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

TEST_F(Weights, WhatIsWrittenIsReadBackInAnyParts) {
  for (const Family family : {Family::kLlama, Family::kGpt2}) {
    const ParameterLayout layout(tiny(family));
    const std::vector<float> want = counted(layout);
    ASSERT_TRUE(write_weights(folder_ / "model.safetensors", layout, want));
    const auto weights = WeightFolder::open(folder_, layout);
    ASSERT_TRUE(weights) << weights.error().message;
    std::vector<float> got(want.size());
    for (size_t begin = 0; begin < got.size(); begin += 37)
      ASSERT_TRUE(weights->read(static_cast<int64_t>(begin),
                                std::span(got).subspan(begin, std::min<size_t>(37, got.size() - begin))));
    EXPECT_EQ(got, want);
  }
}

// GPT-2's projections are (in,out) in the file: element (o,i) of ours is (i,o) there.
TEST_F(Weights, Gpt2sProjectionsAreTurned) {
  const ParameterLayout layout(tiny(Family::kGpt2));
  ASSERT_TRUE(write_weights(folder_ / "model.safetensors", layout, counted(layout)));
  const auto file = SafetensorsFile::open(folder_ / "model.safetensors").value();
  const SafeTensor& tensor = *file.find("transformer.h.1.attn.c_attn.weight");
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{8, 24}));
  const auto* stored = reinterpret_cast<const float*>(tensor.data.data());
  const auto first = static_cast<float>(layout.layers[1].qkv + 1);
  EXPECT_EQ(stored[0], first);
  EXPECT_EQ(stored[1], first + 8);   // (0,1) there is (1,0) here
  EXPECT_EQ(stored[24], first + 1);  // (1,0) there is (0,1) here
}

TEST_F(Weights, HalvesInSeveralFilesWithoutThePrefix) {
  const ParameterLayout layout(tiny(Family::kGpt2));
  // 1.5, -2^-24 (the least half), 65504 (the greatest); bfloat16 1.5.
  const auto write = [&](const char* name, const char* dtype, size_t from, size_t to, uint16_t bits) {
    std::string header = "{", data;
    for (size_t i = from; i < to; ++i) {
      const Parameter& p = layout.parameters[i];
      const bool turned = p.transposed;
      std::string shape = std::to_string(p.shape[turned ? 1 : 0]);
      if (p.shape.size() > 1) shape += "," + std::to_string(p.shape[turned ? 0 : 1]);
      header += (header.size() > 1 ? ",\"" : "\"") + p.name.substr(12) + "\":{\"dtype\":\"" + dtype +
                "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(data.size()) + ",";
      for (int64_t k = 0; k < p.size; ++k) data.append(reinterpret_cast<const char*>(&bits), 2);
      header += std::to_string(data.size()) + "]}";
    }
    header += "}";
    const uint64_t size = header.size();
    std::ofstream(folder_ / name, std::ios::binary)
        << std::string(reinterpret_cast<const char*>(&size), 8) << header << data;
  };
  const size_t half = layout.parameters.size() / 2;
  std::ofstream(folder_ / "model.safetensors.index.json") << R"({"weight_map": {"a": "1.st", "b": "2.st"}})";
  write("2.st", "BF16", half, layout.parameters.size(), to_bf16(1.5f).bits);
  const std::pair<uint16_t, float> cases[] = {
      {0x3e00, 1.5f}, {0x8001, -std::ldexp(1.0f, -24)}, {0x7bff, 65504.0f}};
  for (const auto& [bits, want] : cases) {
    write("1.st", "F16", 0, half, bits);
    const auto weights = WeightFolder::open(folder_, layout);
    ASSERT_TRUE(weights) << weights.error().message;
    std::vector<float> got(static_cast<size_t>(layout.size));
    ASSERT_TRUE(weights->read(0, got));
    EXPECT_EQ(got.front(), want);
    EXPECT_EQ(got.back(), 1.5f);
  }
  write("1.st", "F16", 0, half, 0x7c00);  // infinity
  std::vector<float> got(1);
  EXPECT_NE(WeightFolder::open(folder_, layout)->read(0, got).error().message.find("transformer.wte.weight"),
            std::string::npos);
}

TEST_F(Weights, WhatIsWrongIsNamed) {
  const ParameterLayout layout(tiny(Family::kLlama));
  EXPECT_NE(error_of(layout).find("no model.safetensors"), std::string::npos);
  std::ofstream(folder_ / "model.safetensors.index.json") << R"({"weight_map": {"a": "../x"}})";
  EXPECT_NE(error_of(layout).find("weight_map"), std::string::npos);
  ASSERT_TRUE(write_weights(folder_ / "model.safetensors", layout, counted(layout)));
  ModelConfig other = tiny(Family::kLlama);
  other.intermediate_size = 16;
  EXPECT_NE(error_of(ParameterLayout(other)).find("gate_proj.weight' is F32 of shape [12,8], want"),
            std::string::npos);
  other = tiny(Family::kLlama);
  other.num_hidden_layers = 3;
  EXPECT_NE(error_of(ParameterLayout(other))
                .find("model.safetensors: no tensor 'model.layers.2.self_attn.q_proj.weight'"),
            std::string::npos);
}

}  // namespace
}  // namespace th::model
