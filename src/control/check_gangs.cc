#include "control/check_gangs.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/units.h"
#include "launch/rendezvous.h"

namespace th::control {
namespace {

constexpr int64_t kGraceMs = 1000;

const std::string& job_of(const launch::RankChanged& event) { return event.report.id.job; }
const std::string& job_of(const launch::MetricsArrived& event) { return event.line.id.job; }
const std::string& job_of(const launch::GangChanged& event) { return event.job; }

/// {"event":"check","reason":"..."}
std::string reason_in(const std::string& line) {
  const auto json = parse_json(line, "line of a check");
  auto reason = json ? get_string(*json, "reason", "") : fail(json.error());
  return reason ? *reason : std::string();
}

}  // namespace

launch::RankPlace place_on(const ledger::Vm& vm) {
  return {vm.id, vm.id, vm.address.empty() ? "127.0.0.1" : vm.address, {}};
}

void CheckGangs::run(std::vector<std::string> argv, std::map<std::string, std::string> env,
                     std::vector<launch::RankPlace> places, int64_t timeout_ns,
                     std::function<void(const CheckOutcome&)> done) {
  if (prefix_.empty()) prefix_ = "check-" + core_.token().substr(0, 8);
  launch::GangSpec gang;
  gang.job = fmt::format("{}-{}", prefix_, next_++), gang.name = "check";
  gang.argv = std::move(argv), gang.env = std::move(env), gang.ranks = std::move(places);
  gang.grace_ms = kGraceMs;
  gang.master_port = launch::choose_port(gang.job + "/master", {});
  runs_[gang.job] = {core_.monotonic_ns() + timeout_ns, timeout_ns, {}, std::move(done)};
  const std::string job = gang.job;
  if (Status started = core_.node_launcher().start(std::move(gang)); !started)
    finish(job, {false, false, started.error().message, {}});
}

bool CheckGangs::take(const launch::Event& event) {
  const std::string job = std::visit([](const auto& e) { return job_of(e); }, event);
  const auto found = runs_.find(job);
  if (found == runs_.end()) return false;
  if (const auto* arrived = std::get_if<launch::MetricsArrived>(&event)) {
    found->second.line = arrived->line.line;
    core_.node_launcher().ack_metrics(arrived->line.id, arrived->line.line_no);
  }
  const auto* changed = std::get_if<launch::GangChanged>(&event);
  if (!changed) return true;
  if (changed->state == launch::GangState::kSucceeded) finish(job, {true, false, {}, {}});
  if (changed->state == launch::GangState::kFailed) {
    const bool lost = changed->cause && changed->cause->lost;
    finish(job, {false, lost, changed->cause ? changed->cause->report.reason : "a rank failed", {}});
  }
  if (changed->state == launch::GangState::kGone) {
    std::error_code ignored;
    std::filesystem::remove_all(core_.state_dir() / "jobs" / job, ignored);
    runs_.erase(job);
  }
  return true;
}

void CheckGangs::step() {
  std::vector<std::string> late;
  for (const auto& [job, run] : runs_) {
    if (run.done && core_.monotonic_ns() >= run.deadline_ns) late.push_back(job);
  }
  for (const std::string& job : late) {
    const int64_t timeout_ns = runs_.at(job).timeout_ns;
    finish(job, {false, false, "it did not end within " + format_duration(timeout_ns), {}});
  }
}

void CheckGangs::finish(const std::string& job, CheckOutcome outcome) {
  Run& run = runs_.at(job);
  const auto done = std::exchange(run.done, nullptr);
  outcome.line = run.line;
  if (const std::string told = reason_in(run.line); !outcome.ok && !told.empty()) outcome.reason = told;
  core_.node_launcher().stop(job);  // so that the nodes forget it
  if (done) done(outcome);
}

}  // namespace th::control
