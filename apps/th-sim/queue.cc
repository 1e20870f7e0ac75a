// th-sim itp, philly, swf: traces of batch queues on many nodes of one kind.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "command.h"
#include "queue_flags.h"
#include "sim/queue/engine.h"
#include "sim/trace/itp.h"
#include "sim/trace/philly.h"
#include "sim/trace/swf.h"

namespace th {
namespace {

constexpr int64_t kMostNodes = 1'000'000, kMostPerNode = 1024;
constexpr double kDefaultLoad = 0.8;

class Queue : public Command {
 public:
  void add_flags(Flags& flags) override {
    trace_.add(flags);
    flags.choice("--policy", policy_, {"fifo", "backfill", "tiresias", "thunderhead"},
                 "what orders the jobs");
    flags.add("--nodes", nodes_, "nodes of the cluster; 0: as many as the trace loads to 80 %");
    flags.add("--gpus-per-node", per_node_, "GPUs of a node; 0: 8, or what the trace's header says");
    flags.add("--restart-s", restart_s_, "that a preempted job needs before it goes on");
    add_trace_flags(flags);
  }

  Result<Json> run(const Common& common, bool&) override {
    TH_RETURN_IF_ERROR(check_range("--nodes", nodes_, 0, kMostNodes));
    TH_RETURN_IF_ERROR(check_range("--gpus-per-node", per_node_, 0, kMostPerNode));
    if (!(restart_s_ >= 0 && restart_s_ <= 1e6))
      return fail(Code::kInvalidArgument, fmt::format("--restart-s: want 0 to 1000000, got {}", restart_s_));
    sim::Skipped skipped;
    Json out = {{"trace", trace_.path}, {"policy", policy_}};
    TH_TRY(std::string text, sim::read_trace_file(trace_.path));
    TH_TRY(auto jobs, read(text, skipped, out));
    TH_RETURN_IF_ERROR(check_some(jobs.size(), trace_.path));
    if (per_node_ == 0) per_node_ = 8;
    out["nodes_from"] = nodes_from_;
    if (nodes_ == 0) {
      TH_TRY(nodes_, nodes_for(jobs));
      out["nodes_from"] = "80 % load";
    }
    const std::clock_t begin = std::clock();
    const sim::QueueOutcome outcome = sim::run_queue(
        jobs, {kind(), static_cast<int32_t>(nodes_), static_cast<int32_t>(per_node_), restart_s_});
    const double took_s = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    tell(out, jobs.size(), outcome, took_s);
    add_skipped(out, skipped);
    TH_RETURN_IF_ERROR(write_queue_report(common.report, name(), out, outcome.samples, nodes_ * per_node_));
    return out;
  }

 protected:
  virtual void add_trace_flags(Flags&) {}
  virtual Result<std::vector<sim::QueueJob>> read(std::string_view text, sim::Skipped& skipped,
                                                  Json& out) = 0;

  /// 0: the cluster is made for the trace.
  int64_t most_gpus() const { return nodes_ * (per_node_ == 0 ? 8 : per_node_); }

  TraceFlags trace_;
  int64_t nodes_ = 0, per_node_ = 0;
  const char* nodes_from_ = "--nodes";

 private:
  sim::QueuePolicyKind kind() const {
    if (policy_ == "fifo") return sim::QueuePolicyKind::kFifo;
    if (policy_ == "backfill") return sim::QueuePolicyKind::kBackfill;
    if (policy_ == "tiresias") return sim::QueuePolicyKind::kTiresias;
    return sim::QueuePolicyKind::kThunderhead;
  }

  /// The GPU time asked for is 80 % of what the nodes have up to the last submission, and the largest job
  /// fits.
  Result<int64_t> nodes_for(const std::vector<sim::QueueJob>& jobs) const {
    double gpu_s = 0, largest = 1;
    for (const sim::QueueJob& job : jobs) {
      gpu_s += job.gpus * job.duration_s;
      largest = std::max(largest, static_cast<double>(job.gpus));
    }
    const double span_s = std::max(jobs.back().submit_s - jobs.front().submit_s, 1.0);
    const double per_node = static_cast<double>(per_node_);
    const double nodes = std::ceil(std::max(largest, gpu_s / span_s / kDefaultLoad) / per_node);
    if (nodes <= kMostNodes) return static_cast<int64_t>(nodes);
    return fail(
        Code::kInvalidArgument,
        fmt::format("{}: the trace would load {:.0f} nodes to 80 %, and a cluster has up to {}: give --nodes",
                    trace_.path, nodes, kMostNodes));
  }

