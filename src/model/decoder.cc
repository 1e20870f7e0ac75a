#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <optional>

#include "base/units.h"
#include "model/activations.h"
#include "model/unit_weights.h"
#include "tensor/cpu/attention.h"
#include "tensor/cpu/gpt2_layers.h"
#include "tensor/cpu/layers.h"
#include "tensor/cpu/loss.h"
#include "tensor/cpu/matmul.h"

namespace th::model {
namespace {

using tensor::MatmulDims;
using tensor::RowDims;
using tensor::Write;

}  // namespace

template <class T>
struct Decoder<T>::State {
  State(const ModelConfig& config_in, const Limits& limits_in)
      : config(config_in), limits(limits_in), width(config), layout(config), act(config, limits) {
    if (!is_gpt2())
      rope.emplace(tensor::RopeTable::Options{limits.max_time, config.head_dim, config.rope_theta});
  }

  ModelConfig config;
  Limits limits;
  Widths width;
  ParameterLayout layout;
  Activations act;
  std::optional<tensor::RopeTable> rope;

  // The batch at hand.
  std::vector<int32_t> tokens, targets, positions;
  int64_t batch = 0, time = 0;
  int64_t counted = 0;  // targets that take part in the loss

  using Weights = UnitWeights<T>;
  using Gradients = UnitGradients<T>;

  bool is_gpt2() const { return config.family == Family::kGpt2; }
  int64_t rows() const { return batch * time; }
  RowDims hidden_rows() const { return {rows(), width.hidden}; }
  RowDims inner_rows() const { return {rows(), width.inner}; }
  float eps() const { return static_cast<float>(config.norm_eps); }
  tensor::AttentionDims attention() const {
    return {.batch = batch,
            .time = time,
            .heads = config.num_attention_heads,
            .kv_heads = config.num_key_value_heads,
            .head_dim = config.head_dim,
            .stride = width.qkv};
  }
  MatmulDims product(int64_t in, int64_t out) const { return {rows(), in, out}; }
  const Unit& unit(size_t index) const { return layout.units[index]; }

  Status accept(const Batch& input);
  Result<float> run(Parameters<T>& parameters, const Batch& input, const float* scale);

  /// A norm's weight and, for GPT-2, bias.
  struct Norm {
    int64_t weight, bias;
  };
  void norm(const float* inp, const Weights& w, Norm at, bool keep = true);
  void norm_backward(const float* inp, const Weights& w, Gradients& g, Norm at);
  /// out = base + inp · weightᵀ + bias; base may be null.
  struct Linear {
    int64_t weight, bias, in, out;
  };
  void linear(float* out, const float* base, const float* inp, const Weights& w, const Linear& at);
  void linear_backward(float* dinp, const float* dout, const float* inp, const Weights& w, Gradients& g,
                       const Linear& at);
  Linear qkv(size_t i) const {
    return {layout.layers[i].qkv, layout.layers[i].qkv_bias, width.hidden, width.qkv};
  }
  Linear o(size_t i) const {
    return {layout.layers[i].o, layout.layers[i].o_bias, width.queries, width.hidden};
  }
  Linear up(size_t i) const {
    return {layout.layers[i].gate_up, layout.layers[i].up_bias, width.hidden, width.up};
  }
  Linear down(size_t i) const {
    return {layout.layers[i].down, layout.layers[i].down_bias, width.inner, width.hidden};
  }
  Norm norm_in(size_t i) const { return {layout.layers[i].norm_in, layout.layers[i].norm_in_bias}; }
  Norm norm_mid(size_t i) const { return {layout.layers[i].norm_mid, layout.layers[i].norm_mid_bias}; }
  Norm norm_out() const { return {layout.norm_out, layout.norm_out_bias}; }

