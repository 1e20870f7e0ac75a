#pragma once
// Collective operations between the ranks of a gang: a value outside, a backend inside (shm inside of a node,
// gloo between nodes).
//
//   TH_TRY(Rendezvous rendezvous, rendezvous_from_env());
//   TH_TRY(Group group, connect(rendezvous, {}));            // collective/connect/connect.h
//   TH_RETURN_IF_ERROR(group.reduce_scatter(gradients));
//
// Every rank of the group calls the same operations in the same order with the same sizes and kinds of
// numbers; only send and receive are between two. All of them block. After an error the group is broken: each
// later call returns the same error. Thread: one at a time.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "collective/elements.h"

namespace th::collective {

/// Who we are and where we meet: what a launcher sets in the environment.
struct Rendezvous {
  int rank = 0;
  int world_size = 1;
  int local_world_size = 0;  // ranks on our node; 0: not known
  std::string node = {};     // its name, for messages
  std::string master_addr = "127.0.0.1";
  int master_port = 0;
  std::string job_id;
  int attempt = 0;
};

/// What the launcher has set; the first of these that is there:
///   RANK, WORLD_SIZE, LOCAL_WORLD_SIZE                    th-node, torchrun, a shell
///   OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_SIZE              mpirun, also inside of a Slurm job
///   SLURM_PROCID, SLURM_NTASKS in a step (SLURM_STEP_ID)  srun
/// MASTER_ADDR and MASTER_PORT; without them the first host of SLURM_STEP_NODELIST (SLURM_JOB_NODELIST), this
/// host when all ranks are on it, and a port that follows from the job's id. TH_JOB_ID, else SLURM_JOB_ID;
/// TH_ATTEMPT, else SLURM_RESTART_COUNT. Without a launcher a world of one. Errors: kInvalidArgument, naming
/// the variable (missing, not a number, rank >= world size).
Result<Rendezvous> rendezvous_from_env();

/// "n[01-04,7],c1" → "n01": the first host of a list as Slurm writes it. Errors: kInvalidArgument.
Result<std::string> first_host(std::string_view nodelist);

/// [begin, end): the part of `size` elements that belongs to `rank`. Parts are in order, cover all, differ by
/// at most one.
struct Shard {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};
Shard shard_of(size_t size, int rank, int world_size);

/// What a backend implements; Group says what each does. Sums are taken in float32 in a fixed order (of the
/// ranks of a node, then of the nodes), so a rerun with the same placement gives the same bits.
class GroupBackend {
 public:
  virtual ~GroupBackend() = default;
  virtual Status reduce_scatter(Elements data) = 0;
  virtual Status all_gather(Elements data) = 0;
  virtual Status all_reduce(Elements data) = 0;
  virtual Status broadcast(Elements data, int root) = 0;
  virtual Status all_to_all(Elements send, Elements receive) = 0;
  virtual Status send(Elements data, int to) = 0;
  virtual Status receive(Elements data, int from) = 0;
  virtual Status barrier() = 0;
};

/// Movable handle of one rank. Data are vectors, arrays or spans of float or Bf16. Sums of Bf16 are taken in
/// float32 and rounded once, to the nearest. Errors of all operations: kUnavailable when a peer died, hangs
/// or left ("rank 2 on node n1 (pid 17) …"), within 5 s; kInternal when ranks disagree about operation, size
/// or kind. n numbers, w ranks: wire cost a rank is n(w-1)/w numbers for reduce_scatter, all_gather and
/// all_to_all, twice that for all_reduce, n for broadcast, send and receive; see docs/collectives.md.
class Group {
 public:
  /// A world of one: every operation returns at once.
  Group() = default;
  Group(int rank, int world_size, std::unique_ptr<GroupBackend> backend)
      : rank_(rank), world_size_(world_size), backend_(std::move(backend)) {}

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }

  /// In place: afterwards our shard_of(data.size()) holds the sum over ranks; the rest is unspecified.
  Status reduce_scatter(Elements data);
  /// In place: our shard goes to everyone; afterwards all of `data` is the same on every rank.
  Status all_gather(Elements data);
  /// In place: the sum over ranks.
  Status all_reduce(Elements data);
  /// `data` of rank `root` goes to everyone.
  Status broadcast(Elements data, int root);
  /// The shard of `send` that belongs to a rank goes to it. `receive`, which `send` does not overlap, has
  /// what came from each rank, in their order: world_size × the size of our shard. `send` is as long on all
  /// ranks.
  Status all_to_all(Elements send, Elements receive);
  /// To one rank, which calls receive(data, our rank) with the same size. Returns when it has what we sent,
  /// so of two that send to each other one receives first.
  Status send(Elements data, int to);
  Status receive(Elements data, int from);
  /// Returns when every rank came here.
  Status barrier();

 private:
  int rank_ = 0;
  int world_size_ = 1;
  std::unique_ptr<GroupBackend> backend_;
};

}  // namespace th::collective
