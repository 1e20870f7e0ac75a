// th-sim place: how fast, and how near together, gangs are placed on a fleet that is in use.

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/units.h"
#include "command.h"
#include "fleet/presets.h"
#include "reserve/defrag.h"
#include "reserve/objective.h"
#include "sim/placement/load.h"

namespace th {
namespace {

/// VmRSS of this process.
int64_t rss_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmRSS:") continue;
    int64_t kib = 0;
    status >> kib;
    return kib * 1024;
  }
  return 0;
}

double percentile(const std::vector<double>& sorted, double part) {
  if (sorted.empty()) return 0;
  return sorted[static_cast<size_t>(part * static_cast<double>(sorted.size() - 1))];
}

struct Measured {
  std::vector<double> micros;  // decide, and the next snapshot; sorted
  double release_micros = 0;   // of all
  int64_t refused = 0, leaves = 0, spines = 0;
  uint64_t hash = sim::kLogHashStart;

  double all_micros() const {
    double sum = release_micros;
    for (double each : micros) sum += each;
    return sum;
  }
  Json json() const {
    auto placed = static_cast<double>(micros.size()) - static_cast<double>(refused);
    auto mean = [&](int64_t sum) { return placed > 0 ? static_cast<double>(sum) / placed : 0; };
    return {{"p50_us", percentile(micros, 0.5)},
            {"p99_us", percentile(micros, 0.99)},
            {"placements_per_s", static_cast<double>(micros.size()) * 1e6 / std::max(1.0, all_micros())},
            {"mean_switch_span", mean(leaves)},
            {"mean_spine_span", mean(spines)},
            {"refused", refused}};
  }
};

class Place : public Command {
 public:
  const char* name() const override { return "place"; }
  const char* help() const override { return "Place gangs on a fleet in use: time, switches, memory"; }
  const char* example() const override {
    return "th-sim place --preset hyperscale-131k --gpus 1024 --count 1000 --fill 0.8 --json";
  }
  void add_flags(Flags& flags) override {
    flags.add("--preset", preset_, "the fleet: openai-2020, voyager-eus2, eagle or hyperscale-131k");
    flags.add("--gpus", gpus_, "GPUs of each gang that is measured");
    flags.add("--count", count_, "gangs that are measured, each released again");
    flags.add("--fill", fill_, "part of the GPUs that are in use by gangs of the sizes of Philly's jobs");
    flags.add("--switches", request_.switches, "at most so many leaf switches; 0: any number");
    flags.add("--segment", request_.segment, "hosts in blocks of so many, each on one leaf; 0: none");
    flags.add("--spread", request_.spread, "spread the gang instead of packing it");
  }

  Result<Json> run(const Common& common, bool&) override {
    if (gpus_ < 1 || count_ < 1 || count_ > 10'000'000 || !(fill_ >= 0 && fill_ <= 1)) {
      return fail(Code::kInvalidArgument, "want --gpus and --count of at least 1, and --fill from 0 to 1");
    }
    TH_TRY(fleet::Fleet made, fleet::preset_fleet(preset_));
    auto fleet = std::make_shared<const fleet::Fleet>(std::move(made));
    const char* series = fleet->series_of(0).name;
    sim::Load load(fleet, series, static_cast<uint64_t>(common.seed));
    load.fill_up(fill_);
    reserve::Request request = sim::gang_request(series, gpus_);
    request.max_switches = static_cast<int32_t>(request_.switches);
    request.segment = static_cast<int32_t>(request_.segment);
    if (request_.spread) request.layout = reserve::Layout::kSpread;
    TH_TRY(Measured measured, measure(load.snapshot(), request));
    reserve::Fragmentation left = reserve::fragmentation(load.snapshot(), 0);
    Json result = measured.json();
    result["fill"] = load.fill();
    result["rss_bytes"] = rss_bytes();
    result["preset"] = preset_;
    result["hosts"] = fleet->hosts().size();
    result["gpus_total"] = fleet->num_gpus(*fleet::find_series(series));
    result["gangs_held"] = load.claims().size();
    result["free_gpus"] = left.free_gpus;
    result["fragmentation"] = left.share;
    result["log_hash"] = fmt::format("{:016x}", load.log_hash() ^ measured.hash);
    if (!common.report.empty()) TH_RETURN_IF_ERROR(write(common, load.snapshot(), result));
    return result;
  }

 private:
  Result<Measured> measure(const reserve::Snapshot& snapshot, const reserve::Request& request) const {
    Measured measured;
    reserve::Policy policy;
    policy.find_changes = false;
    Env& env = Env::real();
    measured.micros.reserve(static_cast<size_t>(count_));
    reserve::Snapshot now = snapshot;
    for (int64_t i = 0; i < count_; ++i) {
      int64_t start = env.monotonic_ns();
      auto plan = reserve::decide(now, request, policy, 0);
      if (!plan && plan.error().reason == reserve::Reason::kInvalid)
        return tl::unexpected(plan.error().error());
      if (!plan) {
        measured.micros.push_back(static_cast<double>(env.monotonic_ns() - start) / 1e3);
        ++measured.refused;
        continue;
      }
      reserve::Claim claim = reserve::claim_of(*plan, "measured");
      now = now.with_claim(claim).value();
      int64_t placed = env.monotonic_ns();
      now = now.without_claim(claim);
      measured.release_micros += static_cast<double>(env.monotonic_ns() - placed) / 1e3;
      measured.micros.push_back(static_cast<double>(placed - start) / 1e3);
      sim::hash_plan(measured.hash, *plan);
      count_switches(snapshot.fleet(), *plan, measured);
    }
    std::ranges::sort(measured.micros);
    return measured;
  }

  static void count_switches(const fleet::Fleet& fleet, const reserve::Plan& plan, Measured& measured) {
    fleet::LeafIndex leaf = -1;
    fleet::SpineIndex spine = -1;
    for (const reserve::HostGpus& part :
         plan.hosts) {  // ascending, and hosts of a leaf and a spine are together
      fleet::LeafIndex its_leaf = fleet.host(part.host).leaf;
      if (its_leaf == leaf) continue;
      leaf = its_leaf;
      ++measured.leaves;
      if (fleet.leaf(leaf).spine == spine) continue;
      spine = fleet.leaf(leaf).spine;
      ++measured.spines;
    }
  }

  Status write(const Common& common, const reserve::Snapshot& snapshot, const Json& result) const {
    sim::Report report;
    report.title = fmt::format("Placement on {}", preset_);
    report.command = fmt::format("th-sim place --preset {} --gpus {} --count {} --fill {} --seed {}", preset_,
                                 gpus_, count_, fill_, common.seed);
    for (const char* key : {"p50_us", "p99_us", "placements_per_s", "mean_switch_span", "refused", "fill",
                            "fragmentation", "rss_bytes"}) {
      report.figures.emplace_back(key, result[key].dump());
    }
    report.racks = sim::rack_cells(snapshot);
    return sim::write_report(report, common.report);
  }

  std::string preset_ = "hyperscale-131k";
  int64_t gpus_ = 1024, count_ = 1000;
  double fill_ = 0.8;
  struct {
    int64_t switches = 0, segment = 0;
    bool spread = false;
  } request_;
};

}  // namespace

std::unique_ptr<Command> make_place_command() { return std::make_unique<Place>(); }

}  // namespace th
