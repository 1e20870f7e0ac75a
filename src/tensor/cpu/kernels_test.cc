// Expectations are worked out by hand in the comments.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/env.h"
#include "tensor/cpu/attention.h"
#include "tensor/cpu/gpt2_layers.h"
#include "tensor/cpu/layers.h"
#include "tensor/cpu/loss.h"
#include "tensor/cpu/matmul.h"
#include "tensor/cpu/optimizer.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

using Floats = std::vector<float>;

void expect_near(const Floats& got, const Floats& want, float tolerance = 1e-6f) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << "at " << i;
}

Floats random(size_t count, uint64_t seed) {
  Prng prng(seed);
  Floats values(count);
  for (float& value : values) value = static_cast<float>(prng.normal());
  return values;
}

TEST(Exp, IsWithinTwoUnitsOfTheMathLibrary) {
  for (float x = -87.0f; x < 88.0f; x += 0.0137f) {
    EXPECT_NEAR(fast_exp(x) / std::exp(x), 1.0f, 2.5e-7f) << x;
  }
  EXPECT_LT(fast_exp(-1e30f), 1e-37f);
  EXPECT_TRUE(std::isnan(fast_exp(NAN)));
}

TEST(Matmul, ForwardMultipliesByTheTransposedWeight) {
  const Floats inp = {1, 2, 3, 4, 5, 6}, weight = {1, 0, 2, 0, 1, -1};
  Floats out = {100, 100, 100, 100};
  const MatmulDims dims{.rows = 2, .in = 3, .out = 2};
  matmul_forward(out.data(), inp.data(), weight.data(), dims);
  expect_near(out, {7, -1, 16, -1});  // 1+6, 2-3, 4+12, 5-6
  matmul_forward(out.data(), inp.data(), weight.data(), dims, Write::kAdd);
  expect_near(out, {14, -2, 32, -2});
}

TEST(Matmul, FewRowsAndManyRowsAgree) {
  constexpr int64_t kIn = 67, kOut = 41, kRows = 3 * kFewRows;
  const Floats inp = random(kRows * kIn, 1), weight = random(kOut * kIn, 2);
  Floats many(kRows * kOut), few(kRows * kOut);
  matmul_forward(many.data(), inp.data(), weight.data(), {kRows, kIn, kOut});
  for (int64_t r = 0; r < kRows; r += kFewRows) {
    matmul_forward(few.data() + r * kOut, inp.data() + r * kIn, weight.data(), {kFewRows, kIn, kOut});
  }
  expect_near(few, many, 1e-4f);
}

TEST(Matmul, BackwardGivesBothGradients) {
  const Floats inp = {1, 2, 3, 4, 5, 6}, weight = {1, 0, 2, 0, 1, -1}, dout = {1, 2, 0, -1};
  const MatmulDims dims{.rows = 2, .in = 3, .out = 2};
  Floats dinp(6), dweight(6, 1.0f);
  matmul_backward_input(dinp.data(), dout.data(), weight.data(), dims);
  expect_near(dinp, {1, 2, 0, 0, -1, 1});
  matmul_backward_weight(dweight.data(), dout.data(), inp.data(), dims);
  expect_near(dweight, {2, 3, 4, -1, 0, 1});  // 1 + [1,2,3] and 1 + [2-4, 4-5, 6-6]
}

TEST(Matmul, WeightsAsTallAsAVocabularyGetEachRowOnce) {
  constexpr int64_t kRows = 3, kIn = 5, kOut = 4 * 3072 + 7;
  const Floats inp = random(kRows * kIn, 1), dout = random(kRows * kOut, 2);
  Floats got(kOut * kIn, 1.0f), want(kOut * kIn, 1.0f);
  matmul_backward_weight(got.data(), dout.data(), inp.data(), {kRows, kIn, kOut});
  for (int64_t o = 0; o < kOut; ++o) {
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t i = 0; i < kIn; ++i) want[o * kIn + i] += dout[r * kOut + o] * inp[r * kIn + i];
  }
  expect_near(got, want, 1e-5f);
}

