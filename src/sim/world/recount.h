#pragma once
// An independent recount of what the ledger's events say happened: it knows no code of the control plane but
// the events themselves, and keeps its own books. Thread: one owner.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "fleet/fleet.h"
#include "ledger/state.h"
#include "sim/world/account_books.h"

namespace th::sim {

/// The rules, as they are named in a result.
inline constexpr const char* kDoubleLease = "no GPU is leased twice";
inline constexpr const char* kHalfGang = "no gang is half placed";
inline constexpr const char* kLeakedVm = "no VM is leaked";
inline constexpr const char* kPower = "no power budget is passed";
inline constexpr const char* kQuota = "no quota or budget is passed";
inline constexpr const char* kMoney = "every cent is accounted";
inline constexpr const char* kLostAck = "every acknowledged command is kept";
inline constexpr const char* kUnsettled = "every request is settled once faults stop";
inline constexpr const char* kBroken = "the control plane follows its own rules";

using OnViolation = std::function<void(const char* rule, const std::string& what)>;

class Recount {
 public:
  Recount(const fleet::Fleet& fleet, TenantRules rules, OnViolation on_violation);

  /// Each durable event once, in order.
  void take(const ledger::Entry& entry);

  struct Lease {
    std::string name, series, reservation;
    Share share;                     // as its account, with what it grows to; set when its owner is told
    int64_t gpus = 0, microusd = 0;  // without
    bool implicit = false;
    std::map<std::string, int64_t> hosts, adding;  // → GPUs; adding: kept for it while it grows
    int64_t start_ns = 0, end_ns = 0, expires_ns = 0, rate = 0, notice_ns = INT64_MAX;
    enum { kHeld, kCommitted, kReady, kReleasing, kGone } phase = kHeld;
    // GPU-nanoseconds paid: of VMs that were ready on its hosts while it was handed over, up to its end.
    int64_t paid_gpu_ns = 0, paying_gpus = 0, since_ns = 0;
  };
  const std::map<std::string, Lease>& leases() const { return leases_; }
  int64_t num_leases() const { return static_cast<int64_t>(leases_.size()); }
  int64_t num_live() const { return static_cast<int64_t>(live_.size()); }
  struct Paid {
    int64_t gpu_ns = 0, microusd = 0;
  };
  /// Against the bill of each lease. Returns: what all come to.
  Paid check_bills(const ledger::State& state, int64_t now_ns) const;
  int64_t gpu_ns_at(const Lease& lease, int64_t now_ns) const;
  /// Of the job's last attempt.
  int64_t ranks(const std::string& job) const { return jobs_.at(job).ranks; }
  /// GPUs that are leased and handed over now.
  int64_t gpus_in_use() const;
  /// Leases inside of reservations.
  int64_t num_reserved() const { return num_reserved_; }

 private:
  struct Vm {
    std::string slice, host;
    int64_t gpus = 0;
    enum { kAsked, kReady, kDown, kDeleted } phase = kAsked;
  };
  struct Job {
    std::string slice, reservation;
    int64_t gpus = 0, ranks = 0;
  };

  void on(const ledger::SliceHeld& e);
  void on(const ledger::SliceOwned& e);
  void on(const ledger::SliceHostReplaced& e);
  void on(const ledger::SliceCommitted& e);
  void on(const ledger::SliceExpired& e) { end(e.slice); }
  void on(const ledger::SliceReady& e);
  void on(const ledger::SliceReleasing& e);
  void on(const ledger::SliceReleased& e);
  void on(const ledger::SliceFailed& e) { end(e.slice); }
  void on(const ledger::SliceResizing& e);
  void on(const ledger::SliceResized& e);
  void on(const ledger::SliceResizeFailed& e);
  void on(const ledger::VmRequested& e);
  void on(const ledger::NodeValidated& e) { move(e.vm, Vm::kReady); }
  void on(const ledger::NodeDown& e) { move(e.vm, Vm::kDown); }
  void on(const ledger::VmDeleted& e) { move(e.vm, Vm::kDeleted); }
  void on(const ledger::VmKept& e);
  void on(const ledger::VmAdopted& e);
  void on(const ledger::JobSubmitted& e);
  void on(const ledger::AttemptStarted& e);
  void on(const ledger::JobPreempted& e);
  void on(const ledger::ReservationCreated& e);
  void on(const ledger::ReservationEnded& e) { reservations_.erase(e.reservation); }
  template <class Other>
  void on(const Other&) {}

  void check_window(const std::string& slice, const std::string& host, int64_t from_ns);
  void check_reserved(const std::string& slice, const std::string& host, int64_t from_ns);
  void check_inside(const std::string& slice, const std::string& user);
  void check_rack(const std::string& host, int64_t from_ns);
  void end(const std::string& slice);
  void resize(const std::string& slice, int64_t gpus, int64_t microusd);
  void check_account(const std::string& slice);
  void pay(Lease& lease, int64_t gpus);
  int64_t ready_gpus(const std::string& slice, const std::string& host) const;
  void move(const std::string& vm, decltype(Vm::phase) phase);

  const fleet::Fleet& fleet_;
  AccountBooks books_;
  OnViolation violation_;
  int64_t now_ns_ = 0, num_reserved_ = 0;
  std::map<std::string, Lease> leases_;  // by slice id
  std::map<std::string, Vm> vms_;
  std::map<std::string, Job> jobs_;
  std::map<std::string, ledger::ReservationCreated> reservations_;
  std::set<std::string> live_;                            // slices that keep their hosts
  std::map<std::string, std::set<std::string>> on_host_;  // host → VMs that are not deleted
};

/// Micro-dollars of GPU-nanoseconds at a price of a GPU-hour, rounded half up: its own arithmetic.
int64_t recounted_microusd(int64_t gpu_ns, int64_t microusd_per_gpu_hour);

}  // namespace th::sim
