// What must hold for every queue: limits, order, backfill, preemption. The clock runs in whole steps of one
// nanosecond, so that each instant can be looked at.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <bit>
#include <map>
#include <ranges>

#include "reserve/preempt.h"
#include "reserve/queue.h"
#include "reserve/test_fleet.h"

namespace th::reserve {
namespace {

constexpr int64_t kGpusPerHost = 2;  // LOCAL

/// root ─ a (a1, a2: may borrow from each other), b. Quotas are drawn.
QueuePolicy any_policy() {
  QueuePolicy policy;
  auto account = [&](const char* name, const char* parent, bool borrow) {
    AccountSpec spec;
    spec.name = name, spec.parent = parent, spec.borrow = borrow;
    spec.shares = *rc::gen::inRange<int64_t>(1, 4);
    if (borrow || *rc::gen::arbitrary<bool>())
      spec.max_gpus = *rc::gen::inRange<int64_t>(1, 7) * kGpusPerHost;
    policy.accounts.push_back(spec);
  };
  account("a", kRootAccount, false), account("b", kRootAccount, false),
      account(kDefaultAccount, kRootAccount, false);
  account("a1", "a", true), account("a2", "a", true);
  for (const char* name : {"high", "low", "normal"}) {
    Qos qos;
    qos.name = name, qos.grace_ns = *rc::gen::inRange<int64_t>(0, 3),
    qos.min_run_ns = *rc::gen::inRange<int64_t>(0, 3);
    if (qos.name == "high") qos.priority = 1000, qos.preempts = {"low"};
    policy.qos.push_back(qos);
  }
  policy.weights.age_unit_ns = 10;
  policy.backfill = *rc::gen::arbitrary<bool>() ? Backfill::kEasy : Backfill::kConservative;
  return policy;
}

/// A queue that is stepped through time: what starts runs for its time, what is preempted comes back.
struct World {
  std::shared_ptr<const Fleet> fleet;
  QueuePolicy policy;
  int64_t now = 1000;
  std::vector<Pending> pending;
  std::vector<Running> running;
  std::map<std::string, Pending> specs;

  Snapshot snapshot() const {
    Snapshot out(fleet);
    for (const Running& r : running) out = out.with_claim(r.claim).value();
    return out;
  }
  std::vector<Use> uses() const {
    std::vector<Use> out;
    for (const Running& r : running) {
      out.push_back(
          {r.claim.id, r.who.account, r.who.qos, detail::gpus_in(r.claim), r.claim.start_ns, r.claim.end_ns});
    }
    return out;
  }
  QueuePlan look() const {
    const Snapshot picture = snapshot();
    QueueInput input{picture, policy, {}, uses(), pending, running, {}, 0, {}, ""};
    input.now_ns = now;
    return plan_queue(input);
  }
  void apply(const QueuePlan& plan) {
    for (const Decision& d : plan.decisions) {
      if (!d.start) continue;
      const Pending& p = pending[d.index];
      Running r;
      r.claim = claim_of(*d.start, p.request.name), r.who = p.who, r.started_ns = now;
      r.preemptible = true;
      running.push_back(r);
      specs[p.request.name] = p;
    }
    for (const Preemption& made : plan.preemptions) {
      for (Running& r : running) {
        if (r.claim.id == made.id) r.ends_ns = made.ends_ns, r.makes_room_for = made.makes_room_for;
      }
    }
    std::erase_if(pending, [&](const Pending& p) { return specs.contains(p.request.name); });
  }
  void pass() {
    ++now;
    for (const Running& r : running) {
      const bool preempted = r.ends_ns && *r.ends_ns <= now && r.claim.end_ns > now;
      if (preempted) pending.push_back(specs.at(r.claim.id));
      if (preempted || r.claim.end_ns <= now) specs.erase(r.claim.id);
    }
    std::erase_if(
        running, [&](const Running& r) { return r.claim.end_ns <= now || (r.ends_ns && *r.ends_ns <= now); });
  }
};

Pending any_pending(const std::string& name, int64_t now, int hosts) {
  Pending p;
  p.request.name = name, p.request.series = "LOCAL";
  p.request.gpus = *rc::gen::inRange<int64_t>(1, hosts + 1) * kGpusPerHost;
  p.request.duration_ns = *rc::gen::inRange<int64_t>(1, 12);
  p.who.account = *rc::gen::element<std::string>("a1", "a2", "b", "default");
  p.who.qos = *rc::gen::element<std::string>("high", "low", "normal");
  p.who.submitted_ns = now - *rc::gen::inRange<int64_t>(0, 5);
  return p;
}

World any_world() {
  World world;
  const int hosts = *rc::gen::inRange(2, 7);
  world.fleet = one_leaf_fleet(hosts);
  world.policy = any_policy();
  int name = 0;
  for (int round = 0; round < 3; ++round) {
    const int many = *rc::gen::inRange(0, 5);
    for (int i = 0; i < many; ++i)
      world.pending.push_back(any_pending("p" + std::to_string(name++), world.now, hosts));
    if (round < 2) world.apply(world.look());
    world.pass();
  }
  return world;
}

int64_t gpus_of(const World& world, const std::vector<std::string>& accounts) {
  int64_t gpus = 0;
  for (const Running& r : world.running) {
    if (std::ranges::find(accounts, r.who.account) != accounts.end()) gpus += detail::gpus_in(r.claim);
  }
  return gpus;
}

TEST(QueueProperty, QuotasHoldAtEveryMomentAndTheSameInputGivesTheSamePlan) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    for (int step = 0; step < 15; ++step) {
      const QueuePlan plan = world.look(), again = world.look();
      RC_ASSERT(plan.decisions.size() == again.decisions.size());
      for (size_t i = 0; i < plan.decisions.size(); ++i) {
        RC_ASSERT(plan.decisions[i].index == again.decisions[i].index);
        RC_ASSERT(plan.decisions[i].start.has_value() == again.decisions[i].start.has_value());
        RC_ASSERT(plan.decisions[i].start.has_value() || !plan.decisions[i].refusal.text.empty());
      }
      world.apply(plan);
      static_cast<void>(world.snapshot());  // no GPU twice: value() throws otherwise
      const auto quota = [&](const char* name) {
        return world.policy.find_account(name)->max_gpus.value_or(INT64_MAX);
      };
      RC_ASSERT(gpus_of(world, {"a1", "a2"}) <= quota("a"));
      RC_ASSERT(gpus_of(world, {"b"}) <= quota("b"));
      // Who borrows has it from the sibling: both together never have more than theirs, or their parent's
      // quota.
      if (!world.policy.find_account("a")->max_gpus)
        RC_ASSERT(gpus_of(world, {"a1", "a2"}) <= quota("a1") + quota("a2"));
      world.pass();
    }
  }));
}

