#pragma once
// What jobs print and measure: STATE/logs/JOB/A.R.log and metrics.jsonl, which outlive the nodes. Thread: the
// loop only.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "http/server.h"
#include "ledger/state.h"
#include "node/protocol.h"

namespace th::control {

/// One stored line. `line`: a JSON object as text; event: its "event", step: its "step" or -1.
struct StoredLine {
  int64_t attempt = 0, line_no = 0, step = -1;
  std::string event, line;
};

class JobOutput {
 public:
  explicit JobOutput(std::filesystem::path logs_dir) : dir_(std::move(logs_dir)) {}

  /// Reads metrics.jsonl of a job back; a torn last line is dropped. Errors: of the file system.
  Status restore(const std::string& job);
  /// Stores a line. Returns it, parsed; none when it was stored before. Errors: kNoSpace, kInternal.
  Result<std::optional<StoredLine>> add_metrics(const node::MetricsLine& line);
  const std::vector<StoredLine>& metrics(const std::string& job);
  /// The last line with that "event" (of that attempt, unless 0); null if none.
  const StoredLine* last(const std::string& job, std::string_view event, int64_t attempt = 0);
  int64_t last_line_no(const std::string& job, int64_t attempt);

  /// Appends what of `bytes`, which starts at `offset` of the log, is new. Returns the log's length.
  Result<int64_t> append_log(const node::TaskId& task, int64_t offset, std::string_view bytes);
  /// At most `max_bytes` from `offset`; empty at the end and where there is no log.
  Result<std::string> read_log(const node::TaskId& task, int64_t offset, size_t max_bytes) const;

  /// Sends the log as events to `stream` from `offset` on until the job has ended and all was sent. attempt
  /// 0: the last one, and those that follow.
  void follow(http::Stream stream, std::string job, int attempt, int rank, int64_t offset);
  /// Moves all followers on.
  void pump(const ledger::State& state);

 private:
  struct Follower {
    http::Stream stream;
    node::TaskId at;
    bool fixed_attempt = false;
    int64_t offset = 0;
  };
  bool pump_one(Follower& follower, const ledger::State& state) const;
  std::filesystem::path log_path(const node::TaskId& task) const;

  std::filesystem::path dir_;
  std::map<std::string, std::vector<StoredLine>> metrics_;
  std::vector<Follower> followers_;
};

}  // namespace th::control