  void embed(const Weights& outer);
  void embed_backward(Gradients& outer);
  void attend(size_t i);
  void activate(size_t i);
  void turn(float* rows_of_qkv, bool forward);
  void forward_layer(const Weights& w, size_t i, bool whole);
  double head(const Weights& outer, Gradients* gradients, float scale);
  void backward_mlp(const Weights& w, Gradients& g, size_t i);
  void backward_attention(const Weights& w, Gradients& g, size_t i);
  void backward_layer(const Weights& w, Gradients& g, size_t i);
};

// Copies the batch, once it is sound.
template <class T>
Status Decoder<T>::State::accept(const Batch& input) {
  if (input.batch < 1 || input.batch > limits.max_batch || input.time < 1 || input.time > limits.max_time) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("batch: {} sequences of {} tokens, want at most {} of {} (the limits given to create)",
                    input.batch, input.time, limits.max_batch, limits.max_time));
  }
  const auto n = static_cast<size_t>(input.batch * input.time);
  if (input.tokens.size() != n || input.targets.size() != n) {
    return fail(Code::kInvalidArgument, fmt::format("batch: {} tokens and {} targets, want {} of each",
                                                    input.tokens.size(), input.targets.size(), n));
  }
  counted = 0;
  for (size_t i = 0; i < n; ++i) {
    const bool token_ok = input.tokens[i] >= 0 && input.tokens[i] < config.vocab_size;
    if (!token_ok || input.targets[i] < tensor::kIgnoreTarget || input.targets[i] >= config.vocab_size) {
      return fail(Code::kInvalidArgument,
                  fmt::format("batch: {} {} at place {} is outside of the vocabulary of {}",
                              token_ok ? "target" : "token", token_ok ? input.targets[i] : input.tokens[i], i,
                              config.vocab_size));
    }
    counted += input.targets[i] != tensor::kIgnoreTarget;
  }
  batch = input.batch;
  time = input.time;
  tokens.assign(input.tokens.begin(), input.tokens.end());
  targets.assign(input.targets.begin(), input.targets.end());
  positions.resize(n);
  for (size_t i = 0; i < n; ++i) positions[i] = static_cast<int32_t>(static_cast<int64_t>(i) % time);
  return {};
}

template <class T>
void Decoder<T>::State::norm(const float* inp, const Weights& w, Norm at, bool keep) {
  if (is_gpt2()) {
    tensor::layernorm_forward(
        act.normed,
        keep ? tensor::LayerNormSaved{act.mean, act.rstd} : tensor::LayerNormSaved{nullptr, nullptr}, inp,
        {w.vector(at.weight), w.vector(at.bias)}, hidden_rows(), eps());
  } else {
    tensor::rmsnorm_forward(act.normed, keep ? act.rstd : nullptr, inp, w.vector(at.weight), hidden_rows(),
                            eps());
  }
}

/// Adds to dx from dnormed; the norm itself was made again just before.
template <class T>
void Decoder<T>::State::norm_backward(const float* inp, const Weights& w, Gradients& g, Norm at) {
  if (is_gpt2()) {
    tensor::layernorm_backward({act.dx, g.vector(at.weight), g.vector(at.bias)}, act.dnormed, inp,
                               w.vector(at.weight), {act.mean, act.rstd}, hidden_rows());
  } else {
    tensor::rmsnorm_backward(act.dx, g.vector(at.weight), act.dnormed, inp, w.vector(at.weight), act.rstd,
                             hidden_rows());
  }
}

template <class T>
void Decoder<T>::State::linear(float* out, const float* base, const float* inp, const Weights& w,
                               const Linear& at) {
  Write write = Write::kAdd;
  if (is_gpt2()) {
    tensor::bias_forward(out, base, w.vector(at.bias), {rows(), at.out});
  } else if (base != nullptr) {
    std::copy_n(base, rows() * at.out, out);
  } else {
    write = Write::kReplace;
  }
  tensor::matmul_forward(out, inp, w.matrix(at.weight), product(at.in, at.out), write);
}

template <class T>
void Decoder<T>::State::linear_backward(float* dinp, const float* dout, const float* inp, const Weights& w,
                                        Gradients& g, const Linear& at) {
  if (is_gpt2()) tensor::bias_backward(g.vector(at.bias), dout, {rows(), at.out});
  if (g.is_wanted())
    tensor::matmul_backward_weight(g.matrix(at.weight), dout, inp, product(at.in, at.out), g.write());
  tensor::matmul_backward_input(dinp, dout, w.matrix(at.weight), product(at.in, at.out));
}

template <class T>
void Decoder<T>::State::embed(const Weights& outer) {
  tensor::embedding_forward(act.x[0], tokens, outer.matrix(layout.embedding), width.hidden);
  if (is_gpt2()) tensor::embedding_add(act.x[0], positions, outer.matrix(layout.positions), width.hidden);
}

template <class T>
void Decoder<T>::State::embed_backward(Gradients& outer) {
  if (!outer.is_wanted()) return;
  const auto clear = [&](int64_t offset, int64_t size) {
    if (outer.write() == Write::kReplace) std::fill_n(outer.matrix(offset), size, T{});
  };
  if (layout.lm_head != layout.embedding) clear(layout.embedding, config.vocab_size * width.hidden);
  tensor::embedding_backward(outer.matrix(layout.embedding), act.dx, tokens, width.hidden);
  if (!is_gpt2()) return;
  clear(layout.positions, config.max_position_embeddings * width.hidden);
  tensor::embedding_backward(outer.matrix(layout.positions), act.dx, positions, width.hidden);
}

