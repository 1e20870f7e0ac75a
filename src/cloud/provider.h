#pragma once
// Makes VMs real. One interface for every place that VMs come from; each backend is a folder beside `local`.
//
//   auto provider = cloud::make_local_provider({...});
//   TH_TRY(auto vms, provider->create({"slice-7", specs}, 30 * kSecond));   // all of them, or none

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace th::cloud {

/// What one VM has to be. `vm` is chosen by the caller, unique among all VMs that exist (check_name).
struct VmSpec {
  std::string vm;      // "demo-0"; also the name of its node
  std::string host;    // the fleet host it is placed on
  std::string series;  // "LOCAL"
  int gpus = 0;        // accelerators that the VM holds
  int group = 0;       // VMs of one request with the same number share a placement group
  // What its node must find at least; 0: not checked.
  int cpus = 0;
  int64_t memory_bytes = 0, disk_free_bytes = 0;  // the latter where jobs' folders are
};

struct CreateVms {
  std::string client_token;      // the same token again means the same VMs: a retry creates nothing new
  std::vector<VmSpec> vms;       // one a host of the placement
  bool one_fabric = false;       // they have to reach one another over InfiniBand
  bool spot = false;             // cheaper, and may be taken away after a notice
  std::string zone = {};         // of the provider's region; empty: any
  std::string reservation = {};  // of reserve(); empty: none
  std::string image = {};        // what they boot from, in the provider's words; empty: its default
};

struct QuoteVms {
  std::string series;
  int64_t num_vms = 1;
  bool spot = false;
  std::string zone;
};
struct Quote {
  int64_t microusd_per_vm_hour = 0;
  std::string where;  // "eastus, zone 1": for people
};
/// Capacity kept for later, paid whether it is used or not.
struct ReserveVms {
  std::string client_token, series;
  int64_t num_vms = 1;
  std::string zone;
  int64_t start_ns = 0, end_ns = 0;  // since 1970; the cloud says which it takes
};

enum class VmPhase {
  kCreating,  // asked for, not up yet
  kRunning,   // its node process or machine is up (the node itself says when it is ready)
  kDead,      // it is gone and will not come back; remove() it
};
std::string_view phase_name(VmPhase phase);  // "creating", "running", "dead"

struct VmState {
  std::string vm, host;
  std::string client_token;  // of the create() that made it
  VmPhase phase = VmPhase::kCreating;
  std::string detail;                    // "pid 4711", "process 4711 is gone": for people
  std::string node_token_sha256;         // of the token that its node shows to the controller
  int64_t created_ns = 0, ended_ns = 0;  // what the cloud bills it for, since 1970; 0: not known, or not yet
};

/// Taken away (a spot VM), deleted by its owner, rebooted, moved to another host (what lies on its local disk
/// is lost), standing still for some seconds.
enum class NoticeKind { kPreempt, kTerminate, kReboot, kRedeploy, kFreeze };
std::string_view notice_name(NoticeKind kind);  // "preempt", ...
std::optional<NoticeKind> notice_from_name(std::string_view name);

/// What will happen to a VM, told in advance.
struct Notice {
  std::string id;  // for acknowledge()
  std::string vm;
  NoticeKind kind = NoticeKind::kPreempt;
  int64_t not_before_ns = 0;  // since 1970; 0: it has begun
  std::string detail;         // for people
};

/// How long a controller waits at most.
struct Patience {
  int64_t create_ns = 30 * kSecond, remove_ns = 30 * kSecond, list_ns = 10 * kSecond;
  int64_t boot_ns = 60 * kSecond;        // from the request to a node that is validated
  int64_t first_word_ns = 30 * kSecond;  // from a VM that is up to its node's first word
  int64_t list_every_ns = kSecond;
};

/// Thread: safe from any thread; calls block up to their `timeout_ns`, so the loop thread hands them to a
/// worker.
class Provider {
 public:
  virtual ~Provider() = default;

  /// "local", "azure": what stacks name their images by.
  virtual std::string_view kind() const { return "other"; }
  /// Whether it makes VMs of this series at all. Does not block. Errors: kUnsatisfiable.
  virtual Status check_series(std::string_view series) const = 0;

  virtual Patience patience() const { return {}; }
  /// The process is about to end: calls under way fail soon, with kDeadlineExceeded or kUnavailable.
  virtual void interrupt() {}

  /// What the VMs would cost, if they can be had as far as the cloud tells without making them. Errors:
  /// kUnsatisfiable (not offered here: another series, zone or region), kResourceExhausted (the quota is too
  /// small), kNoCapacity, kUnavailable, kDeadlineExceeded.
  virtual Result<Quote> quote(const QuoteVms& request, int64_t timeout_ns);

  /// Creates all VMs of the request or, on an error, none (what was made is ended again). A repeat with the
  /// same token and VMs returns what the first call made, dead ones included, and goes on where a crash or a
  /// deadline stopped it. Returns: one state a spec, in order. Errors: kInvalidArgument (name, duplicate, no
  /// VMs), kAlreadyExists (a VM of another token), kNoSpace, those of quote().
  virtual Result<std::vector<VmState>> create(const CreateVms& request, int64_t timeout_ns) = 0;

  /// One VM. Errors: kNotFound, kUnavailable, kDeadlineExceeded.
  virtual Result<VmState> describe(std::string_view vm, int64_t timeout_ns) = 0;

  /// Every VM that exists, by name, also half-made ones: what the controller reconciles with after a restart.
  /// Errors: kUnavailable, kDeadlineExceeded.
  virtual Result<std::vector<VmState>> list(int64_t timeout_ns) = 0;

  /// Ends the VM and everything that ran on it, and leaves nothing behind. A VM that does not exist is a
  /// success. Errors: kFailedPrecondition (a cloud that bills it: stop() it first), kDeadlineExceeded (call
  /// again), kUnavailable.
  virtual Status remove(std::string_view vm, int64_t timeout_ns) = 0;

  /// Ends the VM, and with it its cost, but keeps it listed as dead with created_ns and ended_ns, so that no
  /// answer that got lost loses an account; then remove() it. A cloud that bills nothing removes it at once.
  /// Errors: kNotFound, kDeadlineExceeded (call again), kUnavailable.
  virtual Result<VmState> stop(std::string_view vm, int64_t timeout_ns);

  /// What is about to happen, by VM, each until it has happened. Errors: kUnavailable, kDeadlineExceeded.
  virtual Result<std::vector<Notice>> events(int64_t timeout_ns);
  /// The VM is ready for it: it may come at once. An id that is no longer known is a success. Errors: the
  /// same.
  virtual Status acknowledge(std::string_view id, int64_t timeout_ns);

  /// Keeps capacity; the same token again means the same. Returns: CreateVms::reservation. Errors: those of
  /// quote(), kInvalidArgument (a time that the cloud does not take).
  virtual Result<std::string> reserve(const ReserveVms& request, int64_t timeout_ns);
  /// What reserve() returned, of this provider, also half-made. Errors: kUnavailable, kDeadlineExceeded.
  virtual Result<std::vector<std::string>> list_reservations(int64_t timeout_ns);
  /// One that does not exist is a success. Errors: as remove().
  virtual Status cancel_reservation(std::string_view id, int64_t timeout_ns);
};

}  // namespace th::cloud
