#pragma once
// Where the tensors of a model lie in one flat buffer, and in which units they are used.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace th::model {

/// One tensor in the flat buffer. A matrix is (out,in), row-major.
struct Parameter {
  std::string name;            // as Hugging Face calls it: "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // as it lies here
  int64_t offset;              // in elements
  int64_t size;                // product of shape
  bool transposed = false;     // Hugging Face stores it (in,out): GPT-2's projections
};

/// What is used together: a layer, or what is outside of the layers. Its matrices come first, what weight
/// decay spares (norms, biases) after them.
struct Unit {
  int64_t offset;  // of its first element in the flat buffer
  int64_t size;
  int64_t decayed_size;  // [0, decayed_size) of it are matrices
};

/// No gaps: unit 0 (embeddings, head, last norm), then a unit a layer. The q, k and v projections of a layer
/// are neighbours, as are gate and up, so that [q|k|v] is one (q+k+v, hidden) matrix and [gate|up] one
/// (2·intermediate, hidden) matrix.
struct ParameterLayout {
  explicit ParameterLayout(const ModelConfig& config);
  /// Of one unit, with these tensors as its matrices, one after another: adapters, say.
  explicit ParameterLayout(std::vector<Parameter> matrices);

  std::vector<Parameter> parameters;  // ascending offset
  std::vector<Unit> units;
  int64_t size = 0;  // elements in all

  /// Null when there is none of that name (lm_head.weight with tied embeddings). Cost: O(log parameters).
  const Parameter* find(std::string_view name) const;
  /// The tensor that the element at `offset` belongs to.
  const Parameter& at(int64_t offset) const;

  // Offsets in the flat buffer, for code that walks the layers; biases are GPT-2's only.
  struct Layer {
    int64_t qkv;       // ((heads + 2·kv_heads)·head_dim, hidden)
    int64_t o;         // (hidden, heads·head_dim)
    int64_t gate_up;   // (2·intermediate, hidden); GPT-2's c_fc: (intermediate, hidden)
    int64_t down;      // (hidden, intermediate)
    int64_t norm_in;   // (hidden) input_layernorm
    int64_t norm_mid;  // (hidden) post_attention_layernorm
    int64_t norm_in_bias, norm_mid_bias, qkv_bias, o_bias, up_bias, down_bias;
  };
  std::vector<Layer> layers;
  int64_t embedding = 0;  // (vocab, hidden)
  int64_t positions = 0;  // (max_position_embeddings, hidden): GPT-2's
  int64_t lm_head = 0;    // (vocab, hidden); == embedding when tied
  int64_t norm_out = 0;   // (hidden) model.norm
  int64_t norm_out_bias = 0;

 private:
  void sort_names();
  std::vector<size_t> by_name_;
};

/// Fresh weights of a part of the flat buffer that begins at `begin`: normal with deviation 0.02, projections
/// into the residual stream 0.02/sqrt(2·layers), norms 1, biases 0. The same seed gives the same bits however
/// the buffer is cut. Cost: whole tensors are drawn.
void init_parameters(std::span<float> part, int64_t begin, const ParameterLayout& layout, uint64_t seed);

/// Training flop (forward and backward) of one token at sequence length `time`: 6·matrix parameters that
/// multiply + 6·layers·time·heads·head_dim (causal half).
double training_flop_per_token(const ModelConfig& config, int64_t time);

}  // namespace th::model
