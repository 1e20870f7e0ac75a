#include "model/grad_check.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <span>

#include "base/env.h"
#include "model/decoder.h"
#include "tensor/cpu/attention.h"
#include "tensor/cpu/gpt2_layers.h"
#include "tensor/cpu/layers.h"
#include "tensor/cpu/loss.h"
#include "tensor/cpu/matmul.h"

namespace th::model {
namespace {

using Floats = std::vector<float>;
using tensor::RowDims;

// A wide step drowns the rounding of the forward, a narrow one follows its bends: an element takes the first
// that agrees well, else the best. A wrong gradient agrees with none.
constexpr float kSteps[] = {0.04f, 0.02f, 0.01f, 0.005f, 0.0025f};
constexpr double kAgreesWell = 1e-4;

/// An input that is varied, and what the backward says about it.
struct Variable {
  std::span<float> values;
  std::span<const float> gradient;
};

double difference_quotient(float& x, float step, const std::function<double()>& loss) {
  const float middle = x;
  const auto at = [&](float offset) {
    x = middle + offset;
    return loss();
  };
  const double near = at(step) - at(-step);
  const double far = at(2 * step) - at(-2 * step);
  // The step as it comes out in float32, so that its rounding does not count as an error.
  const double taken = (static_cast<double>(middle + step) - static_cast<double>(middle - step)) / 2;
  x = middle;
  return (8 * near - far) / (12 * taken);
}

double root_mean_square(std::span<const float> values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

double worst_error(const Variable& variable, const std::function<double()>& loss) {
  const double typical = root_mean_square(variable.gradient);
  double worst = 0;
  for (size_t i = 0; i < variable.values.size(); ++i) {
    const double a = variable.gradient[i];
    double best = std::numeric_limits<double>::infinity();
    for (const float step : kSteps) {
      const double n = difference_quotient(variable.values[i], step, loss);
      const double error = std::abs(a - n) / std::max({std::abs(a), std::abs(n), typical, 1e-12});
      if (error < best) best = error;  // false for NaN
      if (best < kAgreesWell) break;
    }
    worst = std::max(worst, best);
  }
  return worst;
}

class Checker {
 public:
  explicit Checker(uint64_t seed) : prng_(seed) {}

  Floats random(int64_t count, double deviation = 1) {
    Floats values(static_cast<size_t>(count));
    for (float& value : values) value = static_cast<float>(prng_.normal() * deviation);
    return values;
  }
  std::vector<int32_t> random_tokens(int64_t count, int64_t vocab) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) token = static_cast<int32_t>(prng_.below(static_cast<uint64_t>(vocab)));
    return tokens;
  }
  void record(std::string operation, std::initializer_list<Variable> variables,
              const std::function<double()>& loss) {
    double worst = 0;
    for (const Variable& variable : variables) worst = std::max(worst, worst_error(variable, loss));
    errors.push_back({std::move(operation), worst});
  }

  std::vector<GradientError> errors;

