// th-sim openb: pods of a published trace packed onto its nodes, by the product's policy or a published one.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "command.h"
#include "sim/packing/replay.h"
#include "sim/report/report.h"

namespace th {
namespace {

struct Spread {
  double mean = 0, sd = 0;  // sd over runs, n - 1
};

Spread spread_of(const std::vector<sim::PackingRun>& runs, size_t at) {
  Spread out;
  const auto count = static_cast<double>(runs.size());
  for (const auto& run : runs) out.mean += run.alloc_pct[at] / count;
  for (const auto& run : runs) out.sd += std::pow(run.alloc_pct[at] - out.mean, 2);
  out.sd = runs.size() > 1 ? std::sqrt(out.sd / (count - 1)) : 0;
  return out;
}

double hundredths(double value) { return std::round(value * 100) / 100; }

double percentile_us(std::vector<int64_t>& ns, double share) {
  auto at = ns.begin() + static_cast<int64_t>(share * static_cast<double>(ns.size() - 1));
  std::nth_element(ns.begin(), at, ns.end());
  return hundredths(static_cast<double>(*at) / 1000);
}

/// Of the last sample up to 100 % arrived.
double fragment_at_100(const sim::PackingRun& run) {
  double fragment = 0;
  for (const auto& sample : run.samples)
    if (sample.arrived_pct <= 100) fragment = sample.fragment_pct;
  return fragment;
}

/// The trace has no clock here: the axis counts a second for each percent of demand that arrived.
Status write_openb_report(const std::string& path, std::string command, const sim::PackingRun& run,
                          const Json& values) {
  if (path.empty()) return {};
  sim::Report report;
  report.title = "OpenB packed by " + values.at("policy").get<std::string>();
  report.command = std::move(command);
  sim::Track allocated("allocated"), fragment("fragment");
  for (const auto& sample : run.samples) {
    allocated.set(sample.arrived_pct, sample.alloc_pct);
    fragment.set(sample.arrived_pct, sample.fragment_pct);
    report.end_s = sample.arrived_pct;
  }
  for (const auto& [key, value] : values.items())
    report.figures.emplace_back(key, value.is_string() ? value.get<std::string>() : dump_json(value));
  report.charts = {
      {"GPUs allocated, a second for each percent of demand arrived", "%", {std::move(allocated)}},
      {"Idle and lost to the typical pods", "%", {std::move(fragment)}}};
  return sim::write_report(report, path);
}

class Openb final : public Command {
 public:
  const char* name() const override { return "openb"; }
  const char* help() const override { return "pack the pods of an OpenB trace onto its GPU nodes"; }
  const char* example() const override {
    return "th-sim openb --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv.gz "
           "--policy thunderhead --seeds 10 --json";
  }
  void add_flags(Flags& flags) override {
    flags.required("--nodes", nodes_,
                   "node list: sn, cpu_milli, memory_mib, gpu, model (CSV, may be gzipped)");
    flags.required("--pods", pods_,
                   "pod list: cpu_milli, memory_mib, num_gpu, gpu_milli, and gpu_spec or not");
    flags.choice("--policy", policy_, sim::packing_policies(), "who decides");
    flags.add("--seeds", seeds_, "runs, with seeds from --seed on");
    flags.choice("--bad-lines", bad_lines_, {"refuse", "skip"}, "what to do with lines that make no sense");
  }
  Result<Json> run(const Common& common, bool&) override;

 private:
  Result<sim::PackingTrace> read(sim::Skipped& skipped) const;

  std::string nodes_, pods_, policy_ = "thunderhead", bad_lines_ = "refuse";
  int64_t seeds_ = 10;
};

Result<sim::PackingTrace> Openb::read(sim::Skipped& skipped) const {
  const auto on_bad = bad_lines_ == "skip" ? sim::OnBadLine::kSkip : sim::OnBadLine::kRefuse;
  TH_TRY(std::string node_text, sim::read_trace_file(nodes_));
  TH_TRY(auto nodes, sim::read_openb_nodes(node_text, {.file = nodes_, .on_bad = on_bad}, skipped));
  int32_t max_gpus = 0;
  for (const auto& node : nodes) max_gpus = std::max(max_gpus, node.gpus);
  TH_TRY(std::string pod_text, sim::read_trace_file(pods_));
  TH_TRY(auto pods, sim::read_openb_pods(pod_text, {.file = pods_, .on_bad = on_bad}, max_gpus, skipped));
  return sim::make_packing_trace(nodes, pods);
}

Result<Json> Openb::run(const Common& common, bool&) {
  if (seeds_ < 1 || seeds_ > 1000)
    return fail(Code::kInvalidArgument, fmt::format("--seeds: want 1 to 1000, got {}", seeds_));
  sim::Skipped skipped;
  TH_TRY(const sim::PackingTrace trace, read(skipped));
  std::vector<sim::PackingRun> runs;
  std::vector<int64_t> decision_ns;
  uint64_t hash = 0;
  int64_t pods = 0, placed = 0;
  double fragment = 0;
  for (int64_t i = 0; i < seeds_; ++i) {
    const auto seed = static_cast<uint64_t>(common.seed + i);
    TH_TRY(auto policy, sim::make_packing_policy(policy_, trace.classes, trace.idle_by_model, seed));
    runs.push_back(sim::replay_packing(trace, *policy, seed, Env::real()));
    auto& run = runs.back();
    decision_ns.insert(decision_ns.end(), run.decision_ns.begin(), run.decision_ns.end());
    run.decision_ns = {};
    hash = hash * 31 + run.hash;
    pods += run.pods;
    placed += run.placed;
    fragment += fragment_at_100(run) / static_cast<double>(seeds_);
    fmt::print(stderr, "seed {}: {:.2f} % allocated at 100 % arrived\n", seed, run.alloc_pct[1]);
  }
  Json out;
  out["policy"] = policy_;
  for (size_t at = 0; at < sim::kArrivedPct.size(); ++at) {
    const Spread spread = spread_of(runs, at);
    out[fmt::format("alloc_pct_at_{}", sim::kArrivedPct[at])] = hundredths(spread.mean);
    out[fmt::format("alloc_sd_at_{}", sim::kArrivedPct[at])] = hundredths(spread.sd);
  }
  out["frag_pct_at_100"] = hundredths(fragment);
  out["nodes"] = trace.hosts.size();
  out["gpus"] = trace.capacity_milli() / reserve::kWholeGpuMilli;
  out["classes"] = trace.classes.size();
  out["seeds"] = seeds_;
  out["pods"] = pods;
  out["placed"] = placed;
  out["decision_p50_us"] = percentile_us(decision_ns, 0.5);
  out["decision_p99_us"] = percentile_us(decision_ns, 0.99);
  out["skipped_lines"] = skipped.lines;
  out["log_hash"] = fmt::format("{:016x}", hash);
  const std::string command =
      fmt::format("th-sim openb --nodes {} --pods {} --policy {} --seed {} --seeds {}", nodes_, pods_,
                  policy_, common.seed, seeds_);
  TH_RETURN_IF_ERROR(write_openb_report(common.report, command, runs.front(), out));
  return out;
}

}  // namespace

std::unique_ptr<Command> make_openb_command() { return std::make_unique<Openb>(); }

}  // namespace th
