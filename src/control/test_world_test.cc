// What test_world.h declares; it has no tests of its own.

#include "control/test_world.h"

namespace th::control {

World::World(std::filesystem::path dir, int64_t rack_power_budget_w)
    : dir_(std::move(dir)), log_(ledger::open_memory_store()) {
  fleet::GenerateOptions options;
  options.rack_power_budget_w = rack_power_budget_w;
  options.num_leaves = 2, options.hosts_per_rack = 2;
  fleet_ = std::make_shared<const fleet::Fleet>(*fleet::generate_fleet(options));
  registry_ = *registry::Registry::open(dir_ / "models");
  restart();
}

void World::restart() {
  work.clear();
  c.reset();
  env.now_ns += kSecond;
  launcher_.emplace(env.now_ns);
  policy.min_all_reduce = min_all_reduce;
  ledger_ = *ledger::Ledger::open(std::make_unique<FlakyStore>(log_, disk_full, appends), env);
  c = *Controller::start({env,
                          *ledger_,
                          fleet_,
                          provider,
                          *launcher_,
                          *registry_,
                          dir_,
                          [this](Work w) { work.push_back(std::move(w)); },
                          {},
                          policy});
}

void World::settle() {
  for (int round = 0; round < 20; ++round) {
    TH_CHECK(c->step().has_value());
    for (Work& w : std::exchange(work, {})) w()();
  }
}

void World::validate_nodes() {
  for (const auto& [id, vm] : c->core.state().vms) {
    if (vm.state == ledger::VmState::kUp) c->core.stage(ledger::NodeValidated{id, "boot-" + id, "127.0.0.1"});
  }
}

void World::up() {
  for (int i = 0; i < 3; ++i) settle(), validate_nodes();
  settle();
  report(node::TaskState::kRunning);
}

void World::ready_slice(const std::string& name, int64_t gpus) {
  request::SliceSpec spec{name, gpus, "LOCAL", kHour, 0, {}};
  TH_CHECK(c->slices.hold(spec, c->jobs.reservations()).has_value());
  TH_CHECK(c->slices.commit(name).has_value());
  settle();
  validate_nodes();
  settle();
}

std::string World::submit(const std::string& slice, int64_t gpus, int64_t retries) {
  request::JobSpec spec;
  spec.name = "train", spec.gpus = gpus, spec.retries = retries, spec.command = {"true"};
  if (!slice.empty()) spec.slice = slice;
  auto id = c->jobs.submit(spec, "batch");
  TH_CHECK(id.has_value());
  settle();
  return *id;
}

std::vector<std::string> World::desired(const std::string& vm) const {
  std::vector<std::string> out;
  for (const auto& task : launcher_->desired(vm).tasks) out.push_back(task.id.text());
  return out;
}

void World::report(node::TaskState state, std::optional<int> exit_code) {
  for (const auto& [id, vm] : c->core.state().vms) {
    if (vm.state != ledger::VmState::kReady) continue;
    const node::SyncReply wanted = launcher_->desired(id);
    node::SyncRequest request;
    request.boot_id = vm.boot_id, request.have_generation = wanted.generation;
    for (const auto& task : wanted.tasks) {
      node::TaskReport report;
      report.id = task.id, report.state = state, report.exit_code = exit_code;
      request.tasks.push_back(report);
    }
    launcher_->on_report(id, request);
  }
  settle();
}

void World::report_job(const std::string& job, node::TaskState state, std::optional<int> exit_code) {
  for (const auto& [id, vm] : c->core.state().vms) {
    if (vm.state != ledger::VmState::kReady) continue;
    const node::SyncReply wanted = launcher_->desired(id);
    node::SyncRequest request;
    request.boot_id = vm.boot_id, request.have_generation = wanted.generation;
    for (const auto& task : wanted.tasks) {
      node::TaskReport report;
      const bool its = task.id.job == job;
      report.id = task.id, report.state = its ? state : node::TaskState::kRunning;
      if (its) report.exit_code = exit_code;
      request.tasks.push_back(report);
    }
    launcher_->on_report(id, request);
  }
  settle();
  if (state == node::TaskState::kExited) report_gone(job);
}

void World::report_gone(const std::string& job) {
  for (const auto& [id, vm] : c->core.state().vms) {
    if (vm.state != ledger::VmState::kReady) continue;
    const node::SyncReply wanted = launcher_->desired(id);
    node::SyncRequest request;
    request.boot_id = vm.boot_id, request.have_generation = wanted.generation;
    for (const auto& task : wanted.tasks) {
      if (task.id.job == job) continue;
      node::TaskReport report;
      report.id = task.id, report.state = node::TaskState::kRunning;
      request.tasks.push_back(report);
    }
    launcher_->on_report(id, request);
  }
  settle();
}

node::Task World::task(const std::string& vm, const std::string& job) const {
  for (const auto& task : launcher_->desired(vm).tasks) {
    if (task.id.job == job) return task;
  }
  return {};
}

void World::rank_killed(const std::string& id, int rank, int signal) {
  const std::string vm = job(id).ranks.at(static_cast<size_t>(rank)).place.vm;
  node::SyncRequest request;
  request.boot_id = c->core.state().vms.at(vm).boot_id;
  node::TaskReport report;
  report.id = {id, static_cast<int>(job(id).attempt), rank};
  report.state = node::TaskState::kExited, report.signal = signal;
  request.tasks.push_back(report);
  launcher_->on_report(vm, request);
}

}  // namespace th::control