 private:
  Prng prng_;
};

Floats zeros(const Floats& like) { return Floats(like.size()); }

// The loss of an operation: its outputs with random weights, which are the gradient that its backward starts
// from.
double weighted(const Floats& out, const Floats& weights) {
  return std::inner_product(out.begin(), out.end(), weights.begin(), 0.0, std::plus<>(),
                            [](double a, double b) { return a * b; });
}

void check_matmul(Checker& checker, const char* name, tensor::MatmulDims dims) {
  Floats inp = checker.random(dims.rows * dims.in), weight = checker.random(dims.out * dims.in);
  const Floats dout = checker.random(dims.rows * dims.out);
  Floats out = zeros(dout), dinp = zeros(inp), dweight = zeros(weight);
  tensor::matmul_backward_input(dinp.data(), dout.data(), weight.data(), dims);
  tensor::matmul_backward_weight(dweight.data(), dout.data(), inp.data(), dims);
  checker.record(name, {{inp, dinp}, {weight, dweight}}, [&] {
    tensor::matmul_forward(out.data(), inp.data(), weight.data(), dims);
    return weighted(out, dout);
  });
}

void check_rmsnorm(Checker& checker) {
  constexpr RowDims kDims{5, 19};
  constexpr float kEps = 1e-5f;
  Floats inp = checker.random(kDims.rows * kDims.width), weight = checker.random(kDims.width);
  const Floats dout = checker.random(kDims.rows * kDims.width);
  Floats out = zeros(inp), rstd(kDims.rows), dinp = zeros(inp), dweight = zeros(weight);
  const auto forward = [&] {
    tensor::rmsnorm_forward(out.data(), rstd.data(), inp.data(), weight.data(), kDims, kEps);
    return weighted(out, dout);
  };
  forward();
  tensor::rmsnorm_backward(dinp.data(), dweight.data(), dout.data(), inp.data(), weight.data(), rstd.data(),
                           kDims);
  checker.record("rmsnorm", {{inp, dinp}, {weight, dweight}}, forward);
}

void check_rope(Checker& checker) {
  const tensor::RopeTable table({.max_positions = 32, .head_dim = 6, .theta = 100});
  const std::vector<int32_t> positions = {0, 1, 7, 31};
  constexpr tensor::RopeDims kDims{.heads = 3, .stride = 20};
  Floats inp = checker.random(4 * kDims.stride);
  const Floats dout = checker.random(4 * kDims.stride);
  Floats dinp = dout;
  tensor::rope_backward(dinp.data(), table, positions, kDims);
  checker.record("rope", {{inp, dinp}}, [&] {
    Floats out = inp;
    tensor::rope_forward(out.data(), table, positions, kDims);
    return weighted(out, dout);
  });
}

void check_swiglu(Checker& checker) {
  constexpr RowDims kDims{4, 21};
  Floats inp = checker.random(kDims.rows * 2 * kDims.width);
  const Floats dout = checker.random(kDims.rows * kDims.width);
  Floats out = zeros(dout), dinp = zeros(inp);
  tensor::swiglu_backward(dinp.data(), dout.data(), inp.data(), kDims);
  checker.record("swiglu", {{inp, dinp}}, [&] {
    tensor::swiglu_forward(out.data(), inp.data(), kDims);
    return weighted(out, dout);
  });
}

void check_layernorm(Checker& checker) {
  constexpr RowDims kDims{5, 19};
  constexpr float kEps = 1e-5f;
  Floats inp = checker.random(kDims.rows * kDims.width), weight = checker.random(kDims.width),
         bias = checker.random(kDims.width);
  const Floats dout = checker.random(kDims.rows * kDims.width);
  Floats out = zeros(inp), mean(kDims.rows), rstd(kDims.rows);
  Floats dinp = zeros(inp), dweight = zeros(weight), dbias = zeros(bias);
  const tensor::LayerNormSaved saved{mean.data(), rstd.data()};
  const auto forward = [&] {
    tensor::layernorm_forward(out.data(), saved, inp.data(), {weight.data(), bias.data()}, kDims, kEps);
    return weighted(out, dout);
  };
  forward();
  tensor::layernorm_backward({dinp.data(), dweight.data(), dbias.data()}, dout.data(), inp.data(),
                             weight.data(), saved, kDims);
  checker.record("layernorm", {{inp, dinp}, {weight, dweight}, {bias, dbias}}, forward);
}

void check_gelu(Checker& checker) {
  constexpr RowDims kDims{4, 21};
  Floats inp = checker.random(kDims.rows * kDims.width);
  const Floats dout = checker.random(kDims.rows * kDims.width);
  Floats out = zeros(dout), dinp = zeros(inp);
  tensor::gelu_backward(dinp.data(), dout.data(), inp.data(), kDims);
  checker.record("gelu", {{inp, dinp}}, [&] {
    tensor::gelu_forward(out.data(), inp.data(), kDims);
    return weighted(out, dout);
  });
}

void check_bias(Checker& checker) {
  constexpr RowDims kDims{6, 9};
  Floats bias = checker.random(kDims.width);
  const Floats base = checker.random(kDims.rows * kDims.width),
               dout = checker.random(kDims.rows * kDims.width);
  Floats out = zeros(dout), dbias = zeros(bias);
  tensor::bias_backward(dbias.data(), dout.data(), kDims);
  checker.record("bias", {{bias, dbias}}, [&] {
    tensor::bias_forward(out.data(), base.data(), bias.data(), kDims);
    return weighted(out, dout);
  });
}

void check_embedding(Checker& checker) {
  constexpr int64_t kVocab = 7, kWidth = 5;
  const std::vector<int32_t> tokens = {3, 0, 3, 6};
  Floats weight = checker.random(kVocab * kWidth);
  const Floats dout = checker.random(4 * kWidth);
  Floats out = zeros(dout), dweight = zeros(weight);
  tensor::embedding_backward(dweight.data(), dout.data(), tokens, kWidth);
  checker.record("embedding", {{weight, dweight}}, [&] {
    tensor::embedding_forward(out.data(), tokens, weight.data(), kWidth);
    return weighted(out, dout);
  });
}

void check_attention(Checker& checker, const char* name, tensor::AttentionDims dims) {
  dims.stride = (dims.heads + 2 * dims.kv_heads) * dims.head_dim;
  const int64_t queries = dims.heads * dims.head_dim, keys = dims.kv_heads * dims.head_dim;
  const int64_t rows = dims.batch * dims.time;
  Floats qkv = checker.random(rows * dims.stride);
  const Floats dout = checker.random(rows * queries);
  Floats out = zeros(dout), lse(static_cast<size_t>(rows * dims.heads)), dqkv = zeros(qkv);
  const float* q = qkv.data();
  const float *k = q + queries, *v = k + keys;
  const auto forward = [&] {
    tensor::attention_forward(out.data(), lse.data(), q, k, v, dims);
    return weighted(out, dout);
  };
  forward();
  tensor::attention_backward(
      {.dq = dqkv.data(), .dk = dqkv.data() + queries, .dv = dqkv.data() + queries + keys}, dout.data(),
      {.q = q, .k = k, .v = v, .out = out.data(), .lse = lse.data()}, dims);
  checker.record(name, {{qkv, dqkv}}, forward);
}

void check_cross_entropy(Checker& checker) {
  constexpr RowDims kDims{6, 37};
  Floats logits = checker.random(kDims.rows * kDims.width);
  std::vector<int32_t> targets = checker.random_tokens(kDims.rows, kDims.width);
  targets[2] = tensor::kIgnoreTarget;
  Floats losses(kDims.rows), lse(kDims.rows);
  const auto forward = [&] {
    tensor::cross_entropy_forward(losses.data(), lse.data(), logits.data(), targets, kDims);
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  };
  forward();
  Floats dlogits = logits;
  tensor::cross_entropy_backward(dlogits.data(), lse.data(), targets, kDims, 1.0f);
  checker.record("cross_entropy", {{logits, dlogits}}, forward);
  Floats fused = logits, fused_losses(kDims.rows);
  tensor::cross_entropy_forward_backward(fused_losses.data(), fused.data(), targets, kDims, 1.0f);
  forward();
  TH_CHECK(fused_losses == losses);
  checker.record("cross_entropy_fused", {{logits, fused}}, forward);
}

ModelConfig small(Family family, bool tied) {
  const bool is_llama = family == Family::kLlama;
  return {.family = family,
          .vocab_size = 13,
          .hidden_size = is_llama ? 12 : 16,
          .intermediate_size = 20,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = is_llama ? 2 : 4,
          .head_dim = 4,
          .max_position_embeddings = 8,
          .tie_word_embeddings = tied};
}

void check_model(Checker& checker, const char* name, const ModelConfig& config, Recompute recompute) {
  constexpr int64_t kBatch = 2, kTime = 5;
  auto model =
      Decoder<float>::create(config, {.max_batch = kBatch, .max_time = kTime, .recompute = recompute});
  TH_CHECK(model.has_value());
  const ParameterLayout& layout = model->layout();
  // Weights that make gradients of about the same size everywhere, and no norm of nearly nothing.
  Floats params = checker.random(layout.size, 0.3);
  const Floats embedding = checker.random(config.vocab_size * config.hidden_size);
  std::ranges::copy(embedding, params.begin() + layout.embedding);
  for (const Parameter& p : layout.parameters) {
    if (p.shape.size() > 1 || p.name.ends_with("bias")) continue;
    for (float& norm : std::span(params).subspan(static_cast<size_t>(p.offset), static_cast<size_t>(p.size)))
      norm += 1;
  }
  const std::vector<int32_t> tokens = checker.random_tokens(kBatch * kTime, config.vocab_size);
  std::vector<int32_t> targets = checker.random_tokens(kBatch * kTime, config.vocab_size);
  targets[3] = tensor::kIgnoreTarget;
  Floats grads = zeros(params);
  FlatParameters<float> store(layout, params, grads);
  const Decoder<float>::Batch batch{tokens, targets, kBatch, kTime};
  const auto forward = [&]() -> double { return model->loss(store, batch).value(); };
  TH_CHECK(model->loss_and_gradients(store, batch).value() == static_cast<float>(forward()));
  double worst = 0;
  for (const Parameter& p : layout.parameters) {
    const auto offset = static_cast<size_t>(p.offset), size = static_cast<size_t>(p.size);
    worst = std::max(
        worst, worst_error({std::span(params).subspan(offset, size), std::span(grads).subspan(offset, size)},
                           forward));
  }
  checker.errors.push_back({name, worst});
}

}  // namespace

