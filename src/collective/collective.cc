#include "collective/collective.h"

#include <algorithm>

namespace th::collective {

Shard shard_of(size_t size, int rank, int world_size) {
  const size_t world = world_size, part = size / world, rest = size % world, r = rank;
  const size_t begin = r * part + std::min(r, rest);
  return {begin, begin + part + (r < rest ? 1 : 0)};
}

Status Group::reduce_scatter(Elements data) { return backend_ ? backend_->reduce_scatter(data) : Status(); }
Status Group::all_gather(Elements data) { return backend_ ? backend_->all_gather(data) : Status(); }
Status Group::all_reduce(Elements data) { return backend_ ? backend_->all_reduce(data) : Status(); }
Status Group::broadcast(Elements data, int root) {
  TH_CHECK(root >= 0 && root < world_size_);
  return backend_ ? backend_->broadcast(data, root) : Status();
}
Status Group::all_to_all(Elements send, Elements receive) {
  TH_CHECK(send.kind() == receive.kind() &&
           receive.size() == shard_of(send.size(), rank_, world_size_).size() * world_size_);
  if (backend_) return backend_->all_to_all(send, receive);
  copy_elements(send, receive);
  return {};
}
Status Group::send(Elements data, int to) {
  TH_CHECK(to >= 0 && to < world_size_ && to != rank_);
  return backend_->send(data, to);
}
Status Group::receive(Elements data, int from) {
  TH_CHECK(from >= 0 && from < world_size_ && from != rank_);
  return backend_->receive(data, from);
}
Status Group::barrier() { return backend_ ? backend_->barrier() : Status(); }

}  // namespace th::collective
