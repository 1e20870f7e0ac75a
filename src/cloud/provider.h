#pragma once
// Makes VMs real. One interface for every place that VMs come from; each backend is a folder beside `local`.
//
//   auto provider = cloud::make_local_provider({...});
//   TH_TRY(auto vms, provider->create({"slice-7", specs}, 30 * kSecond));   // all of them, or none

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::cloud {

/// What one VM has to be. `vm` is chosen by the caller, unique among all VMs that exist (check_name).
struct VmSpec {
  std::string vm;               // "demo-0"; also the name of its node
  std::string host;             // the fleet host it is placed on
  std::string series;           // "LOCAL"
  int gpus = 0;                 // accelerators that the VM holds
  int cpus = 0;                 // cores that its node must find; 0: not checked
  int64_t memory_bytes = 0;     // memory that its node must find; 0: not checked
  int64_t disk_free_bytes = 0;  // free space for jobs that its node must find; 0: not checked
};

struct CreateVms {
  std::string client_token;  // the same token again means the same VMs: a retry creates nothing new
  std::vector<VmSpec> vms;   // one a host of the placement
};

enum class VmPhase {
  kCreating,  // asked for, not up yet
  kRunning,   // its node process or machine is up (the node itself says when it is ready)
  kDead,      // it is gone and will not come back; remove() it
};
std::string_view phase_name(VmPhase phase);  // "creating", "running", "dead"

struct VmState {
  std::string vm;
  std::string host;
  std::string client_token;  // of the create() that made it
  VmPhase phase = VmPhase::kCreating;
  std::string detail;             // "pid 4711", "process 4711 is gone": for people
  std::string node_token_sha256;  // of the token that its node shows to the controller
};

/// Thread: safe from any thread; calls block up to their `timeout_ns`, so the loop thread hands them to a
/// worker.
class Provider {
 public:
  virtual ~Provider() = default;

  /// Whether it makes VMs of this series at all. Does not block. Errors: kUnsatisfiable.
  virtual Status check_series(std::string_view series) const = 0;

  /// Creates all VMs of the request or, on an error, none (what was made is removed again). A repeat with the
  /// same token and VMs returns what the first call made, dead ones included, and goes on where a crash
  /// stopped it. Returns: one state a spec, in order. Errors: kInvalidArgument (name, duplicate, no VMs),
  /// kAlreadyExists (a VM of another token), kNoSpace, kResourceExhausted, kDeadlineExceeded, kUnavailable.
  virtual Result<std::vector<VmState>> create(const CreateVms& request, int64_t timeout_ns) = 0;

  /// One VM. Errors: kNotFound, kUnavailable, kDeadlineExceeded.
  virtual Result<VmState> describe(std::string_view vm, int64_t timeout_ns) = 0;

  /// Every VM that exists, by name, also half-made ones: what the controller reconciles with after a restart.
  /// Errors: kUnavailable, kDeadlineExceeded.
  virtual Result<std::vector<VmState>> list(int64_t timeout_ns) = 0;

  /// Ends the VM and everything that ran on it, and leaves nothing behind. A VM that does not exist is a
  /// success. Errors: kDeadlineExceeded (call again), kUnavailable.
  virtual Status remove(std::string_view vm, int64_t timeout_ns) = 0;
};

}  // namespace th::cloud
