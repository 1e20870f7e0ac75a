#include "reserve/queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <compare>
#include <map>
#include <utility>

#include "base/units.h"
#include "reserve/explain.h"
#include "reserve/preempt.h"

namespace th::reserve {
namespace {

/// The state of one look: what the requests so far have taken.
class Look {
 public:
  explicit Look(const QueueInput& input)
      : input_(input),
        accounts_(input.policy, input.standing, input.uses),
        work_(input.snapshot),
        reservations_(input.reservations.begin(), input.reservations.end()) {
    for (const Running& running : input.running) {
      if (running.ends_ns) end_early(running, *running.ends_ns);
    }
    base_ = work_;
    fleet_gpus_ = 0;
    for (const fleet::Host& host : input.snapshot.fleet().hosts()) fleet_gpus_ += host.gpus;
  }

  QueuePlan plan() {
    std::vector<Place> order;
    for (size_t i = 0; i < input_.pending.size(); ++i) {
      const Pending& p = input_.pending[i];
      // What is borrowed can be taken back at once, so it is given last.
      const bool borrows =
          !input_.snapshot.is_slice() && accounts_.borrows(p.who.account, p.request.gpus, input_.now_ns);
      const int64_t priority =
          priority_of(p.who, p.request.gpus, input_.policy, accounts_, fleet_gpus_, input_.now_ns);
      order.push_back({borrows, -priority, p.who.submitted_ns, false, i});
    }
    go_behind(order);
    std::ranges::sort(order);
    for (size_t i = 0; i < order.size(); ++i) {
      Decision decision;
      decision.index = order[i].index;
      decision.priority = -order[i].falling_priority;
      if (static_cast<int64_t>(i) < input_.policy.depth) {
        look_at(input_.pending[decision.index], decision);
      } else {
        decision.refusal.reason = Reason::kPriority;
        decision.refusal.text =
            fmt::format("{} requests go before it, and {} are planned ahead", i, input_.policy.depth);
      }
      out_.decisions.push_back(std::move(decision));
    }
    return std::move(out_);
  }

 private:
  struct Place {
    bool borrows;
    int64_t falling_priority, submitted_ns;
    bool behind;
    size_t index;
    auto operator<=>(const Place&) const = default;
  };

  /// Else what made room would take it again. `order` is by index.
  void go_behind(std::vector<Place>& order) const {
    std::map<std::string_view, size_t> index_of;
    for (size_t i = 0; i < order.size(); ++i) index_of.emplace(input_.pending[i].request.name, i);
    const std::vector<Place> own = order;
    for (Place& place : order) {
      const auto other = index_of.find(input_.pending[place.index].after);
      if (other == index_of.end()) continue;
      Place last = own[other->second];
      last.behind = true, last.index = place.index;
      place = std::max(place, last);
    }
  }

  void end_early(const Running& running, int64_t end_ns) {
    Claim claim = running.claim;
    end_ns = std::max(end_ns, input_.now_ns + 1);
    // What has not begun has its window until it is given back, which takes no time.
    if (claim.start_ns >= end_ns) return;
    work_ = work_.without_claim(claim);
    claim.end_ns = std::min(claim.end_ns, end_ns);
    if (auto next = work_.with_claim(claim)) work_ = *std::move(next);
    accounts_.end_early(claim.id, claim.end_ns);
  }

  /// Errors: why its reservation cannot be used.
  tl::expected<Reservation*, Refusal> reservation_of(const Pending& pending) {
    if (pending.reservation.empty()) return nullptr;
    auto found = std::ranges::find(reservations_, pending.reservation, &Reservation::name);
    Refusal refusal;
    refusal.reason = Reason::kReservation;
    if (found == reservations_.end()) {
      refusal.text = fmt::format("there is no reservation '{}' any more", pending.reservation);
      return tl::unexpected(std::move(refusal));
    }
    if (found->admits(pending.who)) return &*found;
    refusal.text = fmt::format("reservation '{}' is not for account {}", found->name, pending.who.account);
    return tl::unexpected(std::move(refusal));
  }

  /// Only the reservation's hosts, and of those what the request may have anyway.
  static std::vector<HostIndex> hosts_of(const Reservation& reservation, const Request& request) {
    std::vector<HostIndex> hosts;
    for (const HostGpus& part : reservation.claim.hosts) {
      if (!request.only || std::ranges::binary_search(*request.only, part.host)) hosts.push_back(part.host);
    }
    return hosts;
  }

  void look_at(const Pending& pending, Decision& decision) {
    decision.gpus = pending.request.gpus;
    auto reservation = reservation_of(pending);
    if (!reservation) {
      decision.refusal = std::move(reservation.error());
      return;
    }
    Pending want = pending;
    Snapshot seen = work_;
    if (*reservation != nullptr) {
      seen = seen.without_claim((*reservation)->claim);
      want.request.only = hosts_of(**reservation, want.request);
      want.request.start_ns = std::max(want.request.start_ns, (*reservation)->claim.start_ns);
      want.deadline_ns = std::min(want.deadline_ns.value_or(INT64_MAX), (*reservation)->claim.end_ns);
    }
    const bool find_changes = input_.find_changes == "*" || input_.find_changes == pending.request.name;
    auto plan =
        decide_for(seen, want, accounts_, input_.policy, input_.end_by_ns, find_changes, input_.now_ns);
    if (plan && plan->start_ns <= input_.now_ns) {
      decision.gpus = plan->gpus;
      take(pending, *plan, *reservation);
      decision.start = *std::move(plan);
      return;
    }
    if (!plan) decision.refusal = std::move(plan.error());
    if (plan) {
      decision.refusal.reason = Reason::kBegin;
      decision.refusal.text =
          fmt::format("'{}' is to start at {}", pending.request.name, format_time(plan->start_ns));
      decision.refusal.later = *std::move(plan);
    } else if (*reservation == nullptr && make_room(want, decision)) {
      return;
    } else {
      name_what_is_ahead(want, decision.refusal);
    }
    if (decision.refusal.later && keeps_place(pending, decision.refusal))
      take(pending, *decision.refusal.later, *reservation);
  }

