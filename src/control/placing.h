#pragma once
// What a job asks of the hosts: how many GPUs where, and on which hosts its own words let it run (sbatch's
// -w, -x and -C). Pure.

#include <string>
#include <vector>

#include "fleet/fleet.h"
#include "ledger/state.h"
#include "request/job_spec.h"
#include "reserve/reserve.h"

namespace th::control {

/// What a host can be asked for by: its series, the words of its accelerator ("H100"), its rack, leaf and
/// site.
std::vector<std::string> features_of(const fleet::Fleet& fleet, fleet::HostIndex host);

/// Whether the job asks for certain hosts at all.
bool picks_hosts(const request::JobSpec& spec);

/// `node`: the VM on the host as the slice has it, or empty. Names count whatever their case.
bool allows_host(const fleet::Fleet& fleet, const request::JobSpec& spec, fleet::HostIndex host,
                 const std::string& node);

/// Errors: kNotFound for a name that is neither a host nor a VM there is, or a feature that no host has, with
/// the nearest.
Status check_places(const fleet::Fleet& fleet, const ledger::State& state, const request::JobSpec& spec);

/// What it takes where there are `available`: its gpus, or, when it can rescale and there are fewer, the
/// largest multiple of its min_gpus that fits; its gpus where none does.
int64_t gpus_within(const request::JobSpec& spec, int64_t available);
/// GPUs on each host, where the job's nodes and GPUs come to a number; 0: as they fit.
int64_t gpus_per_host(const request::JobSpec& spec);
/// For a job without a slice: whole hosts of the series.
reserve::Request own_request(const fleet::Fleet& fleet, const std::string& name, const request::JobSpec& spec,
                             const std::string& series, int64_t duration_ns);
/// The spec as it is kept: exclusive nodes as GPUs of the slice's hosts (null: it gets whole hosts anyway).
request::JobSpec fitted(const request::JobSpec& spec, const ledger::Slice* slice);

}  // namespace th::control
