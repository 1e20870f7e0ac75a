#include "sim/world/llama3.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/env.h"
#include "base/units.h"
#include "reserve/reserve.h"
#include "sim/log_hash.h"
#include "sim/world/faults.h"

namespace th::sim {
namespace {

constexpr int32_t kBlockHosts = 32;  // a SuperPOD's scalable unit: DGX SuperPOD reference architecture, H100
constexpr int32_t kRackHosts = 4;    // the same: four DGX H100 a rack
constexpr int64_t kLemonFaults = 3;  // a host that failed so often is not used again
constexpr double kBadHostWeight = 50;
constexpr const char* kSeries = "ND_H100_v5";

/// One host of the gang, for as long as any run.
reserve::Claim claim_of(const fleet::Fleet& fleet, reserve::HostIndex host) {
  return {
      fmt::format("llama3-{}", host), 0, int64_t{400} * kDay, {{host, (1u << fleet.host(host).gpus) - 1}}};
}

class Run {
 public:
  Run(const Llama3Options& options, const Llama3Place& place)
      : o_(options),
        prng_(static_cast<uint64_t>(options.seed)),
        snapshot_(place.snapshot),
        hosts_(place.hosts) {
    const double share = static_cast<double>(o_.gpus) / kLlama3Gpus;
    mtbf_s_ = kLlama3Days * 86'400.0 / kLlama3Interruptions / share;
    end_s_ = static_cast<double>(o_.days) * 86'400;
    out_.expected_interruptions = end_s_ / mtbf_s_;
    out_.hash = kLogHashStart;
    for (const FaultKind& kind : llama3_faults()) out_.by_kind.emplace_back(kind.name, 0);
  }
  Llama3Result go();

 private:
  struct Repair {
    double ready_s = 0;
    reserve::HostIndex host = 0;
  };
  double chosen_interval_s() const;
  void train(double until_s);
  void interrupt();
  size_t draw_host();
  void lose_host(size_t slot);
  void give_back_repaired();
  bool replace(size_t slot);
  void claim(reserve::HostIndex host, bool wanted);