TEST(QueueProperty, ConservativeBackfillDelaysNobodyAndEasyNotTheHead) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    for (Qos& qos : world.policy.qos) qos.preempts.clear();  // who is preempted is delayed, by intention
    for (AccountSpec& account : world.policy.accounts) account.borrow = false;
    for (Running& r : world.running) r.ends_ns.reset();
    const QueuePlan plan = world.look();
    RC_PRE(plan.preemptions.empty());  // what was lent before is reclaimed, by intention too
    // The plan of the first k alone: what follows them must not have changed it.
    const std::vector<Pending> all = world.pending;
    bool had_head = false;
    for (size_t k = 1; k <= plan.decisions.size(); ++k) {
      const Decision& full = plan.decisions[k - 1];
      const bool own = full.refusal.reason == Reason::kQuota;
      const bool counts =
          world.policy.backfill == Backfill::kConservative || (!full.start && !own && !had_head);
      if (!full.start && !own) had_head = true;
      if (!counts) continue;
      World alone = world;
      alone.pending.clear();
      for (size_t i = 0; i < k; ++i) alone.pending.push_back(all[plan.decisions[i].index]);
      const QueuePlan few = alone.look();
      const Decision& last = few.decisions.back();
      RC_ASSERT(alone.pending[last.index].request.name == all[full.index].request.name);
      RC_ASSERT(last.start.has_value() == full.start.has_value());
      if (full.start || !full.refusal.later) continue;
      // And once all that starts now has started, it still can start when it was told.
      World after = world;
      after.apply(plan);
      Pending it = all[full.index];
      it.request.start_ns = full.refusal.later->start_ns;
      Policy terms;
      terms.find_changes = false;
      auto then = decide(after.snapshot(), it.request, terms, world.now);
      RC_ASSERT(then.has_value());
    }
  }));
}

