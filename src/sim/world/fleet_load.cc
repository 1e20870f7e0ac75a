#include "sim/world/fleet_load.h"

#include <fmt/format.h>

#include <array>

#include "base/log.h"
#include "base/units.h"
#include "sim/world/faults.h"

namespace th::sim {
namespace {

struct Kind {
  const char *account, *what;
  int64_t weight;
};
constexpr std::array<Kind, 6> kKinds = {{{"foundation", "pretrain", 6},
                                         {"multimodal", "video", 4},
                                         {"speech", "asr", 2},
                                         {"search", "rank", 3},
                                         {"assistant", "posttrain", 4},
                                         {"course", "homework", 2}}};
/// How often a piece of work has so many GPUs; shaped like published traces, where many are small and few
/// have most of the GPUs. Assumed.
struct Size {
  int64_t gpus, weight;
};
constexpr std::array<Size, 9> kSizes = {
    {{8, 24}, {16, 16}, {32, 14}, {64, 14}, {128, 10}, {256, 8}, {512, 6}, {1024, 4}, {4096, 2}}};
constexpr int64_t kLookNs =
    20 * kSecond;  // mean time between two pieces of work, where there is room for one

template <class Rows>
const auto& draw(const Rows& rows, Prng& prng) {
  int64_t sum = 0;
  for (const auto& row : rows) sum += row.weight;
  auto drawn = static_cast<int64_t>(prng.below(static_cast<uint64_t>(sum)));
  for (const auto& row : rows) {
    if ((drawn -= row.weight) < 0) return row;
  }
  return rows.back();
}

}  // namespace

std::string fleet_load_policy(int64_t hold_s) {
  return fmt::format(
      "hold: {}s\n"
      "validation: {{min_all_reduce: 0}}\n"
      "accounts:\n"
      "  - {{name: research, shares: 3}}\n"
      "  - {{name: foundation, parent: research}}\n"
      "  - {{name: multimodal, parent: research}}\n"
      "  - {{name: speech, parent: research}}\n"
      "  - {{name: product, shares: 2}}\n"
      "  - {{name: search, parent: product}}\n"
      "  - {{name: assistant, parent: product}}\n"
      "  - {{name: course, max_gpus: 256}}\n"
      "qos:\n"
      "  - {{name: normal, priority: 500, min_run: 10m, grace: 30s}}\n",
      hold_s);
}

void FleetLoad::start(control::Controller& controller) {
  controller_ = &controller;
  for (const fleet::Host& host : controller.core.fleet().hosts()) fleet_gpus_ += host.gpus;
  next_fault();
  if (load_percent_ == 0) return;
  // A fleet in the middle of its life: the biggest first, so that they find their places.
  for (const int64_t gpus : {4096, 4096, 4096, 2048, 2048, 2048, 1024, 1024, 1024, 1024}) {
    if ((gpus_asked_for() + gpus) * 100 <= fleet_gpus_ * load_percent_ * 3 / 4)
      lease("foundation", gpus, (6 + below(40)) * kHour);
  }
  next_work();
  next_drain();
}

int64_t FleetLoad::gpus_asked_for() const {
  int64_t gpus = 0;
  const ledger::State& state = controller_->core.state();
  for (const std::string& id : controller_->core.active_slices()) gpus += state.slices.at(id).terms.gpus;
  for (const auto& [id, job] : controller_->core.queued_jobs()) gpus += job->submitted.gpus;
  return gpus;
}

void FleetLoad::next_work() {
  clock_.after(static_cast<int64_t>(prng_.exponential(static_cast<double>(kLookNs))) + kMillisecond, [this] {
    if (gpus_asked_for() * 100 < fleet_gpus_ * load_percent_) submit();
    next_work();
  });
}

/// One in four leases a slice and trains in it; the others are jobs that get a slice of their own.
void FleetLoad::submit() {
  const Kind& kind = draw(kKinds, prng_);
  const int64_t gpus = draw(kSizes, prng_).gpus;
  const int64_t duration_ns = (20 + below(600)) * kMinute;
  if (gpus >= 64 && below(4) == 0) return lease(kind.account, gpus, duration_ns);
  const int64_t per_host = controller_->core.fleet().host(0).gpus;
  request::JobSpec spec;
  spec.name = fmt::format("{}-{}", kind.what, next_name_++);
  spec.gpus = gpus, spec.ntasks = std::max<int64_t>(1, gpus / per_host), spec.ntasks_per_node = 1;
  spec.duration_ns = duration_ns + 10 * kMinute;
  spec.command = simulated_training(duration_ns / kMillisecond, below(20) != 0);
  controller_->core.set_caller({kind.account, "simulated", "", "", "", false});
  if (const auto id = controller_->jobs.submit(spec, "batch"); !id) log_warn("{}", id.error().message);
  controller_->core.set_caller({});
}

void FleetLoad::lease(const std::string& account, int64_t gpus, int64_t duration_ns) {
  const int64_t per_host = controller_->core.fleet().host(0).gpus;
  request::SliceSpec spec;
  spec.name = fmt::format("{}-{}", account, next_name_++);
  spec.gpus = gpus, spec.series = controller_->core.fleet().series_of(0).name, spec.duration_ns = duration_ns;
  controller_->core.set_caller({account, "simulated", "", "", "", false});
  const auto id = controller_->slices.hold(spec, controller_->jobs.reservations());
  if (id && controller_->slices.commit(*id)) {
    request::JobSpec job;
    job.name = fmt::format("train-{}", next_name_++), job.slice = spec.name, job.gpus = gpus;
    job.ntasks = std::max<int64_t>(1, gpus / per_host), job.ntasks_per_node = 1;
    job.command = simulated_training((duration_ns - 15 * kMinute) / kMillisecond, true);
    if (const auto made = controller_->jobs.submit(job, "batch"); !made) log_warn("{}", made.error().message);
  }
  controller_->core.set_caller({});
}

/// As often for a GPU as in the 54 days of Llama 3 (faults.h).
void FleetLoad::next_fault() {
  const double per_gpu_ns = static_cast<double>(kLlama3Days * kDay) * kLlama3Gpus / kLlama3Interruptions;
  const double mean_ns = per_gpu_ns / static_cast<double>(std::max<int64_t>(1, fleet_gpus_));
  clock_.after(static_cast<int64_t>(prng_.exponential(mean_ns)) + kSecond, [this] {
    one_fault();
    next_fault();
  });
}

void FleetLoad::one_fault() {
  ++faults_;
  const FaultKind& kind = llama3_fault(below(kLlama3Interruptions));
  const fleet::Fleet& fleet = controller_->core.fleet();
  const auto host = static_cast<fleet::HostIndex>(below(static_cast<int64_t>(fleet.hosts().size())));
  if (kind.takes == Takes::kRank || kind.takes == Takes::kNobody || kind.takes == Takes::kLeaf) {
    nodes_.fail_some_rank(kind.name);
  } else if (kind.takes == Takes::kHost) {
    break_host(host);
  } else {
    const fleet::Rack& rack = fleet.rack(fleet.host(host).rack);
    for (int32_t i = 0; i < rack.num_hosts; ++i) break_host(rack.first_host + i);
  }
}

void FleetLoad::break_host(fleet::HostIndex index) {
  const std::string host = controller_->core.fleet().host(index).id;
  cloud_.break_host(host);
  clock_.after((1 + below(8)) * kHour, [this, host] { cloud_.repair_host(host); });
}

/// A host goes into maintenance for an hour, about once an hour.
void FleetLoad::next_drain() {
  clock_.after(static_cast<int64_t>(prng_.exponential(static_cast<double>(kHour))), [this] {
    const fleet::Fleet& fleet = controller_->core.fleet();
    const std::string host =
        fleet.host(static_cast<fleet::HostIndex>(below(static_cast<int64_t>(fleet.hosts().size())))).id;
    if (!controller_->core.state().drained.count(host)) {
      controller_->core.stage(ledger::HostDrained{host, "planned maintenance (simulated)"});
      clock_.after(kHour, [this, host] {
        if (controller_->core.state().drained.count(host)) controller_->core.stage(ledger::HostResumed{host});
      });
    }
    next_drain();
  });
}

}  // namespace th::sim
