#include "model/llama.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "base/units.h"
#include "tensor/cpu/attention.h"
#include "tensor/cpu/layers.h"
#include "tensor/cpu/loss.h"
#include "tensor/cpu/matmul.h"

namespace th::model {
namespace {

using tensor::MatmulDims;
using tensor::RowDims;
using tensor::Write;
using Buffer = std::unique_ptr<float[]>;

// Widths of a row of the activations.
struct Widths {
  int64_t hidden, inner, queries, keys, qkv;
  explicit Widths(const LlamaConfig& c)
      : hidden(c.hidden_size),
        inner(c.intermediate_size),
        queries(c.num_attention_heads * c.head_dim),
        keys(c.num_key_value_heads * c.head_dim),
        qkv(queries + 2 * keys) {}
};

// What the backward cannot cheaply make again.
struct LayerActivations {
  Buffer qkv;       // (B,T, q+k+v) after the rotation
  Buffer lse;       // (B,heads,T)
  Buffer attended;  // (B,T, queries)
  Buffer x_mid;     // (B,T, hidden) residual stream between attention and MLP
  Buffer gate_up;   // (B,T, 2·inner); becomes its own gradient
};

}  // namespace

struct Llama::State {
  State(const LlamaConfig& config_in, const Limits& limits_in)
      : config(config_in),
        limits(limits_in),
        width(config),
        layout(config),
        rope({.max_positions = limits.max_time, .head_dim = config.head_dim, .theta = config.rope_theta}) {}

  LlamaConfig config;
  Limits limits;
  Widths width;
  ParameterLayout layout;
  tensor::RopeTable rope;
  int64_t bytes = 0;

  std::vector<Buffer> x;  // residual stream into each layer, and out of the last; (B,T, hidden) each
  std::vector<LayerActivations> layers;
  Buffer rstd, normed, activated;               // forward scratch, made again in the backward
  Buffer dx, dnormed, dattended, dqkv, dinner;  // backward scratch
  Buffer logits, losses, lse;
  int64_t logit_rows = 0;  // rows of logits at a time

  // The last forward.
  std::vector<int32_t> tokens, targets, positions;
  int64_t batch = 0, time = 0;
  int64_t counted = 0;  // targets that take part in the loss
  bool ready_for_backward = false;

  int64_t rows() const { return batch * time; }
  RowDims hidden_rows() const { return {rows(), width.hidden}; }
  float eps() const { return static_cast<float>(config.rms_norm_eps); }
  tensor::AttentionDims attention() const {
    return {.batch = batch,
            .time = time,
            .heads = config.num_attention_heads,
            .kv_heads = config.num_key_value_heads,
            .head_dim = config.head_dim,
            .stride = width.qkv};
  }
  MatmulDims product(int64_t in, int64_t out) const { return {rows(), in, out}; }
  // Rows [first, first + count) of the head's work.
  struct Chunk {
    int64_t first, count;
  };
  template <class Body>
  void each_chunk(const Body& body) const {
    for (int64_t first = 0; first < rows(); first += logit_rows)
      body(Chunk{first, std::min(logit_rows, rows() - first)});
  }
  std::span<const int32_t> targets_of(Chunk chunk) const {
    return std::span(targets).subspan(static_cast<size_t>(chunk.first), static_cast<size_t>(chunk.count));
  }

  Buffer allocate(int64_t floats) {
    bytes += floats * static_cast<int64_t>(sizeof(float));
    return std::make_unique_for_overwrite<float[]>(static_cast<size_t>(floats));
  }
  void allocate_all();
  Status accept(const Batch& input);
  void forward_layer(const float* params, size_t index);
  void forward_logits(const float* params, Chunk chunk);
  double forward_head(const float* params);
  void backward_head(const float* params, float* grads, float scale);
  void backward_mlp(const float* params, float* grads, size_t index);
  void backward_attention(const float* params, float* grads, size_t index);
  void turn(float* qkv, bool forward);
};

void Llama::State::allocate_all() {
  const int64_t n = limits.max_batch * limits.max_time;
  for (int64_t i = 0; i <= config.num_hidden_layers; ++i) x.push_back(allocate(n * width.hidden));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers.push_back({.qkv = allocate(n * width.qkv),
                      .lse = allocate(n * config.num_attention_heads),
                      .attended = allocate(n * width.queries),
                      .x_mid = allocate(n * width.hidden),
                      .gate_up = allocate(n * 2 * width.inner)});
  }
  rstd = allocate(n);
  normed = allocate(n * width.hidden);
  activated = allocate(n * width.inner);
  dx = allocate(n * width.hidden);
  dnormed = allocate(n * width.hidden);
  dattended = allocate(n * width.queries);
  dqkv = allocate(n * width.qkv);
  dinner = allocate(n * width.inner);
  logit_rows = std::clamp<int64_t>(limits.max_logit_floats / config.vocab_size, 1, n);
  logits = allocate(logit_rows * config.vocab_size);
  losses = allocate(n);
  lse = allocate(n);
}