std::vector<GradientError> check_gradients(uint64_t seed) {
  Checker checker(seed);
  check_matmul(checker, "matmul", {.rows = 7, .in = 18, .out = 11});
  check_matmul(checker, "matmul_few_rows", {.rows = 3, .in = 18, .out = 11});
  check_rmsnorm(checker);
  check_rope(checker);
  check_swiglu(checker);
  check_layernorm(checker);
  check_gelu(checker);
  check_bias(checker);
  check_embedding(checker);
  check_attention(checker, "attention",
                  {.batch = 2, .time = 5, .heads = 2, .kv_heads = 2, .head_dim = 4, .stride = 0});
  check_attention(checker, "attention_grouped",
                  {.batch = 1, .time = 70, .heads = 4, .kv_heads = 2, .head_dim = 2, .stride = 0});
  check_cross_entropy(checker);
  check_model(checker, "llama", small(Family::kLlama, false), Recompute::kNone);
  check_model(checker, "llama_tied", small(Family::kLlama, true), Recompute::kSelective);
  check_model(checker, "llama_recomputed", small(Family::kLlama, true), Recompute::kFull);
  check_model(checker, "gpt2", small(Family::kGpt2, true), Recompute::kNone);
  check_model(checker, "gpt2_recomputed", small(Family::kGpt2, true), Recompute::kFull);
  return checker.errors;
}

}  // namespace th::model
