#pragma once
// The paged KV cache: keys and values of all sequences in blocks of kBlockTokens positions. A sequence owns a
// table of block numbers; block i of it holds positions [i·kBlockTokens, (i+1)·kBlockTokens).

#include <cstdint>
#include <memory>
#include <vector>

namespace th::serve {

inline constexpr int64_t kBlockTokens = 16;

using BlockTable = std::vector<int32_t>;

struct KvShape {
  int64_t layers = 0;
  int64_t row = 0;  // kv_heads · head_dim
  /// Keys and values of all layers, float32.
  int64_t bytes_per_block() const { return 2 * layers * row * kBlockTokens * int64_t{4}; }
};

/// Thread: one owner. Memory: blocks · bytes_per_block, touched when first used.
class KvCache {
 public:
  KvCache(KvShape shape, int64_t blocks);

  int64_t total_blocks() const { return blocks_; }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }

  static int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }
  /// Grows `table` until it covers `tokens` positions. False, and nothing taken, when too few blocks are
  /// free.
  bool grow(BlockTable& table, int64_t tokens);
  void release(BlockTable& table);  // leaves it empty

  /// (kBlockTokens, row) of one block and layer.
  float* keys(int32_t block, int64_t layer) { return at(block, layer, 0); }
  float* values(int32_t block, int64_t layer) { return at(block, layer, 1); }

 private:
  // (blocks, layers, 2, kBlockTokens, row)
  float* at(int64_t block, int64_t layer, int64_t which) {
    return data_.get() + ((block * shape_.layers + layer) * 2 + which) * kBlockTokens * shape_.row;
  }

  KvShape shape_;
  int64_t blocks_;
  std::unique_ptr<float[]> data_;
  std::vector<int32_t> free_;  // a stack
};

}  // namespace th::serve