  /// EASY: the first that others' claims keep waiting, those that begin later, and those for whom others make
  /// room.
  bool keeps_place(const Pending& pending, const Refusal& refusal) {
    if (input_.policy.backfill == Backfill::kConservative) return true;
    const bool has_notice = std::ranges::any_of(input_.running, [&](const Running& r) {
      return r.ends_ns && r.makes_room_for == pending.request.name;
    });
    if (refusal.reason == Reason::kBegin || has_notice) return true;
    const bool own = refusal.reason == Reason::kQuota || refusal.reason == Reason::kBudget ||
                     refusal.reason == Reason::kLimit;
    return !own && !std::exchange(has_head_, true);
  }

  void take(const Pending& pending, const Plan& plan, Reservation* reservation) {
    accounts_.add(use_of(pending, plan), plan.price_microusd);
    Claim claim = claim_of(plan, pending.request.name);
    if (reservation != nullptr) work_ = work_.without_claim(reservation->claim);
    auto next = work_.with_claim(claim);
    TH_CHECK(next.has_value());
    work_ = *std::move(next);
    if (reservation == nullptr) return;
    // What it takes of the reservation is not the reservation's any more.
    reservation->inside.push_back(std::move(claim));
    for (const Claim& rest : reservation->rest()) {
      if (auto with = work_.with_claim(rest)) work_ = *std::move(with);
    }
  }

  bool make_room(const Pending& pending, Decision& decision) {
    const Reason reason = decision.refusal.reason;
    const bool may_preempt = reason == Reason::kBusy || reason == Reason::kPower || reason == Reason::kQuota;
    if (!may_preempt && reason != Reason::kTopology) return false;
    if (pending.request.start_ns > input_.now_ns) return false;
    int64_t noticed_ns = 0;
    for (const Running& running : input_.running)
      noticed_ns = std::max(noticed_ns, running.ends_ns.value_or(0));
    for (const Preemption& made : out_.preemptions) noticed_ns = std::max(noticed_ns, made.ends_ns);
    if (decision.refusal.later && decision.refusal.later->start_ns <= noticed_ns) {
      decision.refusal.reason = Reason::kPreempting;
      decision.refusal.text = fmt::format(
          "'{}' starts when those that make room for it have saved their work", pending.request.name);
      return false;
    }
    if (!may_preempt) return false;
    detail::RoomAsk ask{input_, pending, decision.priority, work_, accounts_, out_.preemptions, fleet_gpus_};
    const std::vector<const Running*> victims = detail::choose_victims(ask);
    if (victims.empty()) return false;
    Pending later = pending;
    std::vector<std::string> names;
    for (const Running* victim : victims) {
      const int64_t ends_ns = detail::end_of_notice(input_, *victim);
      later.request.start_ns = std::max(later.request.start_ns, ends_ns);
      out_.preemptions.push_back({victim->claim.id, pending.request.name, ends_ns});
      decision.preempts.push_back(victim->claim.id);
      names.push_back(victim->claim.id);
      end_early(*victim, ends_ns);
    }
    auto plan = decide_for(work_, later, accounts_, input_.policy, input_.end_by_ns, false, input_.now_ns);
    decision.refusal.reason = Reason::kPreempting;
    decision.refusal.text =
        fmt::format("'{}' starts when {} {} saved the work and made room", pending.request.name,
                    detail::list_some(names), names.size() == 1 ? "has" : "have");
    decision.refusal.later.reset();
    if (!plan && !plan.error().later) return true;
    decision.refusal.later = plan ? *std::move(plan) : *std::move(plan.error().later);
    take(pending, *decision.refusal.later, nullptr);
    return true;
  }

  /// GPUs that are free, but kept for those that go before or by a reservation, are no others' work.
  void name_what_is_ahead(const Pending& pending, Refusal& refusal) {
    if (refusal.reason != Reason::kBusy && refusal.reason != Reason::kPower) return;
    auto fits = [&](const Snapshot& snapshot) {
      Policy terms;
      terms.find_changes = false;
      return decide(snapshot, pending.request, terms, input_.now_ns).has_value();
    };
    if (fits(base_)) {
      refusal.reason = Reason::kPriority;
      refusal.text = fmt::format("'{}' would fit, but requests of a higher priority come first: {}",
                                 pending.request.name, refusal.text);
      return;
    }
    if (input_.reservations.empty()) return;
    Snapshot open = base_;
    std::vector<std::string> names;
    for (const Reservation& reservation : input_.reservations) {
      open = open.without_claim(reservation.claim);
      names.push_back(reservation.name);
    }
    if (!fits(open)) return;
    refusal.reason = Reason::kReservation;
    refusal.text = fmt::format("'{}' would run into what is reserved ({}): {}", pending.request.name,
                               detail::list_some(names), refusal.text);
  }

  const QueueInput& input_;
  Accounts accounts_;
  Snapshot work_, base_ = work_;  // with and without what the requests so far have taken
  std::vector<Reservation> reservations_;
  int64_t fleet_gpus_ = 0;
  bool has_head_ = false;
  QueuePlan out_;
};

}  // namespace

QueuePlan plan_queue(const QueueInput& input) { return Look(input).plan(); }

}  // namespace th::reserve
