#pragma once
// A controller on a ledger in memory, with a clock that the test sets and a cloud that does what the test
// says. For orderings that real processes cannot be made to produce.

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/text.h"
#include "base/units.h"
#include "control/controller.h"

namespace th::control {

class FakeEnv final : public Env {
 public:
  int64_t unix_ns() const override { return now_ns; }
  int64_t monotonic_ns() const override { return now_ns; }
  std::string token() override { return "token-" + std::to_string(++tokens_); }
  int64_t now_ns = 1'000'000 * kSecond;

 private:
  int tokens_ = 0;
};

class FakeProvider final : public cloud::Provider {
 public:
  Status check_series(std::string_view series) const override {
    if (series == "LOCAL") return {};
    return fail(Code::kUnsatisfiable, "this cloud makes LOCAL only");
  }
  Result<std::vector<cloud::VmState>> create(const cloud::CreateVms& request, int64_t) override {
    creates.push_back(request.client_token);
    specs.insert(specs.end(), request.vms.begin(), request.vms.end());
    zones.push_back(request.zone);
    if (!refuse.empty()) return fail(refuse_code, refuse);
    if (std::ranges::count(refuse_zones, request.zone) > 0)
      return fail(Code::kNoCapacity, "zone " + request.zone + " is full");
    std::vector<cloud::VmState> out;
    for (const auto& spec : request.vms) {
      vms[spec.vm] = {spec.vm,
                      spec.host,
                      request.client_token,
                      cloud::VmPhase::kRunning,
                      "",
                      sha256_hex("token of " + spec.vm)};
      out.push_back(vms[spec.vm]);
    }
    return out;
  }
  Result<cloud::VmState> describe(std::string_view vm, int64_t) override {
    const auto found = vms.find(std::string(vm));
    if (found == vms.end()) return fail(Code::kNotFound, "no such VM");
    return found->second;
  }
  Result<std::vector<cloud::VmState>> list(int64_t) override {
    std::vector<cloud::VmState> out;
    for (const auto& [name, vm] : vms) out.push_back(vm);
    return out;
  }
  Status remove(std::string_view vm, int64_t) override {
    vms.erase(std::string(vm));
    return {};
  }

  Result<std::vector<cloud::Notice>> events(int64_t) override { return notices; }
  Status acknowledge(std::string_view id, int64_t) override {
    std::erase_if(notices, [&](const cloud::Notice& notice) { return notice.id == id; });
    return {};
  }

  std::map<std::string, cloud::VmState> vms;
  std::vector<cloud::Notice> notices;
  std::vector<std::string> creates;  // client tokens, in order
  std::vector<cloud::VmSpec> specs;  // that were to be made, in order
  std::vector<std::string> zones;    // asked for, in order
  std::string refuse;                // not empty: create() fails with it
  Code refuse_code = Code::kResourceExhausted;
  std::vector<std::string> refuse_zones;
};

/// Fails while `broken`.
class FlakyStore final : public ledger::Store {
 public:
  FlakyStore(std::shared_ptr<ledger::Store> inner, const bool& broken, int& appends)
      : inner_(std::move(inner)), broken_(broken), appends_(appends) {}
  Status append(const ledger::Batch& batch) override {
    ++appends_;
    if (broken_) return fail(Code::kNoSpace, "disk full");
    return inner_->append(batch);
  }
  Status read(int64_t after, const std::function<Status(const ledger::StoredEvent&)>& row) override {
    return inner_->read(after, row);
  }
  Result<std::optional<ledger::StoredAnswer>> find_answer(const std::string& key) override {
    return inner_->find_answer(key);
  }
  Status forget_answers_before(int64_t time_ns) override { return inner_->forget_answers_before(time_ns); }

 private:
  std::shared_ptr<ledger::Store> inner_;
  const bool& broken_;
  int& appends_;
};

/// Two leaves of one rack of two hosts each, two GPUs a host: l0r0h0, l0r0h1, l1r0h0, l1r0h1. The budget of a
/// rack is enough for all, unless it is given.
class World {
 public:
  explicit World(std::filesystem::path dir, int64_t rack_power_budget_w = 0);
  /// The controller dies and starts again on the same ledger; work under way is lost.
  void restart();
  /// A step, then the blocking work that it asked for, then what follows, until nothing is left to do.
  void settle();
  /// One step of the controller, without the blocking work.
  Status step() { return c->step(); }
  void pass(int64_t ns) { env.now_ns += ns; }

  /// Nodes that were made dial in, and ranks that were told to run do.
  void up();
  /// Holds and commits a slice of that many GPUs and lets its nodes dial in.
  void ready_slice(const std::string& name, int64_t gpus);
  void validate_nodes();
  std::string submit(const std::string& slice, int64_t gpus, int64_t retries = 2);
  /// Every node reports the ranks on its list in this state.
  void report(node::TaskState state, std::optional<int> exit_code = {});
  /// Every rank of this job that a node is to run is in this state; those of other jobs run.
  void report_job(const std::string& job, node::TaskState state, std::optional<int> exit_code);
  /// Every node that was to run ranks of the job says that it has none.
  void report_gone(const std::string& job);
  /// What the node is told of the job's first rank there.
  node::Task task(const std::string& vm, const std::string& job) const;
  /// One rank ends; the rest of its node's ranks run.
  void rank_killed(const std::string& job, int rank, int signal);
  /// What each node is told to run.
  std::vector<std::string> desired(const std::string& vm) const;
  launch::LocalLauncher& launcher() { return *launcher_; }

  const ledger::Job& job(const std::string& id) const { return c->core.state().jobs.at(id); }
  const ledger::Slice& slice(const std::string& name) const { return *c->core.state().find_slice(name); }

  FakeEnv env;
  reserve::QueuePolicy policy = reserve::default_policy();  // from the next restart() on
  int64_t min_all_reduce = 0;                               // of the policy: the nodes of tests run nothing
  FakeProvider provider;
  bool disk_full = false;
  int appends = 0;  // to the ledger's store
  std::vector<Work> work;
  std::unique_ptr<Controller> c;

 private:
  std::map<std::string, std::vector<node::TaskReport>> reports_;
  std::filesystem::path dir_;
  std::shared_ptr<ledger::Store> log_;
  std::shared_ptr<const fleet::Fleet> fleet_;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::optional<launch::LocalLauncher> launcher_;
  std::optional<registry::Registry> registry_;
};

}  // namespace th::control
