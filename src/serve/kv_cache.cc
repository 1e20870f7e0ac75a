#include "serve/kv_cache.h"

#include "base/result.h"

namespace th::serve {

KvCache::KvCache(KvShape shape, int64_t blocks) : shape_(shape), blocks_(blocks) {
  const auto floats =
      static_cast<size_t>(blocks * (shape.bytes_per_block() / static_cast<int64_t>(sizeof(float))));
  data_.reset(new float[floats]);  // not zeroed, so that unused blocks take no memory
  free_.reserve(static_cast<size_t>(blocks));
  for (int64_t block = blocks - 1; block >= 0; --block) free_.push_back(static_cast<int32_t>(block));
}

bool KvCache::grow(BlockTable& table, int64_t tokens) {
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(table.size());
  if (missing > free_blocks()) return false;
  for (int64_t i = 0; i < missing; ++i) {
    table.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvCache::release(BlockTable& table) {
  free_.insert(free_.end(), table.rbegin(), table.rend());
  table.clear();
  TH_CHECK(free_blocks() <= blocks_);
}

}  // namespace th::serve
