#include "train/lora.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/env.h"
#include "train/test_gang.h"

namespace th::train {
namespace {

const model::ModelConfig kTiny = {.vocab_size = 37,
                                  .hidden_size = 8,
                                  .intermediate_size = 12,
                                  .num_hidden_layers = 2,
                                  .num_attention_heads = 2,
                                  .num_key_value_heads = 1,
                                  .head_dim = 4,
                                  .max_position_embeddings = 16};
const std::vector<int32_t> kTokens = {1, 2, 3, 4, 5, 6, 7, 8}, kTargets = {2, 3, 4, 5, 6, 7, 8, 9};

EngineOptions options(LoraOptions lora) {
  EngineOptions o;
  o.batch = 2, o.time = 4, o.lora = std::move(lora), o.seed = 3;
  o.zero.optimizer = {.beta1 = 0.5, .weight_decay = 0, .clip = 0};
  return o;
}

TEST(Lora, BeginsAsTheModelItself) {
  collective::Group alone;
  const auto whole = make_engine(alone, kTiny, options({})).value();
  const auto lora = make_engine(alone, kTiny, options({.rank = 3})).value();
  EXPECT_EQ(lora->loss(kTokens, kTargets, 2, 4).value(), whole->loss(kTokens, kTargets, 2, 4).value());
  EXPECT_EQ(lora->gather_weights().value(), whole->gather_weights().value());
  // By hand, rank 3 and two layers: 3·(8+8) for q, 3·(8+4) for k and v, 3·(8+8) for o, 3·(8+12) for gate, up
  // and down.
  EXPECT_EQ(lora->state_layout().size, 2 * 3 * (16 + 12 + 12 + 16 + 3 * 20));
}

// With beta1 1/2 the first moment after one step is half of the gradient.
TEST(Lora, GradientsAgreeWithFiniteDifferences) {
  collective::Group alone;
  auto lora = make_engine(alone, kTiny, options({.rank = 2, .alpha = 6})).value();
  const StatePart state = lora->state()[0];
  Prng prng(5);
  for (float& value : state.weights) value = static_cast<float>(prng.normal() * 0.5);
  const std::vector<float> start(state.weights.begin(), state.weights.end());
  ASSERT_TRUE(lora->step({kTokens, kTargets, 0, 1}).has_value());
  std::ranges::copy(start, state.weights.begin());
  double squares = 0;
  for (const float m : state.m) squares += 4.0 * m * m;
  const double typical = std::sqrt(squares / static_cast<double>(state.m.size()));
  EXPECT_GT(typical, 0);
  for (size_t i = 0; i < state.weights.size(); ++i) {
    constexpr float kStep = 0.01f;
    const auto at = [&](float offset) {
      state.weights[i] = start[i] + offset;
      const double loss = lora->loss(kTokens, kTargets, 2, 4).value();
      state.weights[i] = start[i];
      return loss;
    };
    const double numeric = (at(kStep) - at(-kStep)) / (2 * kStep);
    EXPECT_NEAR(2 * state.m[i], numeric, 0.02 * std::abs(numeric) + 0.02 * typical) << i;
  }
}

TEST(Lora, LearnsByHeartWithTheModelLeftAsItIs) {
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBf16}) {
    EXPECT_TRUE(run_gang(2, [&](collective::Group& group) {
      EngineOptions o = options({.rank = 4, .alpha = 8, .targets = {"q_proj", "down_proj"}});
      o.dtype = dtype;
      auto lora = make_engine(group, kTiny, o).value();
      const std::vector<float> before = lora->gather_weights().value();
      const float first = lora->loss(kTokens, kTargets, 2, 4).value();
      for (int64_t step = 1; step <= 200; ++step)
        if (!lora->step({kTokens, kTargets, 0.02, step})) return false;
      const std::vector<float> after = lora->gather_weights().value();
      bool only_targets = true;
      for (const model::Parameter& p : lora->layout().parameters) {
        const bool is_target =
            p.name.find("q_proj") != p.name.npos || p.name.find("down_proj") != p.name.npos;
        const bool same = std::equal(after.begin() + p.offset, after.begin() + p.offset + p.size,
                                     before.begin() + p.offset);
        only_targets = only_targets && same != is_target;
      }
      // A logit is a normed row, of length sqrt(8), times a row of the frozen embedding, of about
      // 0.02·sqrt(8): no more than 0.16 nats can be learned.
      return only_targets && lora->loss(kTokens, kTargets, 2, 4).value() < first - 0.1f;
    }));
  }
}

TEST(Lora, ATargetThatIsNotThereIsNamed) {
  collective::Group alone;
  const auto lora = make_engine(alone, kTiny, options({.rank = 2, .targets = {"c_attn"}}));
  ASSERT_FALSE(lora.has_value());
  EXPECT_EQ(lora.error().message,
            "lora.targets: the layers have no matrix 'c_attn'; they have q_proj, k_proj, v_proj, o_proj, "
            "gate_proj, up_proj, down_proj");
}

}  // namespace
}  // namespace th::train
