#include "sim/world/round.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "base/units.h"
#include "ledger/store.h"
#include "sim/log_hash.h"
#include "sim/world/buyers.h"
#include "sim/world/control_plane.h"
#include "sim/world/disk.h"
#include "sim/world/faults.h"
#include "sim/world/gateway.h"
#include "sim/world/recount.h"

namespace th::sim {
namespace {

constexpr int64_t kStartNs = 1'700'000'000 * kSecond;
constexpr int64_t kSettleNs = 2 * kHour;  // longer than any lease, retry and repair together

std::shared_ptr<const fleet::Fleet> small_fleet() {
  fleet::GenerateOptions options;
  options.num_leaves = 3, options.racks_per_leaf = 2, options.hosts_per_rack = 4;
  options.rack_power_budget_w = 215;  // three of four hosts at 70 W
  return std::make_shared<const fleet::Fleet>(*fleet::generate_fleet(options));
}

/// The operator and one of most accounts; the operator submits for all.
BuyerOptions buyer_options(const TenantRules& tenants) {
  BuyerOptions options;
  options.buyers = {"", "vision", "speech", "course", "north", "lab"};
  for (const AccountRule& rule : tenants.accounts) options.accounts.push_back(rule.name);
  return options;
}

class Round {
 public:
  Round(const RoundOptions& options, ChaosResult& result);
  void run();

 private:
  ControlPlaneHooks hooks();
  void draw_faults();
  void next_fault();
  void one_fault();
  void cut_off_leaf(int64_t leaf, int64_t duration_ns);
  void break_host(int32_t host);
  void plant(void (Round::*bug)());
  void plant_double_lease();
  void plant_lost_reservation();
  void plant_orphan_replica();
  void plant_double_meter(const ledger::UsageRecorded& batch);
  void end_faults();
  bool settle();
  void give_back();
  void check_settled();
  bool all_serve() const;
  void take(const ledger::Entry& entry);
  void violation(const char* rule, const std::string& what);
  void trace(const std::string& text) const;
  bool step();
  void sample();
  int64_t below(int64_t bound) { return static_cast<int64_t>(prng_.below(static_cast<uint64_t>(bound))); }