TEST(RmsNorm, DividesByTheRootMeanSquare) {
  const Floats inp = {3, 4}, weight = {1, 2};
  Floats out(2), rstd(1);
  rmsnorm_forward(out.data(), rstd.data(), inp.data(), weight.data(), {1, 2}, 0.0f);
  const float inverse = 1 / std::sqrt(12.5f);  // mean of 9 and 16
  expect_near(rstd, {inverse});
  expect_near(out, {3 * inverse, 8 * inverse});
}

TEST(Rope, TurnsPairsHalfAHeadApart) {
  const RopeTable table({.max_positions = 4, .head_dim = 4, .theta = 100});
  Floats x = {1, 0, 0, 1};
  const std::vector<int32_t> positions = {2};
  rope_forward(x.data(), table, positions, {.heads = 1, .stride = 4});
  // Pair (0,2) turns by 2 · 1, pair (1,3) by 2 · 100^(-1/2) = 0.2.
  expect_near(x, {std::cos(2.0f), -std::sin(0.2f), std::sin(2.0f), std::cos(0.2f)});
  rope_backward(x.data(), table, positions, {.heads = 1, .stride = 4});
  expect_near(x, {1, 0, 0, 1});
}

TEST(SwiGlu, GatesWithSilu) {
  const Floats gate_up = {0, 1, 5, 2};  // gates 0 and 1, ups 5 and 2
  Floats out(2);
  swiglu_forward(out.data(), gate_up.data(), {1, 2});
  expect_near(out, {0, 2 * 0.7310586f});  // silu(1) = sigmoid(1)
}

TEST(Embedding, BackwardAddsUpRepeatedTokens) {
  const std::vector<int32_t> tokens = {1, 1, 0};
  const Floats dout = {1, 2, 10, 20, 5, 5};
  Floats dweight(6);
  embedding_backward(dweight.data(), dout.data(), tokens, 2);
  expect_near(dweight, {5, 5, 11, 22, 0, 0});
}

TEST(Attention, ZeroScoresAverageWhatCameBefore) {
  // Two query heads share one key/value head of width 1: rows are [q q k v].
  const AttentionDims dims{.batch = 1, .time = 3, .heads = 2, .kv_heads = 1, .head_dim = 1, .stride = 4};
  const Floats qkv = {0, 0, 7, 1, 0, 0, 7, 3, 0, 0, 7, 8};
  Floats out(6), lse(6);
  attention_forward(out.data(), lse.data(), qkv.data(), qkv.data() + 2, qkv.data() + 3, dims);
  expect_near(out, {1, 1, 2, 2, 4, 4});
  const float ln2 = std::log(2.0f), ln3 = std::log(3.0f);
  expect_near(lse, {0, ln2, ln3, 0, ln2, ln3});
}

TEST(Attention, LargeScoresPickOneKey) {
  const AttentionDims dims{.batch = 1, .time = 2, .heads = 1, .kv_heads = 1, .head_dim = 1, .stride = 3};
  const Floats qkv = {1, 100, 5, 1, -100, 9};
  Floats out(2), lse(2);
  attention_forward(out.data(), lse.data(), qkv.data(), qkv.data() + 1, qkv.data() + 2, dims);
  expect_near(out, {5, 5});
  expect_near(lse, {100, 100});
}

