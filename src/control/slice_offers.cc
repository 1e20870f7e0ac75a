// What slices are offered for: the first of the alternatives that can be had, and the next when the cloud
// refuses it.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/log.h"
#include "base/units.h"
#include "control/slices.h"
#include "control/stacks.h"
#include "control/visible.h"

namespace th::control {
namespace {

using ledger::Slice;
using ledger::SliceState;

/// Names that ids have: they would be found in place of each other.
bool looks_like_id(const std::string& name) {
  for (std::string_view prefix : {"slice-", "job-", "key-"}) {
    if (name.starts_with(prefix) && name.find_first_not_of("0123456789", prefix.size()) == std::string::npos)
      return true;
  }
  return false;
}

/// Worth another try elsewhere.
bool is_of_capacity(Code code) {
  return code == Code::kNoCapacity || code == Code::kResourceExhausted || code == Code::kUnsatisfiable;
}

Result<ledger::Owner> owner_of(const Core& core, const request::SliceSpec& spec) {
  if (spec.account.empty()) return core.caller();
  return core.owner_for(spec.account, "", "");
}

}  // namespace

reserve::Pending Slices::pending_of(const request::SliceSpec& spec, const ledger::Owner& owner) const {
  reserve::Pending pending;
  pending.request = reserve::request_of(spec);
  pending.who.account = account_of(owner), pending.who.user = owner.user;
  pending.who.qos = spec.spot ? std::string(reserve::kSpotQos) : qos_of(owner);
  pending.who.submitted_ns = core_.now_ns();
  pending.min_gpus = spec.min_gpus, pending.spot = spec.spot, pending.budget_microusd = spec.budget_microusd;
  if (spec.deadline_ns != 0) pending.deadline_ns = spec.deadline_ns;
  return pending;
}

/// A slice is its owner's until its end, so that only a spot one may live on what others lend.
tl::expected<reserve::Plan, reserve::Refusal> Slices::decide(const reserve::Snapshot& reservations,
                                                             const reserve::Pending& pending) const {
  const int64_t now_ns = core_.now_ns();
  // What a slice grows by is paid in the budget's period in which the slice was acquired.
  const reserve::Accounts accounts(core_.policy(),
                                   core_.tenants().standing(core_.state(), pending.who.submitted_ns),
                                   core_.tenants().uses(now_ns));
  auto plan = reserve::decide_for(reservations, pending, accounts, core_.policy(), {}, true, now_ns);
  if (!plan || pending.spot) return plan;
  auto borrows_at = [&](int64_t time_ns) {
    return accounts.borrows(pending.who.account, plan->gpus, time_ns);
  };
  // What is promised for later counts from its start on.
  const bool borrows_later = std::ranges::any_of(accounts.uses(), [&](const reserve::Use& use) {
    return plan->start_ns < use.start_ns && use.start_ns < plan->end_ns && borrows_at(use.start_ns);
  });
  if (!borrows_later && !borrows_at(plan->start_ns)) return plan;
  reserve::Refusal refusal;
  refusal.reason = reserve::Reason::kQuota;
  refusal.text =
      fmt::format("'{}' is over the quota of account {}, and what its siblings lend can be taken back",
                  pending.request.name, pending.who.account);
  reserve::Change change;
  change.text = "ask for a spot slice";
  refusal.changes.push_back(std::move(change));
  return tl::unexpected(std::move(refusal));
}

Result<Slices::Choice> Slices::choose(const request::SliceSpec& spec, const ledger::Owner& owner,
                                      int64_t attempt, const reserve::Snapshot& reservations) const {
  std::optional<Choice> later;
  std::optional<Error> refusal;
  auto refuse = [&](const request::SliceSpec& tried, Error error) {
    if (!spec.or_series.empty()) error.message = tried.series + ": " + error.message;
    if (refusal) error.message = refusal->message + "; " + error.message;
    refusal = std::move(error);
  };
  std::string seen;  // zones of one series have the same hosts
  for (auto one = request::alternative(spec, attempt); one; one = request::alternative(spec, ++attempt)) {
    if (one->series == std::exchange(seen, one->series)) continue;
    request::SliceSpec tried = spec;
    tried.series = one->series;
    if (Status made = core_.provider().check_series(tried.series); !made) {
      refuse(tried, made.error());
      continue;
    }
    auto plan = decide(reservations, pending_of(tried, owner));
    if (plan) return Choice{tried, one->zone, attempt, *std::move(plan), {}};
    refuse(tried, plan.error().error());
    auto& its = plan.error().later;
    if (its && (!later || its->start_ns < later->plan.start_ns)) {
      reserve::Plan then = *its;
      later = Choice{tried, one->zone, attempt, std::move(then), std::move(plan.error())};
    }
  }
  if (later) return *std::move(later);
  return fail(refusal.value_or(Error{Code::kNoCapacity, "there are no more alternatives"}));
}

Result<Offer> Slices::offer(const request::SliceSpec& spec, const reserve::Snapshot& reservations) const {
  if (auto stack = find_stack(core_.state(), spec.stack); !stack) return fail(stack.error());
  TH_TRY(const ledger::Owner owner, owner_of(core_, spec));
  TH_TRY(const Choice choice, choose(spec, owner, 0, reservations));
  Offer offer;
  offer.series = choice.spec.series, offer.plan = choice.plan;
  if (choice.refusal) {
    const reserve::Refusal& refusal = *choice.refusal;
    offer.sooner = refusal.changes.empty() ? refusal.text : refusal.changes[0].text;
    offer.reason_code = reserve::reason_name(refusal.reason), offer.reason = refusal.text;
  }
  const int64_t discount_ppm = core_.policy().spot_discount_ppm;
  if (!spec.spot && discount_ppm > 0) {
    offer.cheaper = fmt::format(
        "as spot, which may be taken back after a notice: {}",
        format_money(offer.plan.price_microusd - offer.plan.price_microusd / 1'000'000 * discount_ppm -
                     offer.plan.price_microusd % 1'000'000 * discount_ppm / 1'000'000));
  }
  return offer;
}

Result<std::string> Slices::hold(const request::SliceSpec& spec, const reserve::Snapshot& reservations) {
  if (looks_like_id(spec.name)) {
    return fail(Code::kInvalidArgument,
                "name '" + spec.name + "' looks like an id of the controller; choose another");
  }
  const Slice* same = find_slice(core_, spec.name);
  if (same && same->live()) {
    return fail(Code::kAlreadyExists,
                fmt::format("slice '{}' exists and is {}; release it first, or choose another name",
                            spec.name, ledger::name_of(same->state)));
  }
  TH_TRY(const ledger::Owner owner, owner_of(core_, spec));
  return hold_from(spec, owner, 0, reservations);
}

Result<std::string> Slices::hold_from(const request::SliceSpec& spec, ledger::Owner owner, int64_t attempt,
                                      const reserve::Snapshot& reservations) {
  TH_TRY(const registry::Stack stack, find_stack(core_.state(), spec.stack));
  TH_TRY(const Choice choice, choose(spec, owner, attempt, reservations));
  if (choice.refusal) return fail(choice.refusal->error());
  const reserve::Pending pending = pending_of(spec, owner);
  owner.account = pending.who.account, owner.qos = pending.who.qos, owner.spot = spec.spot;
  const std::string id = fmt::format("slice-{}", core_.state().next_slice);
  hold_plan(id, spec.name, choice.spec.series, false, choice.plan, owner);
  core_.stage(ledger::SliceRequested{id, stack.id(), choice.zone, dump_json(request::to_json(spec)),
                                     choice.attempt, spec.idle_ns});
  return id;
}

void Slices::refused(const Slice& slice, const Error& error, const std::string& reason) {
  const ledger::SliceRequested asked = slice.requested;
  const std::string id = slice.terms.slice;
  const ledger::Owner owner = slice.owner;
  std::string text = reason;
  core_.stage(ledger::SliceFailed{id, reason});  // at once: the next may stand on the same hosts
  const auto json =
      asked.spec.empty() ? fail(Code::kNotFound, "") : parse_json(asked.spec, "spec of a slice");
  const auto spec = json ? request::slice_spec_from_json(*json) : fail(json.error());
  if (spec && is_of_capacity(error.code) && request::alternative(*spec, asked.attempt + 1)) {
    const auto next = hold_from(*spec, owner, asked.attempt + 1, core_.snapshot_without_suspects());
    if (next) core_.stage(ledger::SliceCommitted{*next, {}});
    text += next ? fmt::format("; {} is the next alternative", *next)
                 : "; no other alternative can be had: " + next.error().message;
  }
  log_warn("slice {}: {}", slice.terms.name, text);
  core_.stage(ledger::SliceFault{id, std::string(code_name(error.code)), text});
}

}  // namespace th::control
