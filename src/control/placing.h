#pragma once
// On which hosts a job's own words let it run: sbatch's -w, -x and -C. Pure.

#include <string>
#include <vector>

#include "fleet/fleet.h"
#include "ledger/state.h"
#include "request/job_spec.h"

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

}  // namespace th::control
