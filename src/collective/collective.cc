#include "collective/collective.h"

#include <algorithm>

namespace th::collective {

Shard shard_of(size_t size, int rank, int world_size) {
  const size_t world = world_size, part = size / world, rest = size % world, r = rank;
  const size_t begin = r * part + std::min(r, rest);
  return {begin, begin + part + (r < rest ? 1 : 0)};
}

Status Group::reduce_scatter(std::span<float> data) {
  return backend_ ? backend_->reduce_scatter(data) : Status();
}
Status Group::all_gather(std::span<float> data) { return backend_ ? backend_->all_gather(data) : Status(); }
Status Group::all_reduce(std::span<float> data) { return backend_ ? backend_->all_reduce(data) : Status(); }
Status Group::broadcast(std::span<float> data, int root) {
  TH_CHECK(root >= 0 && root < world_size_);
  return backend_ ? backend_->broadcast(data, root) : Status();
}
Status Group::barrier() { return backend_ ? backend_->barrier() : Status(); }

}  // namespace th::collective
