#pragma once
// Gangs as Slurm jobs, through slurmrestd: submits, watches and cancels. Its calls never block: a thread of
// its own speaks HTTP and posts what became of the gangs. See docs/slurm-cluster.md.

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/units.h"
#include "launch/launcher.h"
#include "launch/slurm/api.h"

namespace th::launch {

struct SlurmOptions {
  std::string url;               // "http://10.0.0.1:6820"
  std::string user;              // whose jobs they are
  std::string token;             // a JWT of the user; never logged
  std::filesystem::path folder;  // absolute; seen by us and by all nodes: one folder a job in it
  std::string path = "/usr/local/bin:/usr/bin:/bin";  // PATH of the ranks
  // Partition, account and QOS of a gang; none: Slurm's defaults.
  std::function<SlurmQueue(const GangSpec&)> queue_of = {};
  int64_t poll_ns = kSecond;
  int64_t call_timeout_ns = 10 * kSecond;
  int64_t submit_timeout_ns =
      2 * kMinute;  // for how long an unreachable slurmrestd is tried before the gang fails
};

/// Each gang runs on exactly the nodes of its placement (RankPlace::node is Slurm's name of the node). A gang
/// of the same job and attempt that Slurm knows is taken over. GPUs are those that Slurm gives on the nodes.
/// Between SIGTERM and SIGKILL lies Slurm's KillWait, not grace_ms. A job that Slurm requeues has failed: its
/// nodes are fixed, so another attempt has to be placed. signal() reaches all processes of the ranks.
class SlurmLauncher final : public Launcher {
 public:
  explicit SlurmLauncher(SlurmOptions options);
  /// Jobs run on.
  ~SlurmLauncher() override;

  Status start(GangSpec gang) override;
  void stop(std::string_view job) override;
  void signal(std::string_view job, int number, bool leader_only) override;
  void ack_metrics(const node::TaskId& task, int64_t line_no) override;
  std::vector<Event> take_events() override;

  void restore_metrics(const node::TaskId& task, int64_t line_no) override;
  /// What a rank has written; the file is there once it runs.
  std::filesystem::path log_of(const node::TaskId& task) const;

 private:
  struct Gang {
    GangSpec spec;
    int64_t slurm_id = 0;
    int64_t started_ns = 0;  // monotonic: when we were asked for it
    bool stopping = false, stop_sent = false;
    GangState state = GangState::kStarting;
    std::vector<node::TaskReport> ranks;
    std::vector<int> signals;                                           // to be sent
    int64_t metrics_offset = -1, metrics_line = 0, metrics_stored = 0;  // -1: not looked at yet
  };

  void run(std::stop_token stop);
  void round();
  Result<Json> call(const char* method, const std::string& path, const Json* body = nullptr);
  void submit(const std::string& job, const std::vector<SlurmJob>& known);
  Status write_files(const GangSpec& gang);
  void send_wishes(const std::string& job);
  void take_job(const std::string& job, const SlurmJob* found);
  void read_metrics(Gang& gang);
  bool lost_a_node(const Gang& gang, const SlurmJob& job) const;
  void end_ranks(Gang& gang, const SlurmJob& job);
  void fail_gang(Gang& gang, const std::string& reason, bool lost);
  void change(Gang& gang, int rank, node::TaskReport report, bool lost);
  void tell(Gang& gang, GangState state, std::optional<RankChanged> cause = std::nullopt);
  std::filesystem::path job_folder(const std::string& job) const { return options_.folder / job; }

  const SlurmOptions options_;
  std::string problem_;       // the thread's own: what was logged last
  mutable std::mutex mutex_;  // all below
  std::condition_variable_any wake_;
  bool woken_ = false;
  std::map<std::string, Gang, std::less<>> gangs_;  // by job
  std::map<std::string, int64_t> restored_;         // task id text → line_no
  std::vector<Event> events_;
  std::jthread thread_;  // last: ends first
};

}  // namespace th::launch