TEST(Attention, CachedRowsAgreeWithTheWholeSequence) {
  constexpr int64_t kTime = 77, kHeads = 4, kKv = 2, kDim = 8, kBlock = 16;
  const AttentionDims dims{1, kTime, kHeads, kKv, kDim, (kHeads + 2 * kKv) * kDim};
  const Floats qkv = random(kTime * dims.stride, 3);
  Floats whole(kTime * kHeads * kDim), lse(kTime * kHeads), cached(whole.size()), q(whole.size());
  attention_forward(whole.data(), lse.data(), qkv.data(), qkv.data() + kHeads * kDim,
                    qkv.data() + (kHeads + kKv) * kDim, dims);
  constexpr int64_t kBlocks = (kTime + kBlock - 1) / kBlock, kRow = kKv * kDim;
  std::vector<Floats> keys(kBlocks, Floats(kBlock * kRow)), values = keys;
  std::vector<KvView> views;
  std::vector<const float*> key_blocks, value_blocks;
  for (int64_t b = 0; b < kBlocks; ++b) {
    key_blocks.push_back(keys[b].data());
    value_blocks.push_back(values[b].data());
  }
  for (int64_t p = 0; p < kTime; ++p) {
    const float* row = qkv.data() + p * dims.stride;
    std::copy_n(row, kHeads * kDim, q.data() + p * kHeads * kDim);
    std::copy_n(row + kHeads * kDim, kRow, keys[p / kBlock].data() + p % kBlock * kRow);
    std::copy_n(row + kHeads * kDim + kRow, kRow, values[p / kBlock].data() + p % kBlock * kRow);
    views.push_back({key_blocks.data(), value_blocks.data(), kBlock, p + 1});
  }
  attention_cached(cached.data(), q.data(), views, {kHeads, kKv, kDim});
  expect_near(cached, whole, 1e-5f);
}

TEST(CrossEntropy, OfEqualLogitsIsTheLogOfTheirNumber) {
  Floats logits = {3, 3, 3, 3, 9, 9, 9, 9};
  const std::vector<int32_t> targets = {2, kIgnoreTarget};
  Floats losses(2, 5.0f), lse(2);
  cross_entropy_forward(losses.data(), lse.data(), logits.data(), targets, {2, 4});
  expect_near(losses, {std::log(4.0f), 0});
  cross_entropy_backward(logits.data(), lse.data(), targets, {2, 4}, 2.0f);
  expect_near(logits, {0.5f, 0.5f, -1.5f, 0.5f, 0, 0, 0, 0});  // (1/4 - onehot) · 2
}

TEST(AdamW, FirstStepMovesByTheLearningRate) {
  // At step 1 the corrected moments are g and g², so the update is sign(g); decay takes 0.1 · 0.1 of the
  // weight.
  Floats params = {1, 1}, m(2), v(2);
  const Floats grads = {4, -0.5f};
  adamw_update(params, grads, {m, v}, {.learning_rate = 0.1f, .weight_decay = 0.1f, .step = 1});
  expect_near(params, {0.89f, 1.09f});
  expect_near(m, {0.4f, -0.05f});
  expect_near(v, {0.8f, 0.0125f});
}

TEST(AdamW, SlicesGiveTheBitsOfTheWhole) {
  const size_t n = 1003, cut = 417;
  const Floats grads = random(n, 4);
  Floats whole = random(n, 5), m = random(n, 6), v(n, 0.5f);
  Floats parts = whole, m_parts = m, v_parts = v;
  const AdamWOptions options{.learning_rate = 0.01f, .weight_decay = 0.1f, .step = 7};
  adamw_update(whole, grads, {m, v}, options);
  const auto update = [&](size_t begin, size_t count) {
    adamw_update(std::span(parts).subspan(begin, count), std::span(grads).subspan(begin, count),
                 {std::span(m_parts).subspan(begin, count), std::span(v_parts).subspan(begin, count)},
                 options);
  };
  update(0, cut);
  update(cut, n - cut);
  EXPECT_EQ(parts, whole);
  EXPECT_EQ(m_parts, m);
  EXPECT_EQ(v_parts, v);
}

TEST(Flat, SumAndAdd) {
  Floats x(200000, 0.5f);
  EXPECT_DOUBLE_EQ(sum_of_squares(x), 50000.0);
  add(x, Floats(200000, 1.0f));
  EXPECT_EQ(x.front(), 1.5f);
  EXPECT_EQ(x.back(), 1.5f);
}

Floats round_all(Floats values) {
  for (float& value : values) value = to_float(to_bf16(value));
  return values;
}

