#include "sim/world/cloud.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "base/units.h"

namespace th::sim {
namespace {

using cloud::VmPhase;
using cloud::VmState;

VmState state_of(const Machine& machine) {
  return {machine.spec.vm, machine.spec.host, machine.client_token,
          machine.phase,   "simulated",       sha256_hex(machine.node_token)};
}

tl::unexpected<Error> timed_out() {
  return fail(Code::kDeadlineExceeded, "the cloud did not answer in time");
}

}  // namespace

SimCloud::SimCloud(Clock& clock, uint64_t seed, std::shared_ptr<const fleet::Fleet> fleet)
    : clock_(clock), prng_(seed), fleet_(std::move(fleet)) {}

Status SimCloud::check_series(std::string_view series) const {
  const auto index = fleet::find_series(series);
  if (index && fleet_->num_gpus(*index) > 0) return {};
  return fail(Code::kUnsatisfiable, fmt::format("this cloud has no {}", series));
}

SimCloud::Outcome SimCloud::draw(int64_t timeout_ns, bool may_be_half) {
  latency_ns_ = between(200 * kMillisecond, 3 * kSecond);
  const std::pair<Outcome, int64_t> outcomes[] = {
      {Outcome::kFails, faults.fails},        {Outcome::kHalf, may_be_half ? faults.half : 0},
      {Outcome::kHangs, faults.hangs},        {Outcome::kAnswerLost, faults.answer_lost},
      {Outcome::kDoneLate, faults.done_late}, {Outcome::kAnswersLate, faults.answers_late},
  };
  auto drawn = static_cast<int64_t>(prng_.below(1000));
  for (const auto& [outcome, per_mille] : outcomes) {
    if ((drawn -= per_mille) >= 0) continue;
    ++misbehaved_;
    if (outcome != Outcome::kFails && outcome != Outcome::kHalf) latency_ns_ = timeout_ns;
    if (outcome == Outcome::kAnswersLate) latency_ns_ = timeout_ns * 9 / 10;
    return outcome;
  }
  return Outcome::kWell;
}

Status SimCloud::check_room(const cloud::VmSpec& spec, const std::string& client_token) const {
  if (const auto old = machines_.find(spec.vm); old != machines_.end()) {
    if (old->second.client_token == client_token) return {};
    return fail(Code::kAlreadyExists, "VM '" + spec.vm + "' is of another request");
  }
  if (broken_hosts_.count(spec.host)) return fail(Code::kResourceExhausted, spec.host + " is out of order");
  if (on_host_.count(spec.host)) {
    return fail(Code::kResourceExhausted, spec.host + " still carries " + on_host_.at(spec.host));
  }
  return {};
}

void SimCloud::make(const cloud::VmSpec& spec, const std::string& client_token) {
  if (machines_.count(spec.vm)) return;
  Machine machine;
  machine.spec = spec, machine.client_token = client_token, machine.node_token = clock_.token();
  machine.made_ns = clock_.unix_ns(), machine.serial = next_serial_++;
  machine.boots = !chance(faults.never_boots);
  if (!machine.boots) ++misbehaved_;
  on_host_[spec.host] = spec.vm;
  machines_[spec.vm] = machine;
  if (chance(faults.dies)) {
    ++misbehaved_;
    clock_.after(between(kSecond, kHour), [this, vm = spec.vm, serial = machine.serial] {
      const auto found = machines_.find(vm);
      if (found != machines_.end() && found->second.serial == serial) kill(vm);
    });
  }
  if (on_made) on_made(machine);
}

void SimCloud::make_what_fits(const cloud::CreateVms& request) {
  for (const cloud::VmSpec& spec : request.vms) {
    if (check_room(spec, request.client_token)) make(spec, request.client_token);
  }
}

Result<std::vector<VmState>> SimCloud::create(const cloud::CreateVms& request, int64_t timeout_ns) {
  const Outcome outcome = draw(timeout_ns, request.vms.size() > 1);
  if (outcome == Outcome::kFails) return fail(Code::kUnavailable, "the cloud's API answers 503");
  if (outcome == Outcome::kHangs) return timed_out();
  if (outcome == Outcome::kDoneLate) {
    clock_.after(timeout_ns + between(0, 2 * kMinute), [this, request] { make_what_fits(request); });
    return timed_out();
  }
  for (const cloud::VmSpec& spec : request.vms) TH_RETURN_IF_ERROR(check_room(spec, request.client_token));
  if (outcome == Outcome::kHalf) {
    for (size_t i = 0; i < request.vms.size() / 2; ++i) make(request.vms[i], request.client_token);
    return fail(Code::kUnavailable, "the cloud stopped halfway");
  }
  std::vector<VmState> out;
  for (const cloud::VmSpec& spec : request.vms) {
    make(spec, request.client_token);
    out.push_back(state_of(machines_.at(spec.vm)));
  }
  if (chance(faults.done_twice)) {
    ++misbehaved_;
    clock_.after(between(5 * kSecond, 5 * kMinute), [this, request] { make_what_fits(request); });
  }
  if (outcome == Outcome::kAnswerLost) return timed_out();
  return out;
}

Result<VmState> SimCloud::describe(std::string_view vm, int64_t) {
  const auto found = machines_.find(std::string(vm));
  if (found == machines_.end()) return fail(Code::kNotFound, "there is no VM '" + std::string(vm) + "'");
  return state_of(found->second);
}

Result<std::vector<VmState>> SimCloud::list(int64_t timeout_ns) {
  const Outcome outcome = draw(timeout_ns, false);
  if (outcome == Outcome::kFails) return fail(Code::kUnavailable, "the cloud's API answers 503");
  if (outcome != Outcome::kWell && outcome != Outcome::kAnswersLate) return timed_out();
  std::vector<VmState> out;
  for (const auto& [name, machine] : machines_) {
    if (!hidden(name)) out.push_back(state_of(machine));
  }
  return out;
}

Status SimCloud::remove(std::string_view vm, int64_t timeout_ns) {
  const std::string name(vm);
  const Outcome outcome = draw(timeout_ns, false);
  if (outcome == Outcome::kFails) return fail(Code::kUnavailable, "the cloud's API answers 503");
  if (outcome == Outcome::kHangs) return timed_out();
  if (hidden(name)) return {};
  if (outcome == Outcome::kDoneLate) {
    const auto found = machines_.find(name);
    const int64_t serial = found == machines_.end() ? 0 : found->second.serial;
    clock_.after(timeout_ns + between(0, kMinute), [this, name, serial] {
      const auto late = machines_.find(name);
      if (late != machines_.end() && late->second.serial == serial) erase(name);
    });
    return timed_out();
  }
  erase(name);
  if (outcome == Outcome::kAnswerLost) return timed_out();
  return {};
}

void SimCloud::erase(const std::string& vm) {
  const auto found = machines_.find(vm);
  if (found == machines_.end()) return;
  on_host_.erase(found->second.spec.host);
  machines_.erase(found);
  if (on_ended) on_ended(vm);
}

void SimCloud::kill(const std::string& vm) {
  const auto found = machines_.find(vm);
  if (found == machines_.end() || found->second.phase == VmPhase::kDead) return;
  found->second.phase = VmPhase::kDead;
  if (on_ended) on_ended(vm);
}

void SimCloud::break_host(const std::string& host) {
  broken_hosts_[host] = true;
  if (const auto vm = on_host_.find(host); vm != on_host_.end()) kill(vm->second);
}

/// One VM in eight, by its name, so that the same ones stay hidden.
bool SimCloud::hidden(const std::string& vm) const {
  return forgets_a_vm && machines_.count(vm) && sha256_hex(vm)[0] < '2';
}

}  // namespace th::sim
