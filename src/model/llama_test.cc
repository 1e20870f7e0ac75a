#include "model/llama.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/grad_check.h"
#include "tensor/cpu/optimizer.h"

namespace th::model {
namespace {

LlamaConfig tiny(bool tied) {
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

Outcome run_once(int64_t max_logit_floats, int64_t batch, int64_t time) {
  auto model = Llama::create(tiny(false),
                             {.max_batch = batch, .max_time = time, .max_logit_floats = max_logit_floats});
  std::vector<float> params(static_cast<size_t>(model->layout().size)), grads(params.size());
  init_parameters(params, model->layout(), 5);
  const float loss =
      *model->forward(params, {.tokens = kTokens, .targets = kTargets, .batch = batch, .time = time});
  model->backward(params, grads);
  return {loss, grads};
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
  EXPECT_EQ(layout.decayed_size, 2 * 88 + 2 * (64 + 64 + 64 + 288));
  EXPECT_EQ(layout.size, layout.decayed_size + 40);
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

TEST(Llama, FreshModelGuessesUniformly) { EXPECT_NEAR(run_once(1 << 20, 2, 4).loss, std::log(11.0), 0.02); }

TEST(Llama, SameInputsGiveTheSameBits) {
  const Outcome a = run_once(1 << 20, 2, 4), b = run_once(1 << 20, 2, 4);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.grads, b.grads);
}

TEST(Llama, LogitsInChunksGiveTheSameGradients) {
  const Outcome whole = run_once(1 << 20, 1, 8), chunks = run_once(5 * 11, 1, 8);
  EXPECT_FLOAT_EQ(whole.loss, chunks.loss);
  for (size_t i = 0; i < whole.grads.size(); ++i) EXPECT_NEAR(whole.grads[i], chunks.grads[i], 1e-6);
}

TEST(Llama, LaterTokensDoNotChangeEarlierLosses) {
  auto model = Llama::create(tiny(false), {.max_batch = 1, .max_time = 8});
  std::vector<float> params(static_cast<size_t>(model->layout().size));
  init_parameters(params, model->layout(), 5);
  std::vector<int32_t> tokens = kTokens;
  std::vector<int32_t> targets(8, -1);
  targets[3] = 7;
  const float before = *model->forward(params, {.tokens = tokens, .targets = targets, .batch = 1, .time = 8});
  tokens[4] = 0;
  EXPECT_EQ(before, *model->forward(params, {.tokens = tokens, .targets = targets, .batch = 1, .time = 8}));
  tokens[2] = 0;
  EXPECT_NE(before, *model->forward(params, {.tokens = tokens, .targets = targets, .batch = 1, .time = 8}));
}

TEST(Llama, LearnsABatchByHeart) {
  auto model = Llama::create(tiny(true), {.max_batch = 2, .max_time = 4});
  const auto size = static_cast<size_t>(model->layout().size);
  std::vector<float> params(size), m(size), v(size);
  init_parameters(params, model->layout(), 1);
  float loss = 0;
  for (int64_t step = 1; step <= 150; ++step) {
    std::vector<float> grads(size);
    loss = *model->forward(params, {.tokens = kTokens, .targets = kTargets, .batch = 2, .time = 4});
    model->backward(params, grads);
    tensor::adamw_update(params, grads, {m, v}, {.learning_rate = 0.01f, .step = step});
  }
  EXPECT_LT(loss, 0.1f);
}

TEST(Llama, RefusesBatchesThatDoNotFit) {
  auto model = Llama::create(tiny(false), {.max_batch = 1, .max_time = 8});
  std::vector<float> params(static_cast<size_t>(model->layout().size));
  EXPECT_FALSE(model->forward(params, {.tokens = kTokens, .targets = kTargets, .batch = 2, .time = 4}));
  EXPECT_FALSE(model->forward(params, {.tokens = kTokens, .targets = kTargets, .batch = 1, .time = 7}));
  std::vector<int32_t> tokens = kTokens;
  tokens[6] = 11;
  const auto loss = model->forward(params, {.tokens = tokens, .targets = kTargets, .batch = 1, .time = 8});
  ASSERT_FALSE(loss);
  EXPECT_EQ(loss.error().message, "batch: token 11 at place 6 is outside of the vocabulary of 11");
  EXPECT_FALSE(Llama::create(tiny(false), {.max_batch = 1, .max_time = 17}));
}

TEST(Llama, GradientsAgreeWithFiniteDifferences) {
  for (const GradientError& error : check_gradients(1)) {
    EXPECT_LT(error.worst_relative_error, kMaxGradientError) << error.operation;
  }
}

}  // namespace
}  // namespace th::model