// Copies the batch, once it is sound.
Status Llama::State::accept(const Batch& input) {
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
  for (size_t i = 0; i < n; ++i) positions[i] = static_cast<int32_t>(i % static_cast<size_t>(time));
  return {};
}

// Rotates q and k of [q|k|v] rows, or rotates their gradients back: q and k heads are neighbours.
void Llama::State::turn(float* qkv, bool forward) {
  const tensor::RopeDims dims{.heads = config.num_attention_heads + config.num_key_value_heads,
                              .stride = width.qkv};
  forward ? tensor::rope_forward(qkv, rope, positions, dims)
          : tensor::rope_backward(qkv, rope, positions, dims);
}

void Llama::State::forward_layer(const float* params, size_t index) {
  const ParameterLayout::Layer& at = layout.layers[index];
  LayerActivations& act = layers[index];
  const int64_t floats = rows() * width.hidden;

  tensor::rmsnorm_forward(normed.get(), nullptr, x[index].get(), params + at.norm_in, hidden_rows(), eps());
  tensor::matmul_forward(act.qkv.get(), normed.get(), params + at.qkv, product(width.hidden, width.qkv));
  turn(act.qkv.get(), true);
  const float* q = act.qkv.get();
  const float* k = q + width.queries;
  tensor::attention_forward(act.attended.get(), act.lse.get(), q, k, k + width.keys, attention());
  std::copy_n(x[index].get(), floats, act.x_mid.get());
  tensor::matmul_forward(act.x_mid.get(), act.attended.get(), params + at.o,
                         product(width.queries, width.hidden), Write::kAdd);

  tensor::rmsnorm_forward(normed.get(), nullptr, act.x_mid.get(), params + at.norm_mid, hidden_rows(), eps());
  tensor::matmul_forward(act.gate_up.get(), normed.get(), params + at.gate_up,
                         product(width.hidden, 2 * width.inner));
  tensor::swiglu_forward(activated.get(), act.gate_up.get(), {rows(), width.inner});
  std::copy_n(act.x_mid.get(), floats, x[index + 1].get());
  tensor::matmul_forward(x[index + 1].get(), activated.get(), params + at.down,
                         product(width.inner, width.hidden), Write::kAdd);
}

void Llama::State::forward_logits(const float* params, Chunk chunk) {
  tensor::matmul_forward(logits.get(), normed.get() + chunk.first * width.hidden, params + layout.lm_head,
                         {chunk.count, width.hidden, config.vocab_size});
}

// The sum of the losses.
double Llama::State::forward_head(const float* params) {
  tensor::rmsnorm_forward(normed.get(), nullptr, x.back().get(), params + layout.norm_out, hidden_rows(),
                          eps());
  each_chunk([&](Chunk chunk) {
    forward_logits(params, chunk);
    tensor::cross_entropy_forward(losses.get() + chunk.first, lse.get() + chunk.first, logits.get(),
                                  targets_of(chunk), {chunk.count, config.vocab_size});
  });
  double sum = 0;
  for (int64_t i = 0; i < rows(); ++i) sum += static_cast<double>(losses[static_cast<size_t>(i)]);
  return sum;
}

// Leaves the gradient of the residual stream in dx.
void Llama::State::backward_head(const float* params, float* grads, float scale) {
  tensor::rmsnorm_forward(normed.get(), rstd.get(), x.back().get(), params + layout.norm_out, hidden_rows(),
                          eps());
  const bool kept = rows() <= logit_rows;
  each_chunk([&](Chunk chunk) {
    if (!kept) forward_logits(params, chunk);
    tensor::cross_entropy_backward(logits.get(), lse.get() + chunk.first, targets_of(chunk),
                                   {chunk.count, config.vocab_size}, scale);
    const MatmulDims dims{chunk.count, width.hidden, config.vocab_size};
    const int64_t first = chunk.first * width.hidden;
    tensor::matmul_backward_weight(grads + layout.lm_head, logits.get(), normed.get() + first, dims);
    tensor::matmul_backward_input(dnormed.get() + first, logits.get(), params + layout.lm_head, dims);
  });
  std::fill_n(dx.get(), rows() * width.hidden, 0.0f);
  tensor::rmsnorm_backward(dx.get(), grads + layout.norm_out, dnormed.get(), x.back().get(),
                           params + layout.norm_out, rstd.get(), hidden_rows());
}

void Llama::State::backward_mlp(const float* params, float* grads, size_t index) {
  const ParameterLayout::Layer& at = layout.layers[index];
  LayerActivations& act = layers[index];
  const MatmulDims down = product(width.inner, width.hidden);
  const MatmulDims gate_up = product(width.hidden, 2 * width.inner);
  const RowDims inner_rows{rows(), width.inner};

  tensor::swiglu_forward(activated.get(), act.gate_up.get(), inner_rows);
  tensor::matmul_backward_weight(grads + at.down, dx.get(), activated.get(), down);
  tensor::matmul_backward_input(dinner.get(), dx.get(), params + at.down, down);
  tensor::swiglu_backward(act.gate_up.get(), dinner.get(), act.gate_up.get(), inner_rows);
  tensor::rmsnorm_forward(normed.get(), rstd.get(), act.x_mid.get(), params + at.norm_mid, hidden_rows(),
                          eps());
  tensor::matmul_backward_weight(grads + at.gate_up, act.gate_up.get(), normed.get(), gate_up);
  tensor::matmul_backward_input(dnormed.get(), act.gate_up.get(), params + at.gate_up, gate_up);
  tensor::rmsnorm_backward(dx.get(), grads + at.norm_mid, dnormed.get(), act.x_mid.get(),
                           params + at.norm_mid, rstd.get(), hidden_rows());
}