TEST(QueueProperty, WhoIsPreemptedIsEnoughAndNoneTooMany) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    const QueuePlan plan = world.look();
    for (const Decision& d : plan.decisions) {
      if (d.preempts.empty()) continue;
      const Pending& p = world.pending[d.index];
      RC_ASSERT(d.refusal.reason == Reason::kPreempting);
      RC_ASSERT(d.refusal.later.has_value());
      std::map<std::string, int64_t> ends;
      for (const std::string& id : d.preempts) {
        auto victim = std::ranges::find_if(world.running, [&](const Running& r) { return r.claim.id == id; });
        RC_ASSERT(victim != world.running.end());
        RC_ASSERT(!victim->ends_ns);
        RC_ASSERT(world.now - victim->started_ns >= world.policy.find_qos(victim->who.qos)->min_run_ns);
        ends[id] = world.now + std::max<int64_t>(1, world.policy.find_qos(victim->who.qos)->grace_ns);
      }
      const auto last_end = [&] { return std::ranges::max(ends | std::views::values); };
      RC_ASSERT(d.refusal.later->start_ns == last_end());
      // With any one of them left it does not start when the others are gone, by a look at it alone.
      for (const std::string& keep : d.preempts) {
        if (&d != &plan.decisions.front()) break;  // others' plans would have to be there as well
        World less = world;
        std::erase_if(less.running, [&](const Running& r) {
          return r.claim.id != keep && std::ranges::find(d.preempts, r.claim.id) != d.preempts.end();
        });
        for (Running& r : less.running) r.preemptible = false;
        less.pending = {p};
        const auto kept = ends.extract(keep);
        if (!ends.empty()) less.now = last_end();
        ends.insert({kept.key(), kept.mapped()});
        std::erase_if(less.running, [&](const Running& r) { return r.claim.end_ns <= less.now; });
        RC_ASSERT(!less.look().decisions[0].start);
      }
    }
  }));
}

TEST(QueueProperty, NothingStarvesUnderAStreamOfOthers) {
  EXPECT_TRUE(rc::check([] {
    World world;
    const int hosts = *rc::gen::inRange(2, 6);
    world.fleet = one_leaf_fleet(hosts);
    world.policy = any_policy();
    for (AccountSpec& account : world.policy.accounts) account.max_gpus.reset(), account.borrow = false;
    Pending big = any_pending("big", world.now, hosts);
    big.request.gpus = hosts * kGpusPerHost, big.request.duration_ns = 5;
    big.who.submitted_ns = world.now, big.who.qos = "low";
    world.pending.push_back(big);
    // Δ of queue.h: 10 · (1000 + 10'000 + 1000) / 1000 steps. All that may go before is submitted by then;
    // with the whole fleet drained of it once more, and a run of its own, that bounds the wait.
    const int64_t bound = 120 + 2 * 12 * 120;
    bool started = false;
    for (int step = 0; step < bound && !started; ++step) {
      for (int i = 0; i < 2; ++i) {
        Pending small = any_pending("s" + std::to_string(step) + "-" + std::to_string(i), world.now, 1);
        small.who.qos = "high", small.who.submitted_ns = world.now;
        if (world.pending.size() < 12) world.pending.push_back(small);
      }
      world.apply(world.look());
      started = world.specs.contains("big");
      world.pass();
    }
    RC_ASSERT(started);
  }));
}

TEST(QueueProperty, TheOwnerOfAQuotaGetsItBack) {
  EXPECT_TRUE(rc::check([] {
    World world;
    world.fleet = one_leaf_fleet(4);
    world.policy = any_policy();
    for (AccountSpec& account : world.policy.accounts) {
      account.max_gpus.reset();
      if (account.borrow) account.max_gpus = 4;  // two of the four hosts each
    }
    for (Qos& qos : world.policy.qos) qos.preempts.clear(), qos.min_run_ns = 0;
    const int64_t borrowed = *rc::gen::inRange<int64_t>(1, 5);  // hosts that a1 runs on
    for (int64_t i = 0; i < borrowed; ++i) {
      Pending p = any_pending("a1-" + std::to_string(i), world.now, 1);
      p.who.account = "a1", p.request.duration_ns = 1000;
      world.pending.push_back(p);
    }
    world.apply(world.look());
    RC_ASSERT(gpus_of(world, {"a1"}) == borrowed * kGpusPerHost);
    Pending mine = any_pending("mine", world.now, 2);
    mine.who.account = "a2", mine.request.duration_ns = 1000;
    world.pending.push_back(mine);
    for (int step = 0; step < 10; ++step) world.apply(world.look()), world.pass();
    RC_ASSERT(gpus_of(world, {"a2"}) == mine.request.gpus);
    RC_ASSERT(gpus_of(world, {"a1"}) >= std::min<int64_t>(borrowed * kGpusPerHost, 4));
  }));
}

}  // namespace
}  // namespace th::reserve