  const RoundOptions& options_;
  ChaosResult& result_;
  const int64_t first_step_;
  Prng prng_;
  Clock clock_;
  std::shared_ptr<const fleet::Fleet> fleet_ = small_fleet();
  SimCloud cloud_;
  Disk disk_;
  bool faults_ = true, bad_ = false, undeploying_ = false;
  int64_t dies_in_ = 0;  // points of death asked for until it dies; 0: never
  int64_t mean_points_ = 0, mean_fault_ns_ = 0, disk_full_until_ns_ = 0;
  int64_t num_faults_ = 0, next_sample_ns_ = 0;
  std::optional<ControlPlane> plane_;
  std::optional<SimNodes> nodes_;
  std::optional<Buyers> buyers_;
  std::optional<Gateway> gateway_;
  const TenantRules tenants_ = chaos_tenants();
  Recount recount_;
};

Round::Round(const RoundOptions& options, ChaosResult& result)
    : options_(options),
      result_(result),
      first_step_(result.steps),
      prng_(options.seed),
      clock_(prng_.next(), kStartNs),
      cloud_(clock_, prng_.next(), fleet_),
      disk_(prng_.next()),
      recount_(*fleet_, tenants_, [this](auto rule, const std::string& what) { violation(rule, what); }) {
  auto found = [this](const char* rule, const std::string& what) { violation(rule, what); };
  const TenantRules rules = options.plant == "quota" ? misread(tenants_) : tenants_;
  const std::string policy = policy_yaml(rules, static_cast<int64_t>(prng_.below(2) * prng_.below(9)));
  plane_.emplace(clock_, prng_.next(), fleet_, cloud_, options.scratch_dir, policy, hooks());
  nodes_.emplace(clock_, prng_.next(), cloud_, *plane_);
  nodes_->on_conflict = [this](const std::string& what) { violation(kDoubleLease, what); };
  buyers_.emplace(clock_, prng_.next(), *plane_, *fleet_, buyer_options(tenants_), found);
  gateway_.emplace(clock_, prng_.next(), *plane_, found);
  draw_faults();
  result_.fleet_gpus = 0;
  for (const fleet::Host& host : fleet_->hosts()) result_.fleet_gpus += host.gpus;
  cloud_.forgets_a_vm = options.plant == "leak-vm";
  nodes_->starts_half_gangs = options.plant == "half-gang";
  if (options.plant == "lost-ack") disk_.lie();
}

ControlPlaneHooks Round::hooks() {
  ControlPlaneHooks hooks;
  hooks.open_store = [this] { return disk_.open(); };
  hooks.dies_here = [this] {
    if (!faults_ || dies_in_ == 0 || --dies_in_ > 0) return false;
    dies_in_ = 1 + below(2 * mean_points_);
    // Here and now, or inside one of the next transactions.
    if (below(2) == 0) return true;
    disk_.die_at_write(1 + below(30));
    return false;
  };
  hooks.disk_is_full = [this] { return clock_.unix_ns() < disk_full_until_ns_; };
  hooks.process_is_gone = [this] { return disk_.process_is_gone(); };
  hooks.on_death = [this] {
    trace("the control plane dies");
    disk_.crash(below(2) == 0);
  };
  hooks.on_entry = [this](const ledger::Entry& entry) { take(entry); };
  hooks.on_start = [this] {
    trace("the control plane is up");
    buyers_->check(plane_->state());
    gateway_->check(plane_->state());
  };
  hooks.on_refused_start = [this](const Error& error) { violation(kLostAck, error.message); };
  return hooks;
}

/// Each kind of misbehaviour is there in half of the rounds, at a strength of its own.
void Round::draw_faults() {
  auto some = [this](int64_t most) { return below(2) == 0 ? 0 : 1 + below(most); };
  CloudFaults& cloud = cloud_.faults;
  cloud = {some(100), some(150), some(40), some(60), some(60), some(80), some(150), some(60), some(200)};
  nodes_->loses_messages = some(60);
  nodes_->fails_validation = some(40);
  mean_points_ = 200 * (1 + below(10));
  dies_in_ = below(5) == 0 ? 0 : 1 + below(2 * mean_points_);
  mean_fault_ns_ = (20 + below(400)) * kSecond;
}

void Round::violation(const char* rule, const std::string& what) {
  bad_ = true;
  trace(fmt::format("VIOLATION {}: {}", rule, what));
  result_.violations.push_back({rule, what, options_.number, result_.steps, clock_.unix_ns() - kStartNs,
                                first_step_ + options_.steps});
}

void Round::trace(const std::string& text) const {
  if (!options_.trace) return;
  fmt::print(options_.trace, "{} {} {:.3f} {}\n", options_.number, result_.steps,
             static_cast<double>(clock_.unix_ns() - kStartNs) / 1e9, text);
}

void Round::take(const ledger::Entry& entry) {
  const std::string text = fmt::format("{} {} {} {}", entry.seq, entry.time_ns, ledger::kind_of(entry.event),
                                       ledger::event_to_json(entry.event));
  hash_text(result_.hash, text);
  trace(text);
  if (const auto* running = std::get_if<ledger::AttemptRunning>(&entry.event)) {
    const auto started = nodes_->started(running->job, static_cast<int>(running->attempt));
    const int64_t ranks = recount_.ranks(running->job);
    if (static_cast<int64_t>(started.size()) != ranks) {
      violation(kHalfGang, fmt::format("{} is told as running, and {} of its {} ranks ever started",
                                       running->job, started.size(), ranks));
    }
  }
  count(entry.event, result_);
  if (const auto* usage = std::get_if<ledger::UsageRecorded>(&entry.event)) {
    gateway_->taken(*usage);
    if (options_.plant == "double-meter" && !bad_) plant_double_meter(*usage);
  }
  try {
    recount_.take(entry);
  } catch (const std::out_of_range&) {
    violation(kBroken,
              fmt::format("event {} ({}) names what never was", entry.seq, ledger::kind_of(entry.event)));
  }
}

void Round::next_fault() {
  if (!faults_) return;
  const double pause_ns = prng_.exponential(static_cast<double>(mean_fault_ns_));
  clock_.after(static_cast<int64_t>(pause_ns), [this] {
    if (!faults_) return;
    one_fault();
    next_fault();
  });
}

void Round::break_host(int32_t index) {
  const std::string host = fleet_->host(index).id;
  cloud_.break_host(host);
  clock_.after((1 + below(20)) * kMinute, [this, host] { cloud_.repair_host(host); });
}

void Round::cut_off_leaf(int64_t leaf, int64_t duration_ns) {
  for (const std::string& vm : nodes_->running()) {
    const auto host = fleet_->find_host(cloud_.machines().at(vm).spec.host);
    if (fleet_->host(*host).leaf == leaf) nodes_->cut_off(vm, duration_ns);
  }
}

/// Of the published kinds, as often beside each other as they were; some are the control plane's own.
void Round::one_fault() {
  ++num_faults_;
  const std::vector<std::string> nodes = nodes_->running();
  const int64_t own = below(8);
  if (own == 0) {
    disk_full_until_ns_ = clock_.unix_ns() + (1 + below(20)) * kSecond;
    return trace("fault: the disk is full");
  }
  if (own == 1 && !nodes.empty()) {
    const std::string& vm = nodes[static_cast<size_t>(below(static_cast<int64_t>(nodes.size())))];
    trace("fault: reboot of " + vm);
    return nodes_->reboot(vm);
  }
  const FaultKind& kind = llama3_fault(below(kLlama3Interruptions));
  const auto host = static_cast<int32_t>(below(static_cast<int64_t>(fleet_->hosts().size())));
  trace(fmt::format("fault: {} at {}", kind.name, fleet_->host(host).id));
  switch (kind.takes) {
    case Takes::kHost:
      // Half of them let the host live and take the rank that used the part.
      if (below(2) == 0) return break_host(host);
      [[fallthrough]];
    case Takes::kRank:
    case Takes::kNobody:
      if (!nodes.empty())
        nodes_->kill_rank(nodes[static_cast<size_t>(below(static_cast<int64_t>(nodes.size())))]);
      return;
    case Takes::kLeaf:
      return cut_off_leaf(fleet_->host(host).leaf, (1 + below(40)) * kSecond);
    case Takes::kRack: {
      const fleet::Rack& rack = fleet_->rack(fleet_->host(host).rack);
      for (int32_t i = 0; i < rack.num_hosts; ++i) break_host(rack.first_host + i);
      return;
    }
  }
}

void Round::plant(void (Round::*bug)()) {
  clock_.after(20 * kSecond, [this, bug] {
    plant(bug);
    if (plane_->up() && faults_) (this->*bug)();
  });
}

/// A planner that gives hosts to a second buyer: as if a plan had been made on an old picture.
void Round::plant_double_lease() {
  for (const auto& [id, slice] : plane_->state().slices) {
    if (slice.state != ledger::SliceState::kReady) continue;
    ledger::SliceHeld held = slice.terms;
    held.slice = fmt::format("slice-{}", plane_->state().next_slice), held.name = "twice";
    held.hold_expires_ns = clock_.unix_ns() + kMinute;
    plane_->controller().core.stage(held);
    return;
  }
}

/// A control plane that forgets what it promised.
void Round::plant_lost_reservation() {
  const auto& there = plane_->state().reservations;
  if (!there.empty())
    plane_->controller().core.stage(ledger::ReservationEnded{there.begin()->first, "forgotten"});
}

/// A control plane that forgets what it has to stop.
void Round::plant_orphan_replica() {
  for (const auto& [name, of] : plane_->state().deployments) {
    if (of.state == "ready")
      return plane_->controller().core.stage(ledger::DeploymentStopped{name, "forgotten", false});
  }
}

/// A control plane that takes a batch of usage that comes again for a new one.
void Round::plant_double_meter(const ledger::UsageRecorded& batch) {
  clock_.after(kSecond, [this, batch] {
    if (!plane_->up() || !faults_) return;
    ledger::UsageRecorded again = batch;
    int64_t seq = plane_->state().journals.at(batch.journal);
    for (ledger::UsageRecord& record : again.records) record.seq = ++seq;
    plane_->controller().core.stage(std::move(again));
  });
}

void Round::sample() {
  next_sample_ns_ = clock_.unix_ns() + 30 * kSecond;
  result_.samples.push_back({static_cast<double>(result_.virtual_ns + clock_.unix_ns() - kStartNs) / 1e9,
                             recount_.gpus_in_use(), recount_.num_live(),
                             static_cast<int64_t>(cloud_.machines().size()),
                             result_.faults + num_faults_ + cloud_.misbehaved()});
  if (plane_->up()) buyers_->check(plane_->state());
}

bool Round::step() {
  ++result_.steps;
  if (clock_.unix_ns() >= next_sample_ns_) sample();
  return clock_.run_next() && !bad_;
}

void Round::run() {
  plane_->start();
  buyers_->start();
  gateway_->start();
  next_fault();
  if (options_.plant == "double-lease") plant(&Round::plant_double_lease);
  if (options_.plant == "lost-reservation") plant(&Round::plant_lost_reservation);
  if (options_.plant == "orphan-replica") plant(&Round::plant_orphan_replica);
  for (int64_t i = 0; i < options_.steps; ++i) {
    if (!step()) break;
  }
  if (!bad_) end_faults();
  if (!bad_ && settle()) check_settled();
  hash_word(result_.hash, buyers_->hash()), hash_word(result_.hash, gateway_->hash());
  result_.faults += num_faults_ + cloud_.misbehaved();
  result_.crashes += plane_->deaths(), result_.restarts += plane_->starts() - 1;
  result_.commands += buyers_->commands(), result_.acknowledged += buyers_->acknowledged();
  result_.refused += buyers_->refused(), result_.gateway_crashes += gateway_->crashes();
  result_.usage_records += gateway_->records(), result_.tokens += gateway_->tokens();
  result_.leases += recount_.num_leases(), result_.reserved += recount_.num_reserved();
  result_.virtual_ns += clock_.unix_ns() - kStartNs;
}

void Round::end_faults() {
  faults_ = false;
  disk_.die_at_write(0);
  trace("faults end");
  cloud_.faults = {};
  nodes_->loses_messages = nodes_->fails_validation = 0;
  disk_full_until_ns_ = 0;
  for (const fleet::Host& host : fleet_->hosts()) cloud_.repair_host(host.id);
  for (const std::string& vm : nodes_->running()) nodes_->cut_off(vm, 0);
  buyers_->wind_down();
  gateway_->wind_down();
}

/// Each deployment has its replica, and the gateway was told so.
bool Round::all_serve() const {
  std::set<std::string> ready;
  for (const auto& [name, of] : plane_->state().deployments) {
    const bool runs = plane_->state().jobs.at(of.created.job).state == ledger::JobState::kRunning;
    if (of.state == "starting" || (of.state == "ready" && !runs)) return false;
    if (of.state == "ready") ready.insert(name);
  }
  return ready == gateway_->serves();
}

/// Runs on until nothing is left of anything. False: after kSettleNs something is.
bool Round::settle() {
  const int64_t until_ns = clock_.unix_ns() + kSettleNs;
  int64_t next_look_ns = 0;
  while (clock_.unix_ns() < until_ns) {
    if (!step()) return false;
    if (clock_.unix_ns() < next_look_ns || !plane_->up() || !buyers_->settled() || !gateway_->settled())
      continue;
    next_look_ns = clock_.unix_ns() + 20 * kSecond;
    const auto& core = plane_->controller().core;
    const bool settled = core.active_slices().empty() && core.active_jobs().empty() &&
                         core.queued_jobs().empty() && core.state().reservations.empty() &&
                         core.state().kept_vms.empty() && gateway_->serves().empty();
    if (undeploying_ && settled && cloud_.machines().empty()) return true;
    undeploying_ = undeploying_ || all_serve();
    buyers_->give_back(core.state());
    if (undeploying_) buyers_->undeploy(core.state());
  }
  std::string leaked, left;
  for (const auto& [vm, machine] : cloud_.machines()) leaked += " VM " + vm;
  if (!leaked.empty()) violation(kLeakedVm, "nobody asks for them and they are still there:" + leaked);
  for (const auto& [id, slice] : plane_->state().slices) left += slice.live() ? " " + id : "";
  for (const auto& [id, job] : plane_->state().jobs) left += job.ended() ? "" : " " + id;
  for (const auto& [name, of] : plane_->state().reservations) left += " reservation " + name;
  if (!undeploying_ && !all_serve()) left += " a deployment without its replica";
  if (!gateway_->settled()) left += " usage records";
  if (!left.empty() || !buyers_->settled()) violation(kUnsettled, "still not settled:" + left);
  return false;
}

void Round::check_settled() {
  const ledger::State& state = plane_->state();
  buyers_->check(state);
  gateway_->check(state);
  const Recount::Paid paid = recount_.check_bills(state, clock_.unix_ns());
  result_.gpu_ns_paid += paid.gpu_ns, result_.microusd_paid += paid.microusd;
  for (const auto& [id, slice] : state.slices) {
    if (slice.live()) violation(kUnsettled, fmt::format("{} is {}", id, ledger::name_of(slice.state)));
  }
  for (const auto& [id, job] : state.jobs) {
    if (!job.ended()) violation(kUnsettled, fmt::format("{} is {}", id, ledger::name_of(job.state)));
  }
  for (const auto& [id, vm] : state.vms) {
    if (vm.state != ledger::VmState::kDeleted) {
      violation(kLeakedVm, fmt::format("VM {} is {} in the ledger", id, ledger::name_of(vm.state)));
    }
  }
}

}  // namespace

void run_round(const RoundOptions& options, ChaosResult& result) { Round(options, result).run(); }

}  // namespace th::sim