void Llama::State::backward_attention(const float* params, float* grads, size_t index) {
  const ParameterLayout::Layer& at = layout.layers[index];
  LayerActivations& act = layers[index];
  const MatmulDims o = product(width.queries, width.hidden);
  const MatmulDims qkv = product(width.hidden, width.qkv);

  tensor::matmul_backward_weight(grads + at.o, dx.get(), act.attended.get(), o);
  tensor::matmul_backward_input(dattended.get(), dx.get(), params + at.o, o);
  const float* q = act.qkv.get();
  const float* k = q + width.queries;
  float* dq = dqkv.get();
  float* dk = dq + width.queries;
  tensor::attention_backward(
      {.dq = dq, .dk = dk, .dv = dk + width.keys}, dattended.get(),
      {.q = q, .k = k, .v = k + width.keys, .out = act.attended.get(), .lse = act.lse.get()}, attention());
  turn(dqkv.get(), false);
  tensor::rmsnorm_forward(normed.get(), rstd.get(), x[index].get(), params + at.norm_in, hidden_rows(),
                          eps());
  tensor::matmul_backward_weight(grads + at.qkv, dqkv.get(), normed.get(), qkv);
  tensor::matmul_backward_input(dnormed.get(), dqkv.get(), params + at.qkv, qkv);
  tensor::rmsnorm_backward(dx.get(), grads + at.norm_in, dnormed.get(), x[index].get(), params + at.norm_in,
                           rstd.get(), hidden_rows());
}

Result<Llama> Llama::create(const LlamaConfig& config, const Limits& limits) {
  TH_RETURN_IF_ERROR(check_llama_config(config));
  constexpr int64_t kMaxRows = int64_t{1} << 24;
  if (limits.max_batch < 1 || limits.max_time < 1 || limits.max_time > config.max_position_embeddings ||
      limits.max_batch > kMaxRows / limits.max_time) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("model: {} sequences of {} tokens, want at least 1 of each, sequences of at most {} "
                    "tokens (max_position_embeddings) and {} tokens in all",
                    limits.max_batch, limits.max_time, config.max_position_embeddings, kMaxRows));
  }
  std::unique_ptr<State> state;
  try {
    state = std::make_unique<State>(config, limits);
    state->allocate_all();
  } catch (const std::bad_alloc&) {
    return fail(
        Code::kResourceExhausted,
        fmt::format(
            "model: no memory for the activations of {} sequences of {} tokens ({} allocated before it "
            "ran out); use a smaller batch",
            limits.max_batch, limits.max_time, format_bytes(state ? state->bytes : 0)));
  }
  return Llama(std::move(state));
}

Llama::Llama(std::unique_ptr<State> state) : state_(std::move(state)) {}
Llama::Llama(Llama&&) noexcept = default;
Llama& Llama::operator=(Llama&&) noexcept = default;
Llama::~Llama() = default;

const LlamaConfig& Llama::config() const { return state_->config; }
const ParameterLayout& Llama::layout() const { return state_->layout; }
int64_t Llama::activation_bytes() const { return state_->bytes; }

Result<float> Llama::forward(std::span<const float> params, const Batch& batch) {
  State& s = *state_;
  TH_CHECK(static_cast<int64_t>(params.size()) == s.layout.size);
  s.ready_for_backward = false;
  TH_RETURN_IF_ERROR(s.accept(batch));
  tensor::embedding_forward(s.x[0].get(), s.tokens, params.data() + s.layout.embedding, s.width.hidden);
  for (size_t i = 0; i < s.layers.size(); ++i) s.forward_layer(params.data(), i);
  const double sum = s.forward_head(params.data());
  s.ready_for_backward = true;
  return s.counted == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(s.counted));
}

void Llama::backward(std::span<const float> params, std::span<float> grads, float scale) {
  State& s = *state_;
  TH_CHECK(s.ready_for_backward && params.size() == grads.size());
  TH_CHECK(static_cast<int64_t>(params.size()) == s.layout.size);
  s.ready_for_backward = false;
  if (s.counted == 0) return;
  s.backward_head(params.data(), grads.data(), scale / static_cast<float>(s.counted));
  for (size_t i = s.layers.size(); i-- > 0;) {
    s.backward_mlp(params.data(), grads.data(), i);
    s.backward_attention(params.data(), grads.data(), i);
  }
  tensor::embedding_backward(grads.data() + s.layout.embedding, s.dx.get(), s.tokens, s.width.hidden);
}

}  // namespace th::model
