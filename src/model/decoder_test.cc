#include "model/decoder.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/grad_check.h"
#include "tensor/cpu/optimizer.h"

namespace th::model {
namespace {

ModelConfig tiny(bool tied) {
  return {.vocab_size = 11,
          .hidden_size = 8,
          .intermediate_size = 12,
          .num_hidden_layers = 2,
          .num_attention_heads = 2,
          .num_key_value_heads = 1,
          .head_dim = 4,
          .max_position_embeddings = 16,
          .tie_word_embeddings = tied};
}

struct Outcome {
  float loss;
  std::vector<float> grads;
};
const std::vector<int32_t> kTokens = {1, 2, 3, 4, 5, 6, 7, 8};
const std::vector<int32_t> kTargets = {2, 3, 4, 5, 6, 7, 8, 9};

using Floats = std::vector<float>;

Floats fresh(const ParameterLayout& layout, uint64_t seed) {
  Floats params(static_cast<size_t>(layout.size));
  init_parameters(params, 0, layout, seed);
  return params;
}

Outcome run_once(const ModelConfig& config, const Decoder<float>::Limits& limits) {
  auto model = Decoder<float>::create(config, limits);
  const Floats params = fresh(model->layout(), 5);
  Floats grads(params.size(), NAN);
  FlatParameters<float> store(model->layout(), params, grads);
  const float loss =
      *model->loss_and_gradients(store, {kTokens, kTargets, limits.max_batch, limits.max_time});
  return {loss, grads};
}
Outcome run_once(int64_t max_logit_floats, int64_t batch, int64_t time) {
  return run_once(tiny(false), {.max_batch = batch, .max_time = time, .max_logit_floats = max_logit_floats});
}

TEST(ParameterLayout, HasHuggingFaceNamesShapesAndNoGaps) {
  const ParameterLayout layout(tiny(false));
  int64_t offset = 0;
  for (const Parameter& parameter : layout.parameters) {
    EXPECT_EQ(parameter.offset, offset);
    offset += parameter.size;
  }
  EXPECT_EQ(layout.size, offset);
  // By hand: embedding and head 2·88; a layer q 64, k and v 32 each, o 64, gate, up and down 96 each; norms
  // 5·8.
  EXPECT_EQ(layout.size, 2 * 88 + 2 * (64 + 64 + 64 + 288) + 40);
  ASSERT_EQ(layout.units.size(), 3u);
  EXPECT_EQ(layout.units[0].decayed_size, 2 * 88);
  EXPECT_EQ(layout.units[0].size, 2 * 88 + 8);
  EXPECT_EQ(layout.units[2].offset, 2 * 88 + 8 + (64 + 64 + 64 + 288) + 16);
  EXPECT_EQ(layout.units[2].decayed_size, 64 + 64 + 64 + 288);
  EXPECT_EQ(layout.at(layout.units[2].offset).name, "model.layers.1.self_attn.q_proj.weight");
  const Parameter* k = layout.find("model.layers.1.self_attn.k_proj.weight");
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(k->shape, (std::vector<int64_t>{4, 8}));
  EXPECT_EQ(k->offset, layout.layers[1].qkv + 64);
  EXPECT_EQ(layout.find("lm_head.weight")->offset, layout.lm_head);
  EXPECT_EQ(layout.find("nothing"), nullptr);
}

TEST(ParameterLayout, TiedHeadIsTheEmbedding) {
  const ParameterLayout layout(tiny(true));
  EXPECT_EQ(layout.find("lm_head.weight"), nullptr);
  EXPECT_EQ(layout.lm_head, layout.embedding);
}

// A logit is a product of a normed row, of length sqrt(8), with weights of deviation 0.02; three deviations of
// the mean of 8 of them.
TEST(Decoder, FreshModelGuessesUniformly) {
  EXPECT_NEAR(run_once(1 << 20, 2, 4).loss, std::log(11.0), 3 * 0.02);
}

TEST(Decoder, SameInputsGiveTheSameBits) {
  const Outcome a = run_once(1 << 20, 2, 4), b = run_once(1 << 20, 2, 4);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.grads, b.grads);
}

TEST(Decoder, LogitsInChunksGiveTheSameGradients) {
  const Outcome whole = run_once(1 << 20, 1, 8), chunks = run_once(5 * 11, 1, 8);
  EXPECT_FLOAT_EQ(whole.loss, chunks.loss);
  for (size_t i = 0; i < whole.grads.size(); ++i) EXPECT_NEAR(whole.grads[i], chunks.grads[i], 1e-6);
}

TEST(Decoder, LaterTokensDoNotChangeEarlierLosses) {
  auto model = Decoder<float>::create(tiny(false), {.max_batch = 1, .max_time = 8});
  const Floats params = fresh(model->layout(), 5);
  FlatParameters<float> store(model->layout(), params);
  std::vector<int32_t> tokens = kTokens;
  std::vector<int32_t> targets(8, -1);
  targets[3] = 7;
  const float before = *model->loss(store, {tokens, targets, 1, 8});
  tokens[4] = 0;
  EXPECT_EQ(before, *model->loss(store, {tokens, targets, 1, 8}));
  tokens[2] = 0;
  EXPECT_NE(before, *model->loss(store, {tokens, targets, 1, 8}));
}

template <class T>
float learn_by_heart(const ModelConfig& config) {
  auto model = Decoder<T>::create(config, {.max_batch = 2, .max_time = 4});
  Floats master = fresh(model->layout(), 1), m(master.size()), v(master.size());
  std::vector<T> params(master.size()), grads(master.size());
  if constexpr (std::is_same_v<T, Bf16>) tensor::convert(std::span(params), std::span<const float>(master));
  float loss = 0;
  for (int64_t step = 1; step <= 150; ++step) {
    const tensor::AdamWOptions options{.learning_rate = 0.01f, .step = step};
    if constexpr (std::is_same_v<T, float>) params = master;
    FlatParameters<T> store(model->layout(), params, grads);
    loss = *model->loss_and_gradients(store, {kTokens, kTargets, 2, 4});
    if constexpr (std::is_same_v<T, float>) {
      tensor::adamw_update(master, grads, {m, v}, options);
    } else {
      tensor::adamw_update(params, master, grads, {m, v}, options);
    }
  }
  return loss;
}

TEST(Decoder, LearnsABatchByHeart) {
  ModelConfig gpt2 = tiny(true);
  gpt2.family = Family::kGpt2, gpt2.num_key_value_heads = 2;
  EXPECT_LT(learn_by_heart<float>(tiny(true)), 0.1f);
  EXPECT_LT(learn_by_heart<Bf16>(tiny(true)), 0.1f);
  EXPECT_LT(learn_by_heart<float>(gpt2), 0.1f);
  EXPECT_LT(learn_by_heart<Bf16>(gpt2), 0.1f);
}

TEST(Decoder, RecomputingGivesTheSameBits) {
  ModelConfig gpt2 = tiny(true);
  gpt2.family = Family::kGpt2, gpt2.num_key_value_heads = 2;
  for (const ModelConfig& config : {tiny(false), gpt2}) {
    const Outcome kept = run_once(config, {.max_batch = 2, .max_time = 4});
    for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
      const Outcome again = run_once(config, {.max_batch = 2, .max_time = 4, .recompute = recompute});
      EXPECT_EQ(kept.loss, again.loss);
      EXPECT_EQ(kept.grads, again.grads);
    }
  }
}

TEST(Decoder, RefusesBatchesThatDoNotFit) {
  auto model = Decoder<float>::create(tiny(false), {.max_batch = 1, .max_time = 8});
  const Floats params(static_cast<size_t>(model->layout().size));
  FlatParameters<float> store(model->layout(), params);
  EXPECT_FALSE(model->loss(store, {kTokens, kTargets, 2, 4}));
  EXPECT_FALSE(model->loss(store, {kTokens, kTargets, 1, 7}));
  std::vector<int32_t> tokens = kTokens;
  tokens[6] = 11;
  const auto loss = model->loss(store, {tokens, kTargets, 1, 8});
  ASSERT_FALSE(loss);
  EXPECT_EQ(loss.error().message, "batch: token 11 at place 6 is outside of the vocabulary of 11");
  EXPECT_FALSE(Decoder<float>::create(tiny(false), {.max_batch = 1, .max_time = 17}));
}

TEST(Decoder, GradientsAgreeWithFiniteDifferences) {
  for (const GradientError& error : check_gradients(1)) {
    EXPECT_LT(error.worst_relative_error, kMaxGradientError) << error.operation;
  }
}

}  // namespace
}  // namespace th::model