template <class T>
void Decoder<T>::State::turn(float* rows_of_qkv, bool forward) {
  if (!rope) return;
  const auto rotate = forward ? tensor::rope_forward : tensor::rope_backward;
  rotate(rows_of_qkv, *rope, positions, {config.num_attention_heads, width.qkv});
  rotate(rows_of_qkv + width.queries, *rope, positions, {config.num_key_value_heads, width.qkv});
}

template <class T>
void Decoder<T>::State::attend(size_t i) {
  const LayerActivations& a = act.layers[i];
  const float *q = a.qkv, *k = q + width.queries;
  tensor::attention_forward(a.attended, a.lse, q, k, k + width.keys, attention());
}

template <class T>
void Decoder<T>::State::activate(size_t i) {
  const float* inp = act.layers[i].up;
  (is_gpt2() ? tensor::gelu_forward : tensor::swiglu_forward)(act.activated, inp, inner_rows());
}

/// Not `whole`: only what the backward wants and was not kept, so without the last product.
template <class T>
void Decoder<T>::State::forward_layer(const Weights& w, size_t i, bool whole) {
  const LayerActivations& a = act.layers[i];
  norm(act.x[i], w, norm_in(i), false);
  linear(a.qkv, nullptr, act.normed, w, qkv(i));
  turn(a.qkv, true);
  attend(i);
  linear(a.x_mid, act.x[i], a.attended, w, o(i));
  norm(a.x_mid, w, norm_mid(i), false);
  linear(a.up, nullptr, act.normed, w, up(i));
  if (!whole) return;
  activate(i);
  linear(act.x[i + 1], a.x_mid, act.activated, w, down(i));
}

/// The sum of the losses; with gradients also those of the head, and of the residual stream in dx.
template <class T>
double Decoder<T>::State::head(const Weights& outer, Gradients* gradients, float scale) {
  norm(act.x.back(), outer, norm_out());
  const T* weight = outer.matrix(layout.lm_head);
  for (int64_t first = 0; first < rows(); first += act.logit_rows) {
    const int64_t count = std::min(act.logit_rows, rows() - first);
    const MatmulDims dims{count, width.hidden, config.vocab_size};
    const RowDims logit_rows{count, config.vocab_size};
    const float* normed = act.normed + first * width.hidden;
    const auto wanted = std::span(targets).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    tensor::matmul_forward(act.logits, normed, weight, dims);
    if (gradients == nullptr) {
      tensor::cross_entropy_forward(act.losses + first, act.lse + first, act.logits, wanted, logit_rows);
      continue;
    }
    tensor::cross_entropy_forward_backward(act.losses + first, act.logits, wanted, logit_rows, scale);
    if (gradients->is_wanted())
      tensor::matmul_backward_weight(gradients->matrix(layout.lm_head), act.logits, normed, dims,
                                     first == 0 ? gradients->write() : Write::kAdd);
    tensor::matmul_backward_input(act.dnormed + first * width.hidden, act.logits, weight, dims);
  }
  double sum = 0;
  for (int64_t i = 0; i < rows(); ++i) sum += static_cast<double>(act.losses[i]);
  if (gradients != nullptr) {
    std::fill_n(act.dx, rows() * width.hidden, 0.0f);
    norm_backward(act.x.back(), outer, *gradients, norm_out());
  }
  return sum;
}

template <class T>
void Decoder<T>::State::backward_mlp(const Weights& w, Gradients& g, size_t i) {
  const LayerActivations& a = act.layers[i];
  activate(i);
  linear_backward(act.dactivated, act.dx, act.activated, w, g, down(i));
  (is_gpt2() ? tensor::gelu_backward : tensor::swiglu_backward)(a.up, act.dactivated, a.up, inner_rows());
  norm(a.x_mid, w, norm_mid(i));
  linear_backward(act.dnormed, a.up, act.normed, w, g, up(i));
  norm_backward(a.x_mid, w, g, norm_mid(i));
}

template <class T>
void Decoder<T>::State::backward_attention(const Weights& w, Gradients& g, size_t i) {
  const LayerActivations& a = act.layers[i];
  if (limits.recompute == Recompute::kSelective) attend(i);
  linear_backward(act.dattended, act.dx, a.attended, w, g, o(i));
  const float *q = a.qkv, *k = q + width.queries;
  float *dq = act.dqkv, *dk = dq + width.queries;
  tensor::attention_backward({.dq = dq, .dk = dk, .dv = dk + width.keys}, act.dattended,
                             {.q = q, .k = k, .v = k + width.keys, .out = a.attended, .lse = a.lse},
                             attention());
  turn(act.dqkv, false);
  norm(act.x[i], w, norm_in(i));
  linear_backward(act.dnormed, act.dqkv, act.normed, w, g, qkv(i));
  norm_backward(act.x[i], w, g, norm_in(i));
}

