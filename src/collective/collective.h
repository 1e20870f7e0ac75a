#pragma once
// Collective operations between the ranks of a gang: a value outside, a backend inside (shm; see
// collective/shm).
//
//   TH_TRY(Rendezvous rendezvous, rendezvous_from_env());
//   TH_TRY(Group group, connect_shm(rendezvous, {}));        // collective/shm/connect.h
//   TH_RETURN_IF_ERROR(group.reduce_scatter(gradients));
//
// Every rank of the group calls the same operations in the same order with the same sizes. All of them block
// and are float32. After an error the group is broken: each later call returns the same error. Thread: one at
// a time.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/result.h"

namespace th::collective {

/// Who we are and where we meet: what a launcher sets in the environment.
struct Rendezvous {
  int rank = 0;
  int world_size = 1;
  std::string master_addr = "127.0.0.1";
  int master_port = 0;
  std::string job_id;  // TH_JOB_ID, else SLURM_JOB_ID
  int attempt = 0;     // TH_ATTEMPT
};

/// From RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TH_JOB_ID, TH_ATTEMPT; without RANK and WORLD_SIZE a
/// world of one. Errors: kInvalidArgument, naming the variable (half set, not a number, rank >= world size).
Result<Rendezvous> rendezvous_from_env();

/// [begin, end): the part of `size` elements that belongs to `rank`. Parts are in order, cover all, differ by
/// at most one.
struct Shard {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};
Shard shard_of(size_t size, int rank, int world_size);

/// What a backend implements. Sums are taken in the order of the ranks, so a rerun gives the same bits.
class GroupBackend {
 public:
  virtual ~GroupBackend() = default;
  virtual Status reduce_scatter(std::span<float> data) = 0;
  virtual Status all_gather(std::span<float> data) = 0;
  virtual Status all_reduce(std::span<float> data) = 0;
  virtual Status broadcast(std::span<float> data, int root) = 0;
  virtual Status barrier() = 0;
};

/// Movable handle of one rank. Errors of all operations: kUnavailable when a peer died or left ("rank 2 (pid
/// 17) …"), within 5 s; kInternal when ranks disagree about operation or size. n floats, w ranks: wire cost a
/// rank is n(w-1)/w floats for reduce_scatter and all_gather, twice that for all_reduce, n for broadcast.
class Group {
 public:
  /// A world of one: every operation returns at once.
  Group() = default;
  Group(int rank, int world_size, std::unique_ptr<GroupBackend> backend)
      : rank_(rank), world_size_(world_size), backend_(std::move(backend)) {}

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }

  /// In place: afterwards our shard_of(data.size()) holds the sum over ranks; the rest is unspecified.
  Status reduce_scatter(std::span<float> data);
  /// In place: our shard goes to everyone; afterwards all of `data` is the same on every rank.
  Status all_gather(std::span<float> data);
  /// In place: the sum over ranks.
  Status all_reduce(std::span<float> data);
  /// `data` of rank `root` goes to everyone.
  Status broadcast(std::span<float> data, int root);
  /// Returns when every rank came here.
  Status barrier();

 private:
  int rank_ = 0;
  int world_size_ = 1;
  std::unique_ptr<GroupBackend> backend_;
};

}  // namespace th::collective
