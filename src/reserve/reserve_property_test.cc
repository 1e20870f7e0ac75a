// What must hold for every fleet and every request, against a brute-force reading of the rules on small
// cases: whole hours are nanoseconds 0 .. kHorizon here, so that every instant can be looked at.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <bit>
#include <set>

#include "reserve/reserve.h"

namespace th::reserve {
namespace {

constexpr int64_t kHorizon = 64;
constexpr int64_t kHostW = 70, kGpusPerHost = 2;  // LOCAL

struct RackParts {
  int32_t leaf = 0;
  int32_t hosts = 1;
  int64_t budget_w = 0;
};

std::shared_ptr<const Fleet> make_fleet(const std::vector<RackParts>& racks,
                                        const std::vector<PowerRaise>& raises = {}) {
  fleet::FleetParts parts;
  parts.name = "small";
  parts.sites.push_back({"s"});
  for (const RackParts& entry : racks) {
    while (static_cast<int32_t>(parts.switches.size()) <= entry.leaf) {
      parts.switches.push_back({"l" + std::to_string(parts.switches.size()), fleet::SwitchTier::kLeaf});
    }
    fleet::Rack rack;
    auto index = static_cast<RackIndex>(parts.racks.size());
    rack.id = "r" + std::to_string(index);
    rack.leaf_switch = entry.leaf;
    rack.power_budget_w = entry.budget_w;
    for (const PowerRaise& raise : raises) rack.power_budget_w += raise.index == index ? raise.raise_w : 0;
    parts.racks.push_back(rack);
    for (int32_t h = 0; h < entry.hosts; ++h) {
      fleet::Host host;
      host.id = rack.id + "h" + std::to_string(h);
      host.rack = index;
      parts.hosts.push_back(host);
    }
  }
  return std::make_shared<const Fleet>(std::move(parts));
}

struct World {
  std::vector<RackParts> racks;
  std::set<HostIndex> drained;
  std::vector<Claim> claims;

  Snapshot snapshot(const std::vector<PowerRaise>& raises = {}) const {
    Snapshot snapshot(make_fleet(racks, raises));
    for (const Claim& claim : claims) snapshot = snapshot.with_claim(claim).value();
    for (HostIndex host : drained) snapshot = snapshot.with_out_of_use(host, "drained");
    return snapshot;
  }

  bool has(HostIndex host, int64_t time) const {
    return std::ranges::any_of(claims, [&](const Claim& claim) {
      return claim.start_ns <= time && time < claim.end_ns &&
             std::ranges::any_of(claim.hosts, [&](const HostGpus& part) { return part.host == host; });
    });
  }

  /// Whole hosts of each rack that could be taken in [start, end).
  std::vector<int64_t> room(int64_t start, int64_t end) const {
    std::vector<int64_t> rooms;
    HostIndex first = 0;
    for (const RackParts& rack : racks) {
      int64_t free = 0, powered = rack.hosts;
      for (HostIndex host = first; host < first + rack.hosts; ++host) {
        bool is_free = !drained.contains(host);
        for (int64_t t = start; t < end; ++t) is_free = is_free && !has(host, t);
        free += is_free;
      }
      for (int64_t t = start; t < end; ++t) {
        int64_t watts = 0;
        for (HostIndex host = first; host < first + rack.hosts; ++host) watts += has(host, t) ? kHostW : 0;
        powered = std::min(powered, std::max<int64_t>(0, rack.budget_w - watts) / kHostW);
      }
      rooms.push_back(std::min(free, powered));
      first += rack.hosts;
    }
    return rooms;
  }

  bool fits(int64_t hosts, int64_t start, int64_t end) const {
    int64_t sum = 0;
    for (int64_t rack : room(start, end)) sum += rack;
    return sum >= hosts;
  }