template <class T>
void Decoder<T>::State::backward_layer(const Weights& w, Gradients& g, size_t i) {
  // The last layer's are still there.
  if (limits.recompute == Recompute::kFull && i + 1 < act.layers.size()) forward_layer(w, i, false);
  backward_mlp(w, g, i);
  backward_attention(w, g, i);
}

template <class T>
Result<float> Decoder<T>::State::run(Parameters<T>& parameters, const Batch& input, const float* scale) {
  TH_RETURN_IF_ERROR(accept(input));
  const size_t count = layout.layers.size();
  TH_TRY(const T* outer_values, parameters.acquire(0));
  const Weights outer(outer_values, unit(0));
  embed(outer);
  for (size_t i = 0; i < count; ++i) {
    TH_TRY(const T* values, parameters.acquire(static_cast<int>(i) + 1));
    forward_layer(Weights(values, unit(i + 1)), i, true);
    parameters.release(static_cast<int>(i) + 1);
  }
  const float each = counted == 0 ? 0.0f : 1.0f / static_cast<float>(counted);
  if (scale == nullptr) {
    const double sum = head(outer, nullptr, 0);
    parameters.release(0);
    return static_cast<float>(sum * each);
  }
  TH_TRY(const auto outer_to, parameters.gradients(0));
  Gradients outer_gradients(outer_to, unit(0));
  const double sum = head(outer, &outer_gradients, *scale * each);
  for (size_t i = count; i-- > 0;) {
    const int index = static_cast<int>(i) + 1;
    TH_TRY(const T* values, parameters.acquire(index));
    TH_TRY(const auto to, parameters.gradients(index));
    Gradients gradients(to, unit(i + 1));
    backward_layer(Weights(values, unit(i + 1)), gradients, i);
    parameters.release(index);
    gradients.end();
    TH_RETURN_IF_ERROR(parameters.finish(index));
  }
  embed_backward(outer_gradients);
  outer_gradients.end();
  parameters.release(0);
  TH_RETURN_IF_ERROR(parameters.finish(0));
  return static_cast<float>(sum * each);
}

template <class T>
Result<Decoder<T>> Decoder<T>::create(const ModelConfig& config, const Limits& limits) {
  TH_RETURN_IF_ERROR(check_model_config(config));
  constexpr int64_t kMaxRows = int64_t{1} << 24;
  if (limits.max_batch < 1 || limits.max_time < 1 || limits.max_time > config.max_position_embeddings ||
      limits.max_batch > kMaxRows / limits.max_time) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("model: {} sequences of {} tokens, want at least 1 of each, sequences of at most {} "
                    "tokens (max_position_embeddings) and {} tokens in all",
                    limits.max_batch, limits.max_time, config.max_position_embeddings, kMaxRows));
  }
  try {
    return Decoder(std::make_unique<State>(config, limits));
  } catch (const std::bad_alloc&) {
    return fail(
        Code::kResourceExhausted,
        fmt::format("model: no memory for the activations of {} sequences of {} tokens; use a smaller "
                    "batch, or recompute more",
                    limits.max_batch, limits.max_time));
  }
}

template <class T>
Decoder<T>::Decoder(std::unique_ptr<State> state) : state_(std::move(state)) {}
template <class T>
Decoder<T>::Decoder(Decoder&&) noexcept = default;
template <class T>
Decoder<T>& Decoder<T>::operator=(Decoder&&) noexcept = default;
template <class T>
Decoder<T>::~Decoder() = default;

template <class T>
const ModelConfig& Decoder<T>::config() const {
  return state_->config;
}
template <class T>
const ParameterLayout& Decoder<T>::layout() const {
  return state_->layout;
}
template <class T>
int64_t Decoder<T>::activation_bytes() const {
  return state_->act.bytes;
}

template <class T>
Result<float> Decoder<T>::loss(Parameters<T>& parameters, const Batch& batch) {
  return state_->run(parameters, batch, nullptr);
}
template <class T>
Result<float> Decoder<T>::loss_and_gradients(Parameters<T>& parameters, const Batch& batch, float scale) {
  return state_->run(parameters, batch, &scale);
}

template class Decoder<float>;
template class Decoder<Bf16>;

}  // namespace th::model
