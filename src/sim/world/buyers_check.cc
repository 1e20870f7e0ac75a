// What buyers were told, against what the ledger has.

#include <fmt/format.h>

#include "sim/world/buyers.h"

namespace th::sim {

using ledger::SliceState;

void Buyers::check(const ledger::State& state) {
  auto lost = [&](const std::string& what) { violation_(kLostAck, what); };
  for (const auto& [id, promise] : slices_) {
    const auto found = state.slices.find(id);
    if (found == state.slices.end()) {
      lost(fmt::format("{} was acknowledged and is not in the ledger", id));
      continue;
    }
    const ledger::SliceHeld& terms = found->second.terms;
    if (terms.name != promise.name || !promise.sizes.count(terms.gpus) ||
        terms.start_ns != promise.start_ns || terms.end_ns != promise.end_ns ||
        (!promise.resized && terms.price_microusd != promise.price_microusd)) {
      lost(fmt::format("{} has other terms than were acknowledged", id));
    }
    const SliceState is = found->second.state;
    const bool committed = is != SliceState::kHeld && is != SliceState::kExpired;
    if (promise.state == "committed" && !committed) {
      lost(fmt::format("the commit of {} was acknowledged and it is {}", id, ledger::name_of(is)));
    }
    const bool live = is == SliceState::kHeld || is == SliceState::kStarting || is == SliceState::kReady;
    if (promise.state == "released" && live) {
      lost(fmt::format("the release of {} was acknowledged and it is {}", id, ledger::name_of(is)));
    }
  }
  for (const auto& [id, promise] : jobs_) {
    const auto found = state.jobs.find(id);
    if (found == state.jobs.end()) {
      lost(fmt::format("{} was acknowledged and is not in the ledger", id));
      continue;
    }
    const ledger::Job& job = found->second;
    if (job.submitted.name != promise.name || job.submitted.gpus != promise.gpus) {
      lost(fmt::format("{} is not what was acknowledged", id));
    }
    if (promise.cancelled && !job.cancelling() && !job.ended()) {
      lost(fmt::format("the cancelling of {} was acknowledged and it is {}", id, ledger::name_of(job.state)));
    }
  }
  for (const auto& [name, promise] : reservations_) check_reservation(state, name, promise);
  for (const auto& [name, promise] : deployments_) check_deployment(state, name, promise);
  for (const auto& [host, drained] : drained_) {
    if (!draining_.count(host) && drained != (state.drained.count(host) > 0)) {
      lost(fmt::format("host {}: {} was acknowledged and does not hold", host,
                       drained ? "its drain" : "its return"));
    }
  }
}

/// What was made is there, unless it ended by itself; what is no more leaves nothing that serves.
void Buyers::check_deployment(const ledger::State& state, const std::string& name,
                              const DeploymentPromise& promise) const {
  const auto found = state.deployments.find(name);
  if (found == state.deployments.end()) {
    if (promise.state == "made")
      violation_(kLostAck, fmt::format("deployment {} was acknowledged and is not in the ledger", name));
    return;
  }
  const ledger::Deployment& is = found->second;
  const bool live = is.state == "starting" || is.state == "ready";
  if (promise.state == "made" && is.created.job != promise.job)
    violation_(kLostAck, fmt::format("deployment {} is not the one that was acknowledged", name));
  if (promise.state == "deleted" && live)
    violation_(kLostAck, fmt::format("deployment {} was deleted and is {}", name, is.state));
  const ledger::Job& job = state.jobs.at(is.created.job);
  if (!live && !job.ended() && !job.cancelling()) {
    violation_(kBroken,
               fmt::format("deployment {} is {}, and {} goes on serving it", name, is.state, is.created.job));
  }
}

/// From its answer on until it is over; while somebody takes it back it may be there or not.
void Buyers::check_reservation(const ledger::State& state, const std::string& name,
                               const ReservationPromise& promise) const {
  auto lost = [&](const char* what) {
    violation_(kLostAck, fmt::format("reservation {} was acknowledged and {}", name, what));
  };
  const auto found = state.reservations.find(name);
  if (found == state.reservations.end()) {
    if (promise.state == "made" && clock_.unix_ns() < promise.end_ns) lost("is not in the ledger");
    return;
  }
  const ledger::ReservationCreated& is = found->second;
  if (promise.state == "deleted") return lost("deleted, and is still there");
  if (is.start_ns != promise.start_ns || is.end_ns != promise.end_ns || is.hosts != promise.hosts)
    lost("has other terms");
}

}  // namespace th::sim