  const Llama3Options& o_;
  Prng prng_;
  reserve::Snapshot snapshot_;
  std::vector<reserve::HostIndex> hosts_;  // of the gang, by slot
  Llama3Result out_;
  double mtbf_s_ = 0, end_s_ = 0, interval_s_ = 0;
  double now_s_ = 0, next_fault_s_ = 0;
  double done_s_ = 0, saved_s_ = 0;  // work: done in memory, and safe on disk
  std::vector<size_t> empty_;        // slots whose host is lost
  std::vector<Repair> repairs_;
  std::map<reserve::HostIndex, int64_t> faults_of_;
  std::map<reserve::HostIndex, bool> bad_;  // came back from its repair as it went
};

void Run::claim(reserve::HostIndex host, bool wanted) {
  const reserve::Claim own = claim_of(snapshot_.fleet(), host);
  if (!wanted) {
    snapshot_ = snapshot_.without_claim(own);
    return;
  }
  auto next = snapshot_.with_claim(own);
  TH_CHECK(next.has_value());
  snapshot_ = *std::move(next);
}

/// Of the faults that lose the work since the last checkpoint.
double Run::chosen_interval_s() const {
  if (o_.checkpoint_interval_s > 0) return o_.checkpoint_interval_s;
  int64_t losing = 0;
  for (const FaultKind& kind : llama3_faults())
    losing += o_.survivors_save && kind.survivors_can_save ? 0 : kind.count;
  return young_interval_s(o_.costs.stall_s, mtbf_s_ * kLlama3Interruptions / static_cast<double>(losing));
}

Llama3Result Run::go() {
  interval_s_ = out_.checkpoint_interval_s = chosen_interval_s();
  next_fault_s_ = prng_.exponential(mtbf_s_);
  while (now_s_ < end_s_) {
    train(std::min(next_fault_s_, end_s_));
    if (now_s_ < end_s_) interrupt();
  }
  out_.ettr = done_s_ / end_s_;
  out_.lost_gpu_hours = (end_s_ - done_s_) / 3600 * static_cast<double>(o_.gpus);
  return std::move(out_);
}

/// Trains and saves by turns from now until `until_s`.
void Run::train(double until_s) {
  const double cycle_s = interval_s_ + o_.costs.stall_s;
  const double wall_s = until_s - now_s_;
  const double cycles = std::floor(wall_s / cycle_s);
  const double rest_s = wall_s - cycles * cycle_s;
  if (cycles > 0) saved_s_ = done_s_ + cycles * interval_s_;
  done_s_ += cycles * interval_s_ + std::min(rest_s, interval_s_);
  out_.stall_s += cycles * o_.costs.stall_s + std::max(0.0, rest_s - interval_s_);
  out_.checkpoints += static_cast<int64_t>(cycles);
  now_s_ = until_s;
}

/// The slot whose host fails: any of them, those that came back bad much rather.
size_t Run::draw_host() {
  std::vector<size_t> bad;
  for (size_t slot = 0; slot < hosts_.size() && !bad_.empty(); ++slot) {
    if (bad_.count(hosts_[slot])) bad.push_back(slot);
  }
  const double all = static_cast<double>(hosts_.size()) + kBadHostWeight * static_cast<double>(bad.size());
  const double drawn = prng_.uniform() * all;
  if (drawn < static_cast<double>(hosts_.size())) return static_cast<size_t>(drawn);
  return bad[static_cast<size_t>((drawn - static_cast<double>(hosts_.size())) / kBadHostWeight)];
}

void Run::lose_host(size_t slot) {
  if (std::find(empty_.begin(), empty_.end(), slot) != empty_.end()) return;
  const reserve::HostIndex host = hosts_[slot];
  claim(host, false);
  snapshot_ = snapshot_.with_out_of_use(host, "it is being repaired");
  empty_.push_back(slot);
  bad_.erase(host);
  if (++faults_of_[host] >= kLemonFaults) {
    ++out_.lemons;  // never given back
    return;
  }
  repairs_.push_back({now_s_ + o_.repair_hours * 3600, host});
}

void Run::give_back_repaired() {
  std::erase_if(repairs_, [this](const Repair& repair) {
    if (repair.ready_s > now_s_) return false;
    snapshot_ = snapshot_.with_out_of_use(repair.host, std::nullopt);
    if (prng_.uniform() < o_.bad_repair_share) bad_[repair.host] = true;
    return true;
  });
}

/// As the control plane replaces a slice's lost host: one host more, wherever reserve finds it.
bool Run::replace(size_t slot) {
  reserve::Request request;
  request.name = "llama3", request.gpus = snapshot_.fleet().host(hosts_[slot]).gpus, request.series = kSeries;
  request.duration_ns = kDay;
  reserve::Policy policy;
  policy.find_changes = false;
  const auto plan = reserve::decide(snapshot_, request, policy, static_cast<int64_t>(now_s_ * 1e9));
  if (!plan) return false;
  hash_text(out_.hash, fmt::format("{} replaces {};", plan->hosts[0].host, hosts_[slot]));
  hosts_[slot] = plan->hosts[0].host;
  claim(hosts_[slot], true);
  ++out_.replaced_hosts;
  return true;
}

/// A fault, and what it takes until the job trains again; faults meanwhile begin it anew.
void Run::interrupt() {
  bool saved = false;
  while (true) {
    const FaultKind& kind = llama3_fault(static_cast<int64_t>(prng_.below(kLlama3Interruptions)));
    const size_t slot = draw_host();
    ++out_.interruptions;
    out_.interruption_times_s.push_back(now_s_);
    ++out_.by_kind[static_cast<size_t>(&kind - llama3_faults().data())].second;
    hash_text(out_.hash, fmt::format("{:.6f} {} {};", now_s_, kind.name, hosts_[slot]));
    const fleet::Host& host = snapshot_.fleet().host(hosts_[slot]);
    const int32_t rack = host.rack;
    if (kind.takes == Takes::kRack) {
      for (size_t other = 0; other < hosts_.size(); ++other) {
        if (snapshot_.fleet().host(hosts_[other]).rack == rack) lose_host(other);
      }
    } else if (kind.takes != Takes::kNobody) {
      lose_host(slot);
    }
    next_fault_s_ = now_s_ + prng_.exponential(mtbf_s_);
    double up_s = now_s_ + o_.costs.detect_s;
    out_.detect_s += o_.costs.detect_s;
    if (!saved) {
      saved = true;
      double keep_s = saved_s_;
      if (o_.survivors_save && kind.survivors_can_save) {
        // The step that was under way is lost: nobody has its gradients whole.
        keep_s = std::max(saved_s_, std::floor(done_s_ / o_.step_s) * o_.step_s);
        up_s += o_.costs.stall_s, out_.stall_s += o_.costs.stall_s;
        ++out_.checkpoints;
      }
      out_.redone_s += done_s_ - keep_s;
      done_s_ = saved_s_ = keep_s;
    }
    give_back_repaired();
    std::erase_if(empty_, [this](size_t empty) { return replace(empty); });
    double wait_until_s = up_s;
    while (!empty_.empty()) {
      if (repairs_.empty()) {
        ++out_.manual_steps;  // somebody has to bring a host
        repairs_.push_back({wait_until_s + o_.repair_hours * 3600, hosts_[empty_[0]]});
      }
      const auto first = std::ranges::min_element(repairs_, {}, &Repair::ready_s);
      wait_until_s = std::max(wait_until_s, first->ready_s);
      const double fault_s = now_s_;
      now_s_ = wait_until_s;
      give_back_repaired();
      std::erase_if(empty_, [this](size_t empty) { return replace(empty); });
      now_s_ = fault_s;
    }
    // A job that waits for hosts does not run, and what does not run is not interrupted.
    const double waited_s = wait_until_s - up_s;
    out_.waited_for_hosts_s += waited_s;
    next_fault_s_ += waited_s;
    up_s = wait_until_s + o_.costs.restart_s;
    out_.restart_s += o_.costs.restart_s;
    if (next_fault_s_ >= up_s || up_s >= end_s_) {
      now_s_ = std::min(up_s, end_s_);
      return;
    }
    out_.restart_s -= up_s - next_fault_s_;
    now_s_ = next_fault_s_;
  }
}

Status check(const Llama3Options& o) {
  auto bad = [](const char* what) { return fail(Code::kInvalidArgument, what); };
  if (o.gpus < 256 || o.gpus > 131'072 || o.gpus % 256 != 0)
    return bad("gpus: want whole blocks of 256, 256 to 131,072");
  if (o.days < 1 || o.days > 365) return bad("days: want 1 to 365");
  if (o.spares_per_block < 0 || o.spares_per_block > 8) return bad("spares: want 0 to 8 hosts a block");
  if (o.costs.detect_s < 0 || o.costs.restart_s < 0 || o.costs.stall_s <= 0)
    return bad("detect-s, restart-s: want at least 0; stall-s: more than 0");
  if (o.checkpoint_interval_s < 0) return bad("interval-s: want 0 (Young's optimum) or more");
  if (o.step_s <= 0 || o.repair_hours <= 0) return bad("step-s, repair-hours: want more than 0");
  if (!(o.bad_repair_share >= 0 && o.bad_repair_share <= 1)) return bad("bad-repairs: want 0 to 1");
  return {};
}

}  // namespace

double young_interval_s(double stall_s, double mtbf_s) { return std::sqrt(2 * stall_s * mtbf_s); }

/// The gang in blocks of 32 hosts, each on one leaf switch with its spares; whoever else is there is busy.
Result<Llama3Place> place_llama3(const Llama3Options& options) {
  TH_RETURN_IF_ERROR(check(options));
  fleet::GenerateOptions generate;
  generate.num_leaves = static_cast<int32_t>(options.gpus / (kBlockHosts * 8));
  generate.hosts_per_rack = kRackHosts;
  generate.racks_per_leaf =
      static_cast<int32_t>((kBlockHosts + options.spares_per_block + kRackHosts - 1) / kRackHosts);
  generate.series = kSeries;
  TH_TRY(fleet::Fleet fleet, fleet::generate_fleet(generate));
  Llama3Place out{reserve::Snapshot(std::make_shared<const fleet::Fleet>(std::move(fleet))), {}};
  reserve::Request request;
  request.name = "llama3", request.gpus = options.gpus, request.series = kSeries;
  request.duration_ns = static_cast<int64_t>(options.days) * kDay;
  request.segment = kBlockHosts, request.spares = static_cast<int32_t>(options.spares_per_block);
  const auto plan = reserve::decide(out.snapshot, request, {}, 0);
  if (!plan) return fail(plan.error().error());
  std::vector<bool> ours(out.snapshot.fleet().hosts().size());
  for (const reserve::HostGpus& part : plan->hosts) {
    ours[static_cast<size_t>(part.host)] = true;
    if (!std::binary_search(plan->spares.begin(), plan->spares.end(), part.host))
      out.hosts.push_back(part.host);
  }
  for (size_t host = 0; host < ours.size(); ++host) {
    if (ours[host]) continue;
    out.snapshot =
        out.snapshot.with_out_of_use(static_cast<reserve::HostIndex>(host), "leased to somebody else");
  }
  for (const reserve::HostIndex host : out.hosts) {
    TH_TRY(out.snapshot, out.snapshot.with_claim(claim_of(out.snapshot.fleet(), host)));
  }
  return out;
}

Result<Llama3Result> run_llama3(const Llama3Options& options, const Llama3Place& place) {
  TH_RETURN_IF_ERROR(check(options));
  return Run(options, place).go();
}

Result<Llama3Result> run_llama3(const Llama3Options& options) {
  TH_TRY(const Llama3Place place, place_llama3(options));
  return run_llama3(options, place);
}

}  // namespace th::sim