  /// The fewest leaves that hold so many hosts, by trying every set of leaves.
  int fewest_leaves(int64_t hosts, int64_t start, int64_t end) const {
    std::vector<int64_t> by_rack = room(start, end);
    int best = 99;
    for (unsigned set = 0; set < 16; ++set) {
      int64_t sum = 0;
      for (size_t i = 0; i < racks.size(); ++i) sum += (set >> racks[i].leaf & 1) != 0 ? by_rack[i] : 0;
      if (sum >= hosts) best = std::min(best, std::popcount(set));
    }
    return best;
  }
};

World any_world() {
  World world;
  int32_t leaf = 0;
  int num_racks = *rc::gen::inRange(1, 5);
  for (int i = 0; i < num_racks; ++i) {
    if (i > 0 && *rc::gen::arbitrary<bool>()) ++leaf;
    world.racks.push_back({leaf, *rc::gen::inRange(1, 4), *rc::gen::inRange<int64_t>(30, 300)});
  }
  HostIndex num_hosts = 0;
  for (const RackParts& rack : world.racks) num_hosts += rack.hosts;
  Snapshot snapshot(make_fleet(world.racks));
  int tries = *rc::gen::inRange(0, 10);
  for (int i = 0; i < tries; ++i) {
    int64_t start = *rc::gen::inRange<int64_t>(0, 20);
    Claim claim{"c" + std::to_string(i), start, start + *rc::gen::inRange<int64_t>(1, 10), {}};
    for (HostIndex host = 0; host < num_hosts; ++host) {
      if (*rc::gen::inRange(0, 3) == 0) claim.hosts.push_back({host, 0b11});
    }
    auto next = snapshot.with_claim(claim);
    if (!next) continue;
    snapshot = *next;
    world.claims.push_back(claim);
  }
  for (HostIndex host = 0; host < num_hosts; ++host) {
    if (*rc::gen::inRange(0, 5) == 0) world.drained.insert(host);
  }
  return world;
}

Request any_request() {
  return {"q",
          *rc::gen::inRange<int64_t>(1, 20),
          "LOCAL",
          *rc::gen::inRange<int64_t>(1, 8),
          *rc::gen::inRange<int64_t>(0, 6),
          std::nullopt};
}

int64_t hosts_for(const Request& request) { return (request.gpus + kGpusPerHost - 1) / kGpusPerHost; }

/// The plan is for the whole gang, in free hosts, within the power of every rack at every instant, on the
/// fewest leaves.
void check_plan(const World& world, const Request& request, const Plan& plan) {
  RC_ASSERT(static_cast<int64_t>(plan.hosts.size()) == hosts_for(request));
  RC_ASSERT(plan.gpus == hosts_for(request) * kGpusPerHost);
  RC_ASSERT(plan.end_ns - plan.start_ns == request.duration_ns);
  World after = world;
  after.claims.push_back(claim_of(plan, "plan"));
  Snapshot snapshot = world.snapshot();
  RC_ASSERT(snapshot.with_claim(after.claims.back()).has_value());
  std::set<fleet::LeafIndex> leaves;
  std::set<RackIndex> racks;
  for (const HostGpus& part : plan.hosts) {
    RC_ASSERT(part.gpus == 0b11u);
    RC_ASSERT(!world.drained.contains(part.host));
    leaves.insert(snapshot.fleet().host(part.host).leaf);
    racks.insert(snapshot.fleet().host(part.host).rack);
  }
  RC_ASSERT(static_cast<int>(leaves.size()) ==
            world.fewest_leaves(hosts_for(request), plan.start_ns, plan.end_ns));
  for (RackIndex rack : racks) {
    for (int64_t t = plan.start_ns; t < plan.end_ns; ++t) {
      int64_t watts = 0;
      const fleet::Rack& entry = snapshot.fleet().rack(rack);
      for (HostIndex host = entry.first_host; host < entry.first_host + entry.num_hosts; ++host) {
        watts += after.has(host, t) ? kHostW : 0;
      }
      RC_ASSERT(watts <= entry.power_budget_w);
    }
  }
}

/// The world and the request with the change made are planned at once.
void check_change(World world, Request request, const Change& change) {
  for (HostIndex host : change.return_hosts) world.drained.erase(host);
  for (const std::string& id : change.release_claims) {
    RC_ASSERT(std::erase_if(world.claims, [&](const Claim& claim) { return claim.id == id; }) == 1u);
  }
  if (change.gpus) RC_ASSERT(*change.gpus < hosts_for(request) * kGpusPerHost);
  if (change.duration_ns) RC_ASSERT(*change.duration_ns < request.duration_ns);
  request.gpus = change.gpus.value_or(request.gpus);
  request.duration_ns = change.duration_ns.value_or(request.duration_ns);
  auto plan = decide(world.snapshot(change.raise_power), request, {}, 0);
  RC_ASSERT(plan.has_value());
  RC_ASSERT(plan->start_ns == request.start_ns);
}

TEST(ReserveProperty, WholeGangAtTheEarliestStartOrATrueRefusal) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    Request request = any_request();
    auto decision = decide(world.snapshot(), request, {}, 0);
    int64_t need = hosts_for(request), exist = 0;
    for (const RackParts& rack : world.racks) exist += rack.hosts;
    bool fits_now = world.fits(need, request.start_ns, request.start_ns + request.duration_ns);
    RC_ASSERT(decision.has_value() == fits_now);
    if (decision) {
      RC_ASSERT(decision->start_ns == request.start_ns);
      check_plan(world, request, *decision);
      return;
    }
    const Refusal& refusal = decision.error();
    RC_ASSERT((refusal.reason == Reason::kNotEnoughGpus) == (need > exist));
    for (const Change& change : refusal.changes) check_change(world, request, change);
    int64_t start = request.start_ns;
    while (start < kHorizon && !world.fits(need, start, start + request.duration_ns)) ++start;
    RC_ASSERT(refusal.later.has_value() == (start < kHorizon));
    if (!refusal.later) return;
    RC_ASSERT(refusal.later->start_ns == start);
    check_plan(world, request, *refusal.later);
  }));
}

