#pragma once
// Submitting jobs and watching them.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "context.h"
#include "request/job_spec.h"

namespace th::cli {

struct SubmitOptions {
  std::string recipe;  // a file; or Context::command
  std::string slice = {}, name = {}, time = {}, memory = {}, workdir = {}, stack = {};
  std::optional<int64_t> gpus = {}, retries = {};
  std::vector<std::string> env = {};  // NAME=VALUE
  bool follow = false, wait = false, detach = false;
};
/// What would be submitted. Errors: kInvalidArgument, kNotFound (recipe, staged file), what th-train finds in
/// it.
Result<request::JobSpec> spec_of(const Context& context, const SubmitOptions& options);
/// What the options say about a job goes before what its spec says. Validates. Errors: kInvalidArgument.
Status apply_options(const SubmitOptions& options, request::JobSpec& spec);
/// Options of SubmitOptions, but for the recipe and --gpus, as those of `app`.
void add_submit_options(CLI::App& app, SubmitOptions& options);
/// As submit_job(), of a spec that is there already.
Result<Json> submit_spec(Context& context, const request::JobSpec& spec, const SubmitOptions& options);
/// Submits, and unless detached watches the job to its end. Returns the job; Context::exit_status is the
/// job's.
Result<Json> submit_job(Context& context, const SubmitOptions& options);

/// Watches a job to its end with a live line (output: also what its ranks print). Ctrl-C leaves the job
/// running.
Result<Json> watch_job(Context& context, const std::string& job, bool output);

/// Prints what the ranks of a step write, as it is, until it ends; Ctrl-C and SIGTERM cancel it. Returns the
/// job; Context::exit_status is the step's.
Result<Json> follow_step(Context& context, const std::string& job);

bool has_ended(const Json& job);

/// Prints what the ranks of a job wrote, from where the last call stopped; goes on with each new attempt.
class LogTail {
 public:
  /// rank < 0: all, each line with its rank in front where there are several. attempt 0: the last one.
  LogTail(Context& context, std::string job, int rank, int attempt)
      : context_(context), job_(std::move(job)), rank_(rank), attempt_(attempt), fixed_(attempt > 0) {}
  /// `job`: as the controller tells it now. `before`: called before anything is printed.
  Status poll(const Json& job, const std::function<void()>& before);
  /// No rank in front of the lines.
  void unlabelled() { labels_ = false; }
  /// Prints what is left of lines without an end.
  void finish();

 private:
  /// What was written since the last time.
  Status read(const std::function<void()>& before);
  void print(int rank, std::string_view text, const std::function<void()>& before);

  Context& context_;
  const std::string job_;
  const int rank_;
  int64_t attempt_;
  const bool fixed_;
  int ranks_ = 0;
  bool prefixed_ = false, labels_ = true;
  std::map<int, int64_t> offsets_;      // by rank
  std::map<int, std::string> partial_;  // a line without its end, by rank
};

/// The timeline of a job or slice as a table.
Result<Json> show_why(Context& context, const std::string& subject);
Result<Json> show_logs(Context& context, const std::string& job, int rank, int attempt, bool follow);

}  // namespace th::cli
