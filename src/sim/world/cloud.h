#pragma once
// A cloud that makes simulated VMs on the hosts of a fleet, and misbehaves on purpose. Thread: one owner.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cloud/provider.h"
#include "fleet/fleet.h"
#include "sim/world/clock.h"

namespace th::sim {

/// Chances in parts of 1,000, of a call or of a VM. All zero: a cloud that works.
struct CloudFaults {
  int64_t fails = 0;         // a call is refused at once; nothing was done
  int64_t half = 0;          // some VMs of a create() are made, the answer is an error, nothing is undone
  int64_t hangs = 0;         // no answer until the deadline, and nothing was done
  int64_t answer_lost = 0;   // done, but no answer until the deadline
  int64_t done_late = 0;     // no answer until the deadline; it is done some time after it
  int64_t answers_late = 0;  // done, and answered shortly before the deadline
  int64_t done_twice = 0;    // a create() is carried out once more some minutes later
  int64_t never_boots = 0;   // a VM whose node never says a word
  int64_t dies = 0;          // a VM that ends by itself within its first hour
};

/// A VM as the cloud has it.
struct Machine {
  cloud::VmSpec spec;
  std::string client_token, node_token;
  cloud::VmPhase phase = cloud::VmPhase::kRunning;
  int64_t made_ns = 0, serial = 0;  // serial: a name made again is another machine
  bool boots = true;
};

/// Calls come back at once in virtual time; latency_ns() tells how long the last one took, and the caller
/// holds its answer back for as long.
class SimCloud final : public cloud::Provider {
 public:
  SimCloud(Clock& clock, uint64_t seed, std::shared_ptr<const fleet::Fleet> fleet);

  std::string_view kind() const override { return "simulated"; }
  cloud::Patience patience() const override { return waits; }
  Status check_series(std::string_view series) const override;
  Result<std::vector<cloud::VmState>> create(const cloud::CreateVms& request, int64_t timeout_ns) override;
  Result<cloud::VmState> describe(std::string_view vm, int64_t timeout_ns) override;
  Result<std::vector<cloud::VmState>> list(int64_t timeout_ns) override;
  Status remove(std::string_view vm, int64_t timeout_ns) override;

  int64_t latency_ns() const { return latency_ns_; }
  const std::map<std::string, Machine>& machines() const { return machines_; }
  int64_t misbehaved() const { return misbehaved_; }

  /// The host is gone with everything on it until `repaired`.
  void break_host(const std::string& host);
  void repair_host(const std::string& host) { broken_hosts_.erase(host); }
  bool host_is_broken(const std::string& host) const { return broken_hosts_.count(host) > 0; }
  /// Its process is gone; the cloud still lists it, as dead.
  void kill(const std::string& vm);

  CloudFaults faults;
  cloud::Patience waits;      // of the controller with it
  bool forgets_a_vm = false;  // a planted fault: some VMs are never listed nor removed, and none say so
  std::function<void(const Machine&)> on_made;       // its node is about to boot
  std::function<void(const std::string&)> on_ended;  // a VM is gone: dead or removed

 private:
  enum class Outcome { kWell, kFails, kHalf, kHangs, kAnswerLost, kDoneLate, kAnswersLate };
  Outcome draw(int64_t timeout_ns, bool may_be_half);
  bool chance(int64_t per_mille) {
    return per_mille > 0 && static_cast<int64_t>(prng_.below(1000)) < per_mille;
  }
  int64_t between(int64_t low_ns, int64_t high_ns) {
    return low_ns + static_cast<int64_t>(prng_.below(static_cast<uint64_t>(high_ns - low_ns + 1)));
  }
  /// Errors: why it cannot be made now.
  Status check_room(const cloud::VmSpec& spec, const std::string& client_token) const;
  void make(const cloud::VmSpec& spec, const std::string& client_token);
  void make_what_fits(const cloud::CreateVms& request);
  void erase(const std::string& vm);
  bool hidden(const std::string& vm) const;

  Clock& clock_;
  Prng prng_;
  std::shared_ptr<const fleet::Fleet> fleet_;
  std::map<std::string, Machine> machines_;     // by VM
  std::map<std::string, std::string> on_host_;  // host → VM
  std::map<std::string, bool> broken_hosts_;
  int64_t latency_ns_ = 0, next_serial_ = 1, misbehaved_ = 0;
};

}  // namespace th::sim
