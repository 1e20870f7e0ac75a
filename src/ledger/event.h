#pragma once
// The union of all events, and its JSON form. See event_types.h for what each means.

#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "ledger/access_events.h"
#include "ledger/credential_events.h"
#include "ledger/event_types.h"
#include "ledger/slice_events.h"
#include "ledger/tenant_events.h"

namespace th::ledger {

using Event = std::variant<
    FleetLoaded, KeyAdded, KeyRevoked, SliceHeld, SliceHostReplaced, SliceCommitted, SliceExpired, SliceReady,
    SliceReleasing, SliceReleased, SliceFailed, VmRequested, VmUp, NodeValidated, NodeDown, VmDeleted,
    HostDrained, HostResumed, JobSubmitted, AttemptStarted, AttemptRunning, RankExited, CheckpointSaved,
    AttemptEnded, JobCancelling, JobFinished, AttemptReserved, JobCause, ModelRegistered, DeploymentCreated,
    DeploymentReady, DeploymentUnready, DeploymentStopped, UsageRecorded, PolicyLoaded, KeyOwned, SliceOwned,
    JobOwned, JobPreempted, JobRequeued, SliceResizing, SliceResized, SliceResizeFailed, ReservationCreated,
    ReservationEnded, AttemptSized, SliceGrouped, PowerCapped, PowerUncapped, StackAdded, SliceRequested,
    SliceFault, VmBilled, VmKept, VmAdopted, DataSetAdded, TenantCreated, TenantRemoved, UserAdded,
    UserRemoved, RoleGranted, KeyGranted, KeyUsed, InvitationMade, InvitationTaken, InvitationRevoked,
    ApplicationMade, ApplicationReviewed, PasswordSet, PasskeyAdded, PasskeyUsed, PasskeyRemoved,
    SubjectLinked, TenantChanged, PasswordResetMade>;

/// An event with its place in the log. seq starts at 1 and has no gaps; time_ns never goes back.
struct Entry {
  int64_t seq = 0, time_ns = 0;
  Event event;
};

/// "slice_held", ...
std::string kind_of(const Event& event);
/// The fields, one line of JSON, in the order of event_types.h.
std::string event_to_json(const Event& event);
/// Errors: kDataLoss naming the kind and the field: unknown kind, not JSON, a field missing or of another
/// type. Fields that are not known are refused too: they come from a later version.
Result<Event> event_from_json(const std::string& kind, const std::string& json);
/// What the event is about: ids of slices, jobs, VMs, keys, names of hosts, models, deployments.
std::vector<std::string> subjects_of(const Event& event);

}  // namespace th::ledger
