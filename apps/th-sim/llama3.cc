// th-sim llama3: one long job under Llama 3's published fault mix.

#include "sim/world/llama3.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "command.h"
#include "sim/report/report.h"

namespace th {
namespace {

using sim::Llama3Options;
using sim::Llama3Result;

struct Costs {
  const char* name;
  sim::InterruptionCosts costs;
};

/// MegaScale (NSDI'24), section 6.3: finding a fault and its diagnosis take under 10 minutes on average, and
/// what was there before the crash is reached again within 15 minutes. Both at their bound.
constexpr Costs kMegaScale = {"MegaScale", {600, 900, 2}};
constexpr Costs kSlow = {"restart in 10 minutes", {30, 600, 2}};
constexpr Costs kLongStall = {"stall of 30 s", {30, 120, 30}};

Json source_of_costs() {
  return {
      {"detect_s", "twice the 15 s of silence after which the control plane gives a node up"},
      {"restart_s",
       "MegaScale (NSDI'24): under 30 s to initialise 10,000 GPUs; the rest loads the state, 6.5 TB at the "
       "2 TB/s of Llama 3's storage, and runs in"},
      {"checkpoint_stall_s",
       "copying at most 4 GB a GPU (Llama 3, section 3.3.1) to the host over PCIe, and a barrier; the disk "
       "is written beside training"},
      {"survivors_save",
       "just-in-time checkpointing (Gupta et al., EuroSys'24): ranks that live hold every shard, since "
       "each has a replica on another host; th-train does not do this yet"},
      {"ettr", "productive time by time (Kokolis et al., HPCA'25, arXiv 2410.21680); stalls count as lost"},
      {"faults", "The Llama 3 Herd of Models (arXiv 2407.21783), table 5"}};
}

class Llama3 final : public Command {
 public:
  const char* name() const override { return "llama3"; }
  const char* help() const override { return "A long training job under Llama 3's published fault mix"; }
  const char* example() const override { return "th-sim llama3 --gpus 16384 --days 54 --json"; }

  void add_flags(Flags& flags) override {
    flags.add("--gpus", o_.gpus, "of the job, in whole blocks of 256");
    flags.add("--days", o_.days, "how long it runs");
    flags.add("--spares", o_.spares_per_block, "spare hosts of each block of 32");
    flags.add("--interval-s", o_.checkpoint_interval_s, "between checkpoints; 0: Young's optimum");
    flags.add("--detect-s", o_.costs.detect_s, "until a fault is known");
    flags.add("--restart-s", o_.costs.restart_s, "from then until the job trains again");
    flags.add("--stall-s", o_.costs.stall_s, "how long a checkpoint stops the job");
    flags.add("--step-s", o_.step_s, "one optimizer step");
    flags.add("--repair-hours", o_.repair_hours, "of a host");
    flags.add("--bad-repairs", o_.bad_repair_share, "share of repairs after which a host fails again soon");
    flags.add("--no-survivors-save", no_survivors_save_, "what was not saved before the fault is lost");
  }

  Result<Json> run(const Common& common, bool& failed) override {
    o_.seed = common.seed;
    o_.survivors_save = !no_survivors_save_;
    TH_TRY(const Llama3Result result, sim::run_llama3(o_));
    failed = false;
    Json kinds = Json::object();
    for (const auto& [kind, count] : result.by_kind) kinds[kind] = count;
    TH_TRY(Json table, make_table());
    if (!common.report.empty()) TH_RETURN_IF_ERROR(report(common, result));
    return Json{{"seed", o_.seed},
                {"gpus", o_.gpus},
                {"days", o_.days},
                {"interruptions", result.interruptions},
                {"expected_interruptions", result.expected_interruptions},
                {"ettr", result.ettr},
                {"detect_s", o_.costs.detect_s},
                {"restart_s", o_.costs.restart_s},
                {"checkpoint_stall_s", o_.costs.stall_s},
                {"checkpoint_interval_s", result.checkpoint_interval_s},
                {"survivors_save", o_.survivors_save},
                {"manual_steps", result.manual_steps},
                {"lost_gpu_hours", result.lost_gpu_hours},
                {"lost_s",
                 {{"detect", result.detect_s},
                  {"restart", result.restart_s},
                  {"stall", result.stall_s},
                  {"redone", result.redone_s},
                  {"no_host", result.waited_for_hosts_s}}},
                {"checkpoints", result.checkpoints},
                {"spares_per_block", o_.spares_per_block},
                {"replaced_hosts", result.replaced_hosts},
                {"lemons", result.lemons},
                {"by_kind", std::move(kinds)},
                {"published_ettr", "over 0.9 (The Llama 3 Herd of Models, section 3.3.4)"},
                {"sources", source_of_costs()},
                {"table", std::move(table)},
                {"log_hash", fmt::format("{:016x}", result.hash)}};
  }

 private:
  Result<Json> row(const char* costs, const Llama3Options& options, const sim::Llama3Place& place) const {
    TH_TRY(const Llama3Result result, sim::run_llama3(options, place));
    return Json{{"costs", costs},
                {"detect_s", options.costs.detect_s},
                {"restart_s", options.costs.restart_s},
                {"stall_s", options.costs.stall_s},
                {"spares", options.spares_per_block},
                {"interval_s", result.checkpoint_interval_s},
                {"survivors_save", options.survivors_save},
                {"ettr", result.ettr},
                {"manual_steps", result.manual_steps}};
  }

  Result<Json> make_table() const {
    Json table = Json::array();
    for (const int64_t spares : {0, 1, 2}) {
      Llama3Options options = o_;
      options.spares_per_block = spares;
      TH_TRY(const sim::Llama3Place place, sim::place_llama3(options));
      for (const Costs& costs : {Costs{"as asked", o_.costs}, kMegaScale, kSlow, kLongStall}) {
        options.costs = costs.costs;
        for (const bool survivors_save : {true, false}) {
          options.survivors_save = survivors_save;
          for (const double interval_s : {0.0, 300.0, 1800.0}) {
            options.checkpoint_interval_s = interval_s;
            TH_TRY(Json one, row(costs.name, options, place));
            table.push_back(std::move(one));
          }
        }
      }
    }
    return table;
  }

  Status report(const Common& common, const Llama3Result& result) const {
    sim::Report page;
    page.title = fmt::format("{} GPUs for {} days under Llama 3's fault mix", o_.gpus, o_.days);
    page.command = fmt::format("th-sim llama3 --gpus {} --days {} --seed {}", o_.gpus, o_.days, o_.seed);
    page.figures = {{"ETTR", fmt::format("{:.4f}", result.ettr)},
                    {"interruptions", std::to_string(result.interruptions)},
                    {"lost GPU-hours", fmt::format("{:.0f}", result.lost_gpu_hours)}};
    page.end_s = static_cast<double>(o_.days) * 86'400;
    sim::Track track("interruptions so far");
    double count = 0;
    track.set(0, 0);
    for (const double time_s : result.interruption_times_s) track.set(time_s, ++count);
    page.charts.push_back({"Interruptions", "", {std::move(track)}});
    return sim::write_report(page, common.report);
  }

  Llama3Options o_;
  bool no_survivors_save_ = false;
};

}  // namespace

std::unique_ptr<Command> make_llama3_command() { return std::make_unique<Llama3>(); }

}  // namespace th
