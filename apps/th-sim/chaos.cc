// th-sim chaos: the control plane among random buyers, faults and crashes, with independent checkers.

#include "sim/world/chaos.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/units.h"
#include "command.h"
#include "sim/report/report.h"

namespace th {
namespace {

class Chaos final : public Command {
 public:
  const char* name() const override { return "chaos"; }
  const char* help() const override { return "Random buyers, faults and crashes against the control plane"; }
  const char* example() const override { return "th-sim chaos --steps 1000000 --json"; }

  void add_flags(Flags& flags) override {
    flags.add("--steps", options_.steps, "events of the simulated world");
    flags.add("--steps-per-round", options_.steps_per_round,
              "after so many all faults end, everything is given back, and a new ledger begins");
    flags.choice("--break", plant_,
                 {"none", "double-lease", "half-gang", "lost-ack", "leak-vm", "quota", "lost-reservation",
                  "double-meter", "orphan-replica"},
                 "plant this bug, which has to be found");
    flags.add("--trace", options_.trace_file, "write every event and fault here, as text");
  }

  Result<Json> run(const Common& common, bool& failed) override {
    options_.seed = common.seed;
    options_.plant = plant_ == "none" ? "" : plant_;
    TH_TRY(const sim::ChaosResult result, sim::run_chaos(options_));
    failed = !result.violations.empty();
    Json found = Json::array();
    for (const sim::Violation& violation : result.violations) {
      found.push_back({{"rule", violation.rule},
                       {"what", violation.what},
                       {"round", violation.round},
                       {"step", violation.step},
                       {"time_s", static_cast<double>(violation.time_ns) / 1e9}});
    }
    Json out = {{"steps", result.steps},
                {"seed", options_.seed},
                {"rounds", result.rounds},
                {"virtual_hours", static_cast<double>(result.virtual_ns) / static_cast<double>(kHour)},
                {"faults", result.faults},
                {"crashes", result.crashes},
                {"restarts", result.restarts},
                {"commands", result.commands},
                {"acknowledged", result.acknowledged},
                {"events", result.events},
                {"leases", result.leases},
                {"jobs", result.jobs},
                {"vms", result.vms},
                {"preemptions", result.preemptions},
                {"resizes", result.resizes},
                {"reservations", result.reservations},
                {"reserved_leases", result.reserved},
                {"deployments", result.deployments},
                {"deployments_ready", result.deployed},
                {"usage_records", result.usage_records},
                {"tokens", result.tokens},
                {"gateway_crashes", result.gateway_crashes},
                {"refused_by_limits", result.refused},
                {"gpu_hours_paid", static_cast<double>(result.gpu_ns_paid) / static_cast<double>(kHour)},
                {"microusd_paid", result.microusd_paid},
                {"break", plant_},
                {"hash", fmt::format("{:016x}", result.hash)},
                {"log_hash", fmt::format("{:016x}", result.hash)},
                {"violations", result.violations.size()}};
    if (failed) {
      const std::string plant = options_.plant.empty() ? "" : " --break " + options_.plant;
      out["first"] = found[0];
      out["again"] =
          fmt::format("th-sim chaos --seed {} --steps {} --steps-per-round {}{} --trace chaos.txt",
                      options_.seed, result.violations[0].again_steps, options_.steps_per_round, plant);
      out["found"] = std::move(found);
    }
    if (!common.report.empty()) TH_RETURN_IF_ERROR(report(common, result));
    return out;
  }

 private:
  Status report(const Common& common, const sim::ChaosResult& result) const {
    sim::Report page;
    page.title = "The control plane among faults";
    page.command = fmt::format("th-sim chaos --seed {} --steps {} --steps-per-round {}", options_.seed,
                               options_.steps, options_.steps_per_round);
    page.figures = {{"violations", std::to_string(result.violations.size())},
                    {"faults", std::to_string(result.faults)},
                    {"crashes", std::to_string(result.crashes)},
                    {"leases", std::to_string(result.leases)},
                    {"commands", std::to_string(result.commands)}};
    page.end_s = static_cast<double>(result.virtual_ns) / 1e9;
    sim::Track used("paid for"), slices("slices"), vms("VMs"), faults("so far");
    for (const sim::ChaosSample& at : result.samples) {
      used.set(at.time_s, 100.0 * static_cast<double>(at.gpus_paid) / static_cast<double>(result.fleet_gpus));
      slices.set(at.time_s, static_cast<double>(at.slices));
      vms.set(at.time_s, static_cast<double>(at.vms));
      faults.set(at.time_s, static_cast<double>(at.faults));
    }
    page.charts.push_back({"GPUs of the fleet", "%", {std::move(used)}});
    page.charts.push_back({"Slices and VMs", "", {std::move(slices), std::move(vms)}});
    page.charts.push_back({"Faults", "", {std::move(faults)}});
    return sim::write_report(page, common.report);
  }

  sim::ChaosOptions options_;
  std::string plant_ = "none";
};

}  // namespace

std::unique_ptr<Command> make_chaos_command() { return std::make_unique<Chaos>(); }

}  // namespace th
