#pragma once
// Events of accounts, reservations, preemption and resizing (event_types.h has the rules).

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/event_fields.h"

namespace th::ledger {

/// The operator's policy from here on (docs/queue.md). half_life_ns: of the usage that fair share goes by.
struct PolicyLoaded {
  std::string sha256;
  int64_t half_life_ns = 0;
  TH_EVENT("policy_loaded") { v("sha256", e.sha256), v("half_life_ns", e.half_life_ns); }
};
/// Whose key it is.
struct KeyOwned {
  std::string key, account;
  TH_EVENT("key_owned") { v("key", e.key), v("account", e.account); }
};
/// Whose slice it is and how it was bought; staged with its slice_held. `user`: a key's id.
struct SliceOwned {
  std::string slice, account, user, qos, reservation;
  bool spot = false;
  TH_EVENT("slice_owned") {
    v("slice", e.slice), v("account", e.account), v("user", e.user), v("qos", e.qos);
    v("reservation", e.reservation), v("spot", e.spot);
  }
};
/// The same of a job; staged with its job_submitted.
struct JobOwned {
  std::string job, account, user, qos, partition;
  TH_EVENT("job_owned") {
    v("job", e.job), v("account", e.account), v("user", e.user), v("qos", e.qos), v("partition", e.partition);
  }
};

/// From here its ranks are saving their work; they are stopped at deadline_ns. `by`: who gets the room.
struct JobPreempted {
  std::string job, by, reason;
  int64_t deadline_ns = 0;
  TH_EVENT("job_preempted") {
    v("job", e.job), v("by", e.by), v("reason", e.reason), v("deadline_ns", e.deadline_ns);
  }
};
/// It waits for a slice of its own again; the one it had is being released.
struct JobRequeued {
  std::string job, reason;
  TH_EVENT("job_requeued") { v("job", e.job), v("reason", e.reason); }
};

/// Hosts are kept for the slice beside those it has, until it has them or gives them up. gpus, price: then.
struct SliceResizing {
  std::string slice;
  int64_t gpus = 0, price_microusd = 0;
  std::vector<Share> add;
  TH_EVENT("slice_resizing") {
    v("slice", e.slice), v("gpus", e.gpus), v("price_microusd", e.price_microusd), v("add", e.add);
  }
};
/// It has the hosts that were being added, and not any more those in `remove`; from here it pays so.
struct SliceResized {
  std::string slice;
  int64_t gpus = 0, price_microusd = 0;
  std::vector<std::string> remove;
  TH_EVENT("slice_resized") {
    v("slice", e.slice), v("gpus", e.gpus), v("price_microusd", e.price_microusd), v("remove", e.remove);
  }
};
/// It keeps the size that it had.
struct SliceResizeFailed {
  std::string slice, reason;
  TH_EVENT("slice_resize_failed") { v("slice", e.slice), v("reason", e.reason); }
};

/// The placement group of the cloud that each of its hosts is in, in the order of its hosts; staged with its
/// slice_held where it has more than one.
struct SliceGrouped {
  std::string slice;
  std::vector<int64_t> groups;
  TH_EVENT("slice_grouped") { v("slice", e.slice), v("groups", e.groups); }
};

/// Nothing new passes so many watts of the site in the window.
struct PowerCapped {
  std::string cap, site, reason;
  int64_t watts = 0, start_ns = 0, end_ns = 0;
  TH_EVENT("power_capped") {
    v("cap", e.cap), v("site", e.site), v("reason", e.reason), v("watts", e.watts), v("start_ns", e.start_ns);
    v("end_ns", e.end_ns);
  }
};
struct PowerUncapped {
  std::string cap, reason;
  TH_EVENT("power_uncapped") { v("cap", e.cap), v("reason", e.reason); }
};

/// Hosts kept for some accounts and users, or for nobody (maintenance).
struct ReservationCreated {
  std::string reservation, reason;
  int64_t start_ns = 0, end_ns = 0;
  bool maintenance = false;
  std::vector<std::string> hosts, accounts, users;
  TH_EVENT("reservation_created") {
    v("reservation", e.reservation), v("reason", e.reason), v("start_ns", e.start_ns), v("end_ns", e.end_ns);
    v("maintenance", e.maintenance), v("hosts", e.hosts), v("accounts", e.accounts), v("users", e.users);
  }
};
struct ReservationEnded {
  std::string reservation, reason;
  TH_EVENT("reservation_ended") { v("reservation", e.reservation), v("reason", e.reason); }
};

}  // namespace th::ledger