TEST(Bf16, RoundsToTheNearestEvenOne) {
  // Eight bits of fraction with the hidden one: between 1 and 1 + 2^-7 lies 1 + 2^-8, a tie.
  EXPECT_EQ(to_float(to_bf16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(to_float(to_bf16(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);
  EXPECT_EQ(to_float(to_bf16(1.0f + 0x1.1p-8f)), 1.0f + 0x1p-7f);
  EXPECT_EQ(to_float(to_bf16(3.4e38f)), INFINITY);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(NAN))));
}

// The products of bfloat16 are those of float32 on rounded inputs, but for the order of sums.
TEST(Matmul, InBf16MultipliesRoundedValues) {
  for (const MatmulDims dims : {MatmulDims{5, 67, 41}, {70, 130, 450}, {1, 8, 3}}) {
    const Floats inp = random(dims.rows * dims.in, 1), dout = random(dims.rows * dims.out, 2);
    const Floats weight = round_all(random(dims.out * dims.in, 3));
    std::vector<Bf16> narrow(weight.size()), dweight(weight.size());
    convert(std::span(narrow), std::span<const float>(weight));
    for (const Write write : {Write::kReplace, Write::kAdd}) {
      Floats out(dout.size(), 1), want_out(dout.size(), 1), dinp(inp.size(), 1), want_dinp(inp.size(), 1);
      matmul_forward(out.data(), inp.data(), narrow.data(), dims, write);
      matmul_forward(want_out.data(), round_all(inp).data(), weight.data(), dims, write);
      expect_near(out, want_out, 1e-3f);
      matmul_backward_input(dinp.data(), dout.data(), narrow.data(), dims, write);
      matmul_backward_input(want_dinp.data(), round_all(dout).data(), weight.data(), dims, write);
      expect_near(dinp, want_dinp, 1e-3f);
      Floats want(weight.size(), 1), got(weight.size());
      std::ranges::fill(dweight, to_bf16(1));
      matmul_backward_weight(dweight.data(), dout.data(), inp.data(), dims, write);
      matmul_backward_weight(want.data(), round_all(dout).data(), round_all(inp).data(), dims, write);
      convert(std::span(got), std::span<const Bf16>(dweight));
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_NEAR(got[i], want[i], 0x1p-8 * std::abs(want[i]) + 1e-3) << i;
    }
  }
}

TEST(LayerNorm, HasMeanNoneAndDeviationOne) {
  // Mean 2, variance 1: (1, 3) become -1 and 1, twice the weight, plus the bias.
  const Floats inp = {1, 3}, weight = {2, 2}, bias = {10, 20};
  Floats out(2), mean(1), rstd(1);
  layernorm_forward(out.data(), {mean.data(), rstd.data()}, inp.data(), {weight.data(), bias.data()}, {1, 2},
                    0);
  expect_near(out, {8, 22});
  expect_near(mean, {2});
  expect_near(rstd, {1});
}

TEST(Gelu, IsTheTanhFormula) {
  const Floats inp = {-3, -1, 0, 0.5f, 2, 30, -30};
  Floats out(inp.size());
  gelu_forward(out.data(), inp.data(), {1, 7});
  for (size_t i = 0; i < inp.size(); ++i) {
    const double x = inp[i];
    const double u = std::sqrt(2 / 3.14159265358979) * (x + 0.044715 * x * x * x);
    EXPECT_NEAR(out[i], 0.5 * x * (1 + std::tanh(u)), 1e-6) << x;
  }
}

TEST(AdamW, InBf16UpdatesTheMasterAsFloat32Does) {
  const Floats start = random(1000, 1), grads = round_all(random(1000, 2));
  Floats params = start, master = start, m(1000), v(1000), m2(1000), v2(1000);
  std::vector<Bf16> narrow(1000), narrow_grads(1000);
  convert(std::span(narrow_grads), std::span<const float>(grads));
  for (int64_t step = 1; step < 4; ++step) {
    const AdamWOptions options{.learning_rate = 0.1f, .weight_decay = 0.1f, .step = step, .grad_scale = 0.5f};
    adamw_update(params, grads, {m, v}, options);
    adamw_update(narrow, master, narrow_grads, {m2, v2}, options);
  }
  EXPECT_EQ(params, master);
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(narrow[i].bits, to_bf16(params[i]).bits);
}

}  // namespace
}  // namespace th::tensor