// With a second on the clock, times can be shortened.
TEST(ReserveProperty, ShorteningIsTheLongestThatStartsNow) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    Request request = any_request();
    int64_t start = request.start_ns, end = start + request.duration_ns;
    constexpr int64_t kSecond = 1'000'000'000;
    World in_seconds = world;
    for (Claim& claim : in_seconds.claims) claim.start_ns *= kSecond, claim.end_ns *= kSecond;
    Request asked = request;
    asked.duration_ns *= kSecond;
    asked.start_ns *= kSecond;
    auto decision = decide(in_seconds.snapshot(), asked, {}, 0);
    if (decision || decision.error().reason == Reason::kNotEnoughGpus) return;
    while (end > start && !world.fits(hosts_for(request), start, end)) --end;
    std::optional<int64_t> told;
    for (const Change& change : decision.error().changes) {
      if (change.duration_ns) told = change.duration_ns;
    }
    RC_ASSERT(told.value_or(0) == (end - start) * kSecond);
  }));
}

TEST(ReserveProperty, BackfillNeverDelaysWhoAskedEarlier) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    std::vector<Request> queue;
    int length = *rc::gen::inRange(1, 7);
    for (int i = 0; i < length; ++i) {
      queue.push_back(any_request());
      queue.back().name = "q" + std::to_string(i);
    }
    Policy policy;
    policy.find_changes = false;
    auto decisions = plan_queue(world.snapshot(), queue, policy, 0);
    RC_ASSERT(decisions.size() == queue.size());
    // Each has the place it would have if nobody had come after it, and the earliest that those before it
    // leave.
    for (size_t i = 0; i < queue.size(); ++i) {
      auto alone = decide(world.snapshot(), queue[i], policy, 0);
      RC_ASSERT(decisions[i].has_value() == alone.has_value());
      const Plan* plan = decisions[i] ? &*decisions[i] : nullptr;
      if (!decisions[i] && decisions[i].error().later) plan = &*decisions[i].error().later;
      const Plan* best = alone ? &*alone : nullptr;
      if (!alone && alone.error().later) best = &*alone.error().later;
      RC_ASSERT((plan == nullptr) == (best == nullptr));
      if (plan == nullptr) continue;
      RC_ASSERT(plan->hosts == best->hosts);
      RC_ASSERT(plan->start_ns == best->start_ns);
      check_plan(world, queue[i], *plan);
      world.claims.push_back(claim_of(*plan, queue[i].name));
    }
  }));
}

TEST(ReserveProperty, AClaimTakenBackLeavesNoTrace) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    if (world.claims.empty()) return;
    Snapshot with = world.snapshot();
    Claim last = world.claims.back();
    world.claims.pop_back();
    Request request = any_request();
    auto after = decide(with.without_claim(last), request, {}, 0);
    auto before = decide(world.snapshot(), request, {}, 0);
    RC_ASSERT(after.has_value() == before.has_value());
    if (after) {
      RC_ASSERT(after->hosts == before->hosts);
      RC_ASSERT(after->explanation == before->explanation);
    } else {
      RC_ASSERT(after.error().error() == before.error().error());
    }
  }));
}

TEST(ReserveProperty, JobsInASliceGetGpusThatAreFree) {
  EXPECT_TRUE(rc::check([] {
    auto fleet = make_fleet({{0, 2, 1}, {1, 2, 1}});
    std::vector<HostGpus> share = {{0, 3}, {1, 2}, {2, 3}, {3, 1}};  // 6 GPUs
    Snapshot snapshot = Snapshot::within(fleet, share);
    std::vector<Claim> claims;
    for (int i = 0; i < 12; ++i) {
      Request request = any_request();
      request.series = "";
      auto decision = decide(snapshot, request, {}, 0);
      int64_t start = request.start_ns, end = start + request.duration_ns, free = 0;
      for (const HostGpus& host : share) {
        GpuMask left = host.gpus;
        for (const Claim& claim : claims) {
          if (claim.end_ns <= start || end <= claim.start_ns) continue;
          for (const HostGpus& part : claim.hosts) left &= part.host == host.host ? ~part.gpus : ~GpuMask{0};
        }
        free += std::popcount(left);
      }
      RC_ASSERT(decision.has_value() == (request.gpus <= free));
      if (!decision) continue;
      int64_t gpus = 0;
      for (const HostGpus& part : decision->hosts) gpus += std::popcount(part.gpus);
      RC_ASSERT(gpus == request.gpus);
      claims.push_back(claim_of(*decision, "job-" + std::to_string(i)));
      auto next = snapshot.with_claim(claims.back());
      RC_ASSERT(next.has_value());
      snapshot = *next;
    }
  }));
}

}  // namespace
}  // namespace th::reserve
