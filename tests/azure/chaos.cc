#include "chaos.h"

#include <algorithm>
#include <map>

#include "base/units.h"

namespace th::azure_emulator {
namespace {

/// Rates of a run: some calm, some rough.
Faults draw_faults(Prng& prng) {
  const uint64_t most = prng.below(4) == 0 ? 10 : 120;
  auto rate = [&](uint64_t upto) { return static_cast<int64_t>(prng.below(upto + 1)); };
  Faults faults;
  faults.throttle = rate(most), faults.server_error = rate(most), faults.token_expires = rate(most / 4);
  faults.no_capacity = rate(2 * most), faults.half = rate(2 * most), faults.half_silent = rate(most);
  faults.slow = rate(most), faults.lost_request = rate(most), faults.lost_answer = rate(most);
  faults.late_request = rate(most / 2), faults.repeated = rate(most);
  return faults;
}

class Rehearsal {
 public:
  Rehearsal(uint64_t seed, const Plants& plants)
      : plants_(plants), prng_(seed), cloud_(prng_.next()), desk_(cloud_, prng_, plants) {
    cloud_.on_allocated = [this](const ScaleSet& set) { count_doubles(set); };
  }

  Outcome run() {
    cloud_.faults = draw_faults(prng_);
    for (uint64_t left = 6 + prng_.below(9); left > 0; --left) {
      guarded([this] { act(); });
      if (prng_.below(3) == 0 && !plants_.reconcile) guarded([this] { desk_.reconcile(); });
    }
    // The storm is over: late and repeated requests still arrive, and then everything has to add up.
    cloud_.faults = {};
    cloud_.drain();
    if (!plants_.reconcile) settle();
    check_leases();
    desk_.end_all();
    if (!plants_.reconcile) settle();
    cloud_.drain();
    check_rest();
    return outcome_;
  }

 private:
  /// With a chance to die on the way, and again while it recovers.
  template <class Action>
  void guarded(Action action) {
    desk_.crash_in(prng_.below(2) ? 1 + static_cast<int64_t>(prng_.below(40)) : 0);
    if (survives(action) || plants_.reconcile) return;
    desk_.crash_in(prng_.below(3) == 0 ? 1 + static_cast<int64_t>(prng_.below(20)) : 0);
    survives([this] { desk_.reconcile(); });
  }

  template <class Action>
  bool survives(Action action) {
    try {
      action();
      desk_.crash_in(0);
      return true;
    } catch (const Crash&) {
      ++outcome_.crashes;
      desk_.restart();
      return false;
    }
  }

  void act() {
    const uint64_t what = prng_.below(100);
    if (what < 40) {
      ++outcome_.leases;
      desk_.acquire(prng_.below(600) == 0 ? 101 + prng_.below(5) : 1 + prng_.below(5), prng_.below(2) == 0);
    } else if (what < 65) {
      desk_.release();
    } else if (what < 78) {
      cloud_.advance(static_cast<int64_t>(1 + prng_.below(3600)) * kSecond);
    } else if (what < 90) {
      evict();
      cloud_.advance(static_cast<int64_t>(prng_.below(60)) * kSecond);
      desk_.look_at_events();
    } else {
      desk_.reserve();
    }
  }

  void evict() {
    std::vector<std::pair<std::string, int>> running;
    for (const auto& [name, set] : cloud_.sets()) {
      for (const auto& [id, instance] : set.instances) {
        if (instance.power == "running") running.emplace_back(name, id);
      }
    }
    if (running.empty()) return;
    const auto& [set, id] = running[prng_.below(running.size())];
    cloud_.announce(prng_.below(3) ? "Preempt" : "Freeze", set, id, 30 * kSecond);
  }

  void settle() {
    constexpr int kRounds = 60;
    for (int i = 0; i < kRounds; ++i) {
      if (desk_.reconcile()) return;
      cloud_.advance(kMinute);
    }
    ++outcome_.unfinished;
  }

  int64_t running(const std::string& token) const {
    int64_t count = 0;
    for (const auto& [name, set] : cloud_.sets()) {
      const auto tag = set.tags.find("th-token");
      if (tag == set.tags.end() || tag->second != token) continue;
      for (const auto& [id, instance] : set.instances) count += instance.power == "running";
    }
    return count;
  }

  void count_doubles(const ScaleSet& set) {
    const auto tag = set.tags.find("th-token");
    if (tag == set.tags.end()) return;
    const int64_t asked = static_cast<int64_t>(desk_.asked(tag->second));
    outcome_.double_created += std::max<int64_t>(running(tag->second) - asked, 0);
  }

  void check_leases() {
    for (const auto& [token, lease] : desk_.leases()) {
      if (lease.state != LeaseState::kReady) continue;
      const int64_t missing = static_cast<int64_t>(desk_.asked(token)) - running(token);
      outcome_.leases_without_vm += std::max<int64_t>(missing, 0);
      // A caller that believes a lease to be lost has tried for other VMs in its place.
      outcome_.double_created += std::max<int64_t>(-missing, 0);
    }
  }

  void check_rest() {
    outcome_.leaked += static_cast<int64_t>(cloud_.groups().size() + cloud_.reservations().size());
    // Intervals that one side knows and the other does not.
    std::map<std::pair<int64_t, int64_t>, int64_t> open;
    for (const auto& [name, set] : cloud_.sets()) {
      outcome_.leaked += 1 + static_cast<int64_t>(set.instances.size());
      for (const auto& [id, instance] : set.instances) {
        if (instance.billed_from_ns > 0 && instance.billed_to_ns == 0)
          ++open[{instance.billed_from_ns, cloud_.now_ns()}];
      }
    }
    for (const Instance& instance : cloud_.ended()) {
      ++open[{instance.billed_from_ns, instance.billed_to_ns}];
      outcome_.vm_ns += instance.billed_to_ns - instance.billed_from_ns;
    }
    for (const auto& [account, ended_ns] : desk_.accounts()) --open[{std::get<2>(account), ended_ns}];
    for (const auto& [interval, count] : open)
      outcome_.billed_difference_ns += std::abs(count) * (interval.second - interval.first);
    outcome_.refused_by_schema += static_cast<int64_t>(cloud_.refused.size());
    outcome_.requests += cloud_.requests, outcome_.faults += cloud_.misbehaved;
  }

  const Plants plants_;
  Prng prng_;
  Emulator cloud_;
  Desk desk_;
  Outcome outcome_;
};

}  // namespace

void Outcome::add(const Outcome& other) {
  leaked += other.leaked, double_created += other.double_created;
  leases_without_vm += other.leases_without_vm, billed_difference_ns += other.billed_difference_ns;
  refused_by_schema += other.refused_by_schema, requests += other.requests, faults += other.faults;
  crashes += other.crashes, leases += other.leases, vm_ns += other.vm_ns, unfinished += other.unfinished;
}

bool Outcome::clean() const {
  return leaked == 0 && double_created == 0 && leases_without_vm == 0 && billed_difference_ns == 0 &&
         refused_by_schema == 0 && unfinished == 0;
}

Outcome rehearse(uint64_t seed, const Plants& plants) { return Rehearsal(seed, plants).run(); }

}  // namespace th::azure_emulator