  void tell(Json& out, size_t jobs, const sim::QueueOutcome& outcome, double took_s) const {
    out.update(Json{{"nodes", nodes_},
                    {"gpus_per_node", per_node_},
                    {"jobs", jobs},
                    {"avg_jct_s", outcome.avg_jct_s},
                    {"p99_jct_s", outcome.p99_jct_s},
                    {"makespan_s", outcome.makespan_s},
                    {"utilisation", outcome.utilisation},
                    {"wait_p50_s", outcome.wait_p50_s},
                    {"wait_p99_s", outcome.wait_p99_s},
                    {"starts", outcome.starts},
                    {"preemptions", outcome.preemptions},
                    {"events", outcome.events()},
                    {"events_per_s", static_cast<double>(outcome.events()) / std::max(took_s, 1e-9)},
                    {"log_hash", fmt::format("{:016x}", outcome.log_hash)}});
  }

  std::string policy_ = "thunderhead";
  double restart_s_ = 10;
};

class Itp : public Queue {
 public:
  const char* name() const override { return "itp"; }
  const char* help() const override { return "Jobs of a Microsoft ITP cluster (2021) in time"; }
  const char* example() const override {
    return "th-sim itp --trace cluster04.csv.gz --nodes 80 --policy thunderhead --json";
  }

 protected:
  Result<std::vector<sim::QueueJob>> read(std::string_view text, sim::Skipped& skipped, Json&) override {
    return sim::read_itp(text, trace_.options(most_gpus()), skipped);
  }
};

class Philly : public Queue {
 public:
  const char* name() const override { return "philly"; }
  const char* help() const override { return "Jobs of Microsoft's Philly cluster (2017) in time"; }
  const char* example() const override {
    return "th-sim philly --trace philly_pollux.csv.gz --policy backfill --json";
  }

 protected:
  void add_trace_flags(Flags& flags) override {
    flags.add("--cluster", cluster_, "only this virtual cluster of the trace");
  }
  Result<std::vector<sim::QueueJob>> read(std::string_view text, sim::Skipped& skipped, Json& out) override {
    if (!cluster_.empty()) out["cluster"] = cluster_;
    return sim::read_philly(text, trace_.options(most_gpus()), cluster_, skipped);
  }

 private:
  std::string cluster_;
};

class Swf : public Queue {
 public:
  const char* name() const override { return "swf"; }
  const char* help() const override {
    return "A log in the Standard Workload Format in time; a processor is a GPU";
  }
  const char* example() const override { return "th-sim swf --trace log.swf.gz --policy backfill --json"; }

 protected:
  Result<std::vector<sim::QueueJob>> read(std::string_view text, sim::Skipped& skipped, Json& out) override {
    TH_TRY(sim::SwfTrace trace, sim::read_swf(text, trace_.options(most_gpus()), skipped));
    out["never_ran"] = trace.never_ran;
    const bool told = trace.max_nodes > 0 && trace.max_procs >= trace.max_nodes;
    if (nodes_ == 0 && per_node_ == 0 && told) {
      per_node_ = std::min(trace.max_procs / trace.max_nodes, kMostPerNode);
      nodes_ = trace.max_nodes;
      nodes_from_ = "the trace's header";
      TH_RETURN_IF_ERROR(check_range("MaxNodes", nodes_, 1, kMostNodes));
      TH_TRY(trace, sim::read_swf(text, trace_.options(most_gpus()), skipped = {}));
    }
    return std::move(trace.jobs);
  }
};

}  // namespace

std::unique_ptr<Command> make_itp_command() { return std::make_unique<Itp>(); }
std::unique_ptr<Command> make_philly_command() { return std::make_unique<Philly>(); }
std::unique_ptr<Command> make_swf_command() { return std::make_unique<Swf>(); }

}  // namespace th
