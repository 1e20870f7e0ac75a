#pragma once
// What has happened, as values: the only thing that the ledger keeps. State is what follows from them
// (state.h). Each type names itself (kKind) and lists its fields once; writer and reader of the JSON form
// both use that list. A kind or field never changes its meaning; what is new gets a new name.

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/event_fields.h"
#include "ledger/job_events.h"

namespace th::ledger {

/// One request that the gateway served.
struct UsageRecord {
  int64_t seq = 0, time_ns = 0;
  std::string key_id, deployment;
  int64_t prompt_tokens = 0, completion_tokens = 0, latency_ns = 0, status = 0;
  TH_PART() {
    v("seq", e.seq), v("time_ns", e.time_ns), v("key_id", e.key_id), v("deployment", e.deployment);
    v("prompt_tokens", e.prompt_tokens), v("completion_tokens", e.completion_tokens);
    v("latency_ns", e.latency_ns), v("status", e.status);
  }
};

/// The fleet file that the state belongs to.
struct FleetLoaded {
  std::string name, sha256;
  TH_EVENT("fleet_loaded") { v("name", e.name), v("sha256", e.sha256); }
};
struct KeyAdded {
  std::string id, name, sha256, role;  // role: admin | user
  TH_EVENT("key_added") { v("id", e.id), v("name", e.name), v("sha256", e.sha256), v("role", e.role); }
};
struct KeyRevoked {
  std::string id;
  TH_EVENT("key_revoked") { v("id", e.id); }
};

/// Hosts are kept for a slice until hold_expires_ns. `implicit`: made for the job of that name (id),
/// released with it.
struct SliceHeld {
  std::string slice, name, series, placement;
  bool implicit = false;
  int64_t gpus = 0, start_ns = 0, end_ns = 0, microusd_per_gpu_hour = 0, price_microusd = 0,
          hold_expires_ns = 0;
  std::vector<Share> hosts;
  TH_EVENT("slice_held") {
    v("slice", e.slice), v("name", e.name), v("series", e.series), v("placement", e.placement);
    v("implicit", e.implicit), v("gpus", e.gpus), v("start_ns", e.start_ns), v("end_ns", e.end_ns);
    v("microusd_per_gpu_hour", e.microusd_per_gpu_hour), v("price_microusd", e.price_microusd);
    v("hold_expires_ns", e.hold_expires_ns), v("hosts", e.hosts);
  }
};
/// A lost host's share moved to another host.
struct SliceHostReplaced {
  std::string slice, lost;
  Share host;
  TH_EVENT("slice_host_replaced") { v("slice", e.slice), v("lost", e.lost), v("host", e.host); }
};
#define TH_SLICE_EVENT(Type, kind)                                 \
  struct Type {                                                    \
    std::string slice, reason;                                     \
    TH_EVENT(kind) { v("slice", e.slice), v("reason", e.reason); } \
  };
TH_SLICE_EVENT(SliceCommitted, "slice_committed")
TH_SLICE_EVENT(SliceExpired, "slice_expired")      // a hold that was not committed
TH_SLICE_EVENT(SliceReady, "slice_ready")          // handed over: from here it is paid
TH_SLICE_EVENT(SliceReleasing, "slice_releasing")  // from here it is not; its VMs are being deleted
TH_SLICE_EVENT(SliceReleased, "slice_released")
TH_SLICE_EVENT(SliceFailed, "slice_failed")  // never handed over; its VMs are being deleted

struct VmRequested {
  std::string vm, slice, host;
  int64_t gpus = 0;
  TH_EVENT("vm_requested") { v("vm", e.vm), v("slice", e.slice), v("host", e.host), v("gpus", e.gpus); }
};
/// The provider made it and it is starting. token_sha256: of the token that its node dials in with.
struct VmUp {
  std::string vm, token_sha256;
  TH_EVENT("vm_up") { v("vm", e.vm), v("token_sha256", e.token_sha256); }
};
/// Its node dialled in and passed every check.
struct NodeValidated {
  std::string vm, boot_id, address;
  TH_EVENT("node_validated") { v("vm", e.vm), v("boot_id", e.boot_id), v("address", e.address); }
};
struct NodeDown {
  std::string vm, reason;
  TH_EVENT("node_down") { v("vm", e.vm), v("reason", e.reason); }
};
struct VmDeleted {
  std::string vm;
  TH_EVENT("vm_deleted") { v("vm", e.vm); }
};
struct HostDrained {
  std::string host, reason;
  TH_EVENT("host_drained") { v("host", e.host), v("reason", e.reason); }
};
struct HostResumed {
  std::string host;
  TH_EVENT("host_resumed") { v("host", e.host); }
};

struct ModelRegistered {
  std::string name, version, path, job;
  int64_t bytes = 0;
  std::vector<ModelFile> files;
  TH_EVENT("model_registered") {
    v("name", e.name), v("version", e.version), v("path", e.path), v("job", e.job), v("bytes", e.bytes);
    v("files", e.files);
  }
};
struct DeploymentCreated {
  std::string name, model, version, slice, job;
  int64_t tokens_per_minute = 0;  // 0: no limit
  TH_EVENT("deployment_created") {
    v("name", e.name), v("model", e.model), v("version", e.version), v("slice", e.slice), v("job", e.job);
    v("tokens_per_minute", e.tokens_per_minute);
  }
};
struct DeploymentReady {
  std::string name, url;
  TH_EVENT("deployment_ready") { v("name", e.name), v("url", e.url); }
};
/// Its replica is away and is being restarted.
struct DeploymentUnready {
  std::string name, reason;
  TH_EVENT("deployment_unready") { v("name", e.name), v("reason", e.reason); }
};
/// failed: it ended by itself; else somebody stopped it.
struct DeploymentStopped {
  std::string name, reason;
  bool failed = false;
  TH_EVENT("deployment_stopped") { v("name", e.name), v("reason", e.reason), v("failed", e.failed); }
};
/// Records of one gateway journal, in rising seq, none of them taken before.
struct UsageRecorded {
  std::string journal;
  std::vector<UsageRecord> records;
  TH_EVENT("usage_recorded") { v("journal", e.journal), v("records", e.records); }
};

#undef TH_SLICE_EVENT

}  // namespace th::ledger
