// th-sim muri: Muri's traces under the published policies and Thunderhead's order of jobs.

#include "sim/queue/muri.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "command.h"
#include "queue_flags.h"

namespace th {
namespace {

constexpr int64_t kMostNodes = 4096, kMostPerNode = 128;

class Muri : public Command {
 public:
  const char* name() const override { return "muri"; }
  const char* help() const override { return "Training jobs of Muri's traces in time on a small cluster"; }
  const char* example() const override {
    return "th-sim muri --trace trace1.csv.gz --policy thunderhead --durations unknown --json";
  }
  void add_flags(Flags& flags) override {
    trace_.add(flags);
    flags.choice("--policy", policy_, {"srtf", "srsf", "tiresias", "thunderhead"}, "what orders the jobs");
    flags.choice("--durations", durations_, {"known", "unknown"}, "whether thunderhead knows them");
    flags.choice("--protocol", protocol_, {"muri", "placed"},
                 "muri: each event costs every running job its start; placed: jobs stay on their nodes");
    flags.add("--nodes", nodes_, "nodes of the cluster");
    flags.add("--gpus-per-node", per_node_, "GPUs of a node");
  }

  Result<Json> run(const Common& common, bool&) override {
    TH_RETURN_IF_ERROR(check_range("--nodes", nodes_, 1, kMostNodes));
    TH_RETURN_IF_ERROR(check_range("--gpus-per-node", per_node_, 1, kMostPerNode));
    sim::Skipped skipped;
    TH_TRY(std::string text, sim::read_trace_file(trace_.path));
    TH_TRY(auto jobs, sim::read_muri(text, trace_.options(nodes_ * per_node_), skipped));
    TH_RETURN_IF_ERROR(check_some(jobs.size(), trace_.path));
    sim::MuriRun run{.durations_known = durations_ == "known",
                     .nodes = static_cast<int32_t>(nodes_),
                     .gpus_per_node = static_cast<int32_t>(per_node_)};
    if (policy_ == "srtf") run.policy = sim::MuriPolicy::kSrtf;
    if (policy_ == "srsf") run.policy = sim::MuriPolicy::kSrsf;
    if (policy_ == "tiresias") run.policy = sim::MuriPolicy::kTiresias;
    if (protocol_ == "placed") run.protocol = sim::MuriProtocol::kPlaced;
    const sim::MuriOutcome outcome = sim::run_muri(jobs, run);
    Json out = {{"trace", trace_.path},
                {"policy", policy_},
                {"protocol", protocol_},
                {"nodes", nodes_},
                {"gpus_per_node", per_node_},
                {"jobs", jobs.size()},
                {"avg_jct_s", outcome.avg_jct_s},
                {"makespan_s", outcome.makespan_s},
                {"p99_jct_s", outcome.p99_jct_s},
                {"decisions", outcome.events},
                {"starts", outcome.starts},
                {"preemptions", outcome.preempted},
                {"log_hash", fmt::format("{:016x}", outcome.log_hash)}};
    if (policy_ == "thunderhead") out["durations"] = durations_;
    add_skipped(out, skipped);
    TH_RETURN_IF_ERROR(write_queue_report(common.report, name(), out, outcome.samples, nodes_ * per_node_));
    return out;
  }

 private:
  TraceFlags trace_;
  std::string policy_ = "thunderhead", durations_ = "unknown", protocol_ = "muri";
  int64_t nodes_ = 8, per_node_ = 8;  // the cluster of the published runs
};

}  // namespace

std::unique_ptr<Command> make_muri_command() { return std::make_unique<Muri>(); }

}  // namespace th
