#pragma once
// Starts gangs on nodes and tells what becomes of them. One interface for every way to start ranks; each
// backend is a folder beside `local`.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "node/protocol.h"

namespace th::launch {

/// Where one rank runs. Ranks of one VM need not be neighbours in the list; LOCAL_RANK counts them in rank
/// order.
struct RankPlace {
  std::string vm;
  std::string node;       // the node's name, as SLURM_JOB_NODELIST shows it
  std::string address;    // where its ranks are reached: "127.0.0.1"
  std::vector<int> gpus;  // indices on the VM
  bool operator==(const RankPlace&) const = default;
};

/// One attempt of a job: all ranks, or none.
struct GangSpec {
  std::string job;                               // "job-1"
  std::string name;                              // as the submitter called it
  int attempt = 1;                               // from 1
  std::vector<std::string> argv;                 // the same for every rank
  std::map<std::string, std::string> env;        // of the submitter; the rendezvous environment wins over it
  std::map<std::string, std::string> fixed_env;  // wins over the rendezvous environment
  std::map<std::string, std::string> files;      // path in the job's folder → text
  std::map<std::string, std::string> stage;      // path in the job's folder → absolute path
  std::optional<std::string> workdir;            // absolute; none: the job's folder
  int64_t memory_bytes = 0;                      // of one rank; 0: no limit
  int64_t grace_ms = 10'000;                     // between SIGTERM and SIGKILL
  int omp_threads = 1;                           // OMP_NUM_THREADS, unless env sets it
  int master_port = 0;                           // see choose_port in rendezvous.h
  bool service = false;                          // meant to run on: a rank that exits with 0 has failed too
  std::optional<std::string> ready_url;          // of rank 0
  std::string metrics_file = "metrics.jsonl";    // in the job's folder, written by rank 0; empty: none
  std::vector<RankPlace> ranks;                  // index is the rank
  bool operator==(const GangSpec&) const = default;
};

/// A rank changed. `report.id` says which; `vm` is where it ran.
struct RankChanged {
  std::string vm;
  node::TaskReport report;
  bool lost = false;  // its node is gone; state is then kExited with neither exit_code nor signal
};

/// A new line of the metrics file, each line_no once and in order. Call ack_metrics once it is stored.
struct MetricsArrived {
  node::MetricsLine line;
};

enum class GangState {
  kStarting,
  kRunning,    // every rank runs
  kReady,      // every rank runs and rank 0 answered its ready_url
  kSucceeded,  // every rank exited with 0; stop() it, so that the nodes forget it
  kFailed,     // a rank failed or was lost: told once an attempt; stop() the rest
  kGone,       // after stop(): no process of it is left; told once, last
};
std::string_view state_name(GangState state);

struct GangChanged {
  std::string job;
  int attempt = 1;
  GangState state = GangState::kStarting;
  std::optional<RankChanged> cause;  // kFailed: the first rank that failed
};

using Event = std::variant<RankChanged, MetricsArrived, GangChanged>;

/// Thread: one owner, the loop thread. Nothing here blocks.
class Launcher {
 public:
  virtual ~Launcher() = default;

  /// Asks for the gang. The same job and attempt again is harmless: after a restart the controller starts
  /// every gang of its ledger again and finds the ranks that run. Errors: kInvalidArgument (no ranks, no
  /// command, a VM without a name), kFailedPrecondition (another attempt of the job is not gone yet).
  virtual Status start(GangSpec gang) = 0;

  /// Ends every rank of the job, by SIGTERM and after grace_ms SIGKILL. kGone follows (at once when there is
  /// no such gang nothing follows).
  virtual void stop(std::string_view job) = 0;

  /// Sends a signal, once, to every rank of the job that runs (leader_only: not to what the rank has
  /// started).
  virtual void signal(std::string_view job, int number, bool leader_only) = 0;

  /// The lines up to `line_no` of the task are stored: they are not sent again.
  virtual void ack_metrics(const node::TaskId& task, int64_t line_no) = 0;

  /// After a restart, before start(): lines up to `line_no` of the task are stored already and make no event.
  virtual void restore_metrics(const node::TaskId& task, int64_t line_no) = 0;

  /// What happened since the last call, oldest first.
  virtual std::vector<Event> take_events() = 0;
};

}  // namespace th::launch
