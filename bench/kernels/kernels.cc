// Speed of oneDNN's products and of a whole training step that uses them, as one line of JSON. Arguments:
// none; threads by OMP_NUM_THREADS.

#include <omp.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/json.h"
#include "base/units.h"
#include "model/decoder.h"
#include "tensor/cpu/matmul.h"
#include "tensor/cpu/optimizer.h"

namespace th {
namespace {

constexpr int64_t kBatch = 8, kTime = 128;
constexpr int kRepeats = 5;

/// The best of a few runs, in seconds.
template <class Body>
double best_seconds(const Body& body) {
  body();
  int64_t best = INT64_MAX;
  for (int i = 0; i < kRepeats; ++i) {
    const int64_t start = Env::real().monotonic_ns();
    body();
    best = std::min(best, Env::real().monotonic_ns() - start);
  }
  return static_cast<double>(best) / kSecond;
}

Json measure_products(tensor::MatmulDims dims) {
  std::vector<float> inp(static_cast<size_t>(dims.rows * dims.in), 1.0f);
  std::vector<float> weight(static_cast<size_t>(dims.out * dims.in), 0.5f);
  std::vector<float> out(static_cast<size_t>(dims.rows * dims.out));
  const double gflop = 2e-9 * static_cast<double>(dims.rows * dims.in * dims.out);
  const double forward =
      best_seconds([&] { tensor::matmul_forward(out.data(), inp.data(), weight.data(), dims); });
  const double input =
      best_seconds([&] { tensor::matmul_backward_input(inp.data(), out.data(), weight.data(), dims); });
  const double weights =
      best_seconds([&] { tensor::matmul_backward_weight(weight.data(), out.data(), inp.data(), dims); });
  return {{"rows", dims.rows},
          {"in", dims.in},
          {"out", dims.out},
          {"forward_gflop_per_s", gflop / forward},
          {"backward_input_gflop_per_s", gflop / input},
          {"backward_weight_gflop_per_s", gflop / weights}};
}

Json measure_step() {
  const model::ModelConfig config{.vocab_size = 2048,
                                  .hidden_size = 256,
                                  .intermediate_size = 704,
                                  .num_hidden_layers = 4,
                                  .num_attention_heads = 8,
                                  .num_key_value_heads = 4,
                                  .head_dim = 32,
                                  .max_position_embeddings = kTime,
                                  .tie_word_embeddings = true};
  auto llama = model::Decoder<float>::create(config, {.max_batch = kBatch, .max_time = kTime});
  TH_CHECK(llama.has_value());
  const auto size = static_cast<size_t>(llama->layout().size);
  std::vector<float> params(size), grads(size), m(size), v(size);
  model::init_parameters(params, 0, llama->layout(), 1);
  model::FlatParameters<float> weights(llama->layout(), params, grads);
  std::vector<int32_t> tokens(kBatch * kTime);
  Prng prng(2);
  for (int32_t& token : tokens) token = static_cast<int32_t>(prng.below(2048));
  const model::Decoder<float>::Batch batch{
      .tokens = tokens, .targets = tokens, .batch = kBatch, .time = kTime};

  const double forward = best_seconds([&] { TH_CHECK(llama->loss(weights, batch).has_value()); });
  const double both = best_seconds([&] { TH_CHECK(llama->loss_and_gradients(weights, batch).has_value()); });
  const double update = best_seconds([&] {
    tensor::adamw_update(params, grads, {m, v}, {.learning_rate = 1e-4f, .step = 1});
  });
  const double tokens_per_s = static_cast<double>(kBatch * kTime) / (both + update);
  return {{"parameters", llama->layout().size},
          {"tokens", kBatch * kTime},
          {"forward_ms", forward * 1e3},
          {"forward_backward_ms", both * 1e3},
          {"adamw_ms", update * 1e3},
          {"tokens_per_s", tokens_per_s},
          {"gflop_per_s", tokens_per_s * model::training_flop_per_token(config, kTime) * 1e-9}};
}

}  // namespace
}  // namespace th

int main() {
  constexpr int64_t kRows = th::kBatch * th::kTime;
  th::Json products = th::Json::array();
  for (const auto& [in, out] : {std::pair{256, 512}, {256, 1408}, {704, 256}, {256, 2048}}) {
    products.push_back(th::measure_products({kRows, in, out}));
  }
  const th::Json result = {
      {"threads", omp_get_max_threads()}, {"products", products}, {"step", th::measure_step()}};
  std::printf("%s\n", th::dump_json(result).c_str());
}
