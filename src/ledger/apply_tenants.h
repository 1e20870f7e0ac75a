#pragma once
// apply() for the events of tenant_events.h and slice_events.h.

#include "ledger/state.h"

namespace th::ledger::detail {

Status apply(State& state, const PolicyLoaded& e, int64_t now_ns);
Status apply(State& state, const SliceOwned& e, int64_t now_ns);
Status apply(State& state, const JobOwned& e, int64_t now_ns);
Status apply(State& state, const JobPreempted& e, int64_t now_ns);
Status apply(State& state, const JobRequeued& e, int64_t now_ns);
Status apply(State& state, const SliceResizing& e, int64_t now_ns);
Status apply(State& state, const SliceResized& e, int64_t now_ns);
Status apply(State& state, const SliceResizeFailed& e, int64_t now_ns);
Status apply(State& state, const ReservationCreated& e, int64_t now_ns);
Status apply(State& state, const ReservationEnded& e, int64_t now_ns);

Status apply(State& state, const StackAdded& e, int64_t now_ns);
Status apply(State& state, const DataSetAdded& e, int64_t now_ns);
Status apply(State& state, const SliceRequested& e, int64_t now_ns);
Status apply(State& state, const SliceFault& e, int64_t now_ns);
Status apply(State& state, const VmBilled& e, int64_t now_ns);
Status apply(State& state, const VmKept& e, int64_t now_ns);
Status apply(State& state, const VmAdopted& e, int64_t now_ns);

Status apply(State& state, const SliceGrouped& e, int64_t now_ns);
Status apply(State& state, const PowerCapped& e, int64_t now_ns);
Status apply(State& state, const PowerUncapped& e, int64_t now_ns);

/// Closes what the slice was metered up to now and goes on with `gpus`.
void meter(State& state, Slice& slice, int64_t gpus, int64_t now_ns);
/// The request in the hour of now, for the tenant of its key.
void count_tokens(State& state, const UsageRecord& record, int64_t now_ns);
/// Whether the VM stands on a host that the slice pays.
bool is_paid(const Slice& slice, const Vm& vm);
/// The job's ranks on a slice of somebody else begin (+) or end (−) to count for its account.
void count_guest(State& state, const Job& job, int64_t gpu_milli, int64_t now_ns);

}  // namespace th::ledger::detail
