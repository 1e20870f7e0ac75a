#include "floor.h"

namespace th {

std::vector<tensor::PackedProduct> step_products(const model::ModelConfig& c, int64_t rows) {
  std::vector<tensor::PackedProduct> products;
  const auto linear = [&](int64_t in, int64_t out) {
    products.push_back({rows, out, in});
    products.push_back({rows, in, out});
    products.push_back({out, in, rows, true});
  };
  const int64_t queries = c.num_attention_heads * c.head_dim, keys = c.num_key_value_heads * c.head_dim;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    linear(c.hidden_size, queries + 2 * keys);
    linear(queries, c.hidden_size);
    linear(c.hidden_size, c.family == model::Family::kGpt2 ? c.intermediate_size : 2 * c.intermediate_size);
    linear(c.intermediate_size, c.hidden_size);
  }
  linear(c.hidden_size, c.vocab_size);
  return products;
}

}  // namespace th
