// Places on fleets with spines, rows, site budgets and caps: whatever is planned keeps every limit at every
// instant, comes as early as it can, and moves pay. th-sim optimal compares the cost with the best there is.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <bit>
#include <map>
#include <set>

#include "reserve/defrag.h"
#include "reserve/objective.h"

namespace th::reserve {
namespace {

constexpr int64_t kHostW = 70, kGpusPerHost = 2;  // LOCAL
constexpr int64_t kHorizon = 60;                  // claims end before it

/// Two spines; the first has a row of its own over all its leaves, each leaf of the second a row below it.
std::shared_ptr<const Fleet> any_fleet() {
  fleet::FleetParts parts;
  parts.name = "small";
  parts.sites.push_back({"s", *rc::gen::element<int64_t>(0, 5 * kHostW, 9 * kHostW + 3)});
  for (int32_t spine = 0; spine < 2; ++spine) {
    auto spine_switch = static_cast<fleet::SwitchIndex>(parts.switches.size());
    parts.switches.push_back({"p" + std::to_string(spine), fleet::SwitchTier::kSpine, -1, 1});
    int leaves = *rc::gen::inRange(1, 4);
    for (int leaf = 0; leaf < leaves; ++leaf) {
      auto leaf_switch = static_cast<fleet::SwitchIndex>(parts.switches.size());
      parts.switches.push_back(
          {"l" + std::to_string(leaf_switch), fleet::SwitchTier::kLeaf, spine_switch, 1});
      if (leaf == 0 || spine == 1) {
        fleet::Row row;
        row.id = "w" + std::to_string(parts.rows.size());
        row.power_budget_w = *rc::gen::element<int64_t>(0, 2 * kHostW, 4 * kHostW + 1);
        parts.rows.push_back(row);
      }
      int racks = *rc::gen::inRange(1, 3);
      for (int r = 0; r < racks; ++r) {
        fleet::Rack rack;
        auto index = static_cast<RackIndex>(parts.racks.size());
        rack.id = "r" + std::to_string(index);
        rack.leaf_switch = leaf_switch;
        rack.row = static_cast<fleet::RowIndex>(parts.rows.size() - 1);
        rack.power_budget_w = *rc::gen::inRange<int64_t>(kHostW - 10, 4 * kHostW);
        parts.racks.push_back(rack);
        int hosts = *rc::gen::inRange(1, 4);
        for (int h = 0; h < hosts; ++h) {
          fleet::Host host;
          host.id = rack.id + "h" + std::to_string(h);
          host.rack = index;
          parts.hosts.push_back(host);
        }
      }
    }
  }
  return std::make_shared<const Fleet>(std::move(parts));
}

Request any_request() {
  Request request;
  request.name = "q";
  request.series = "LOCAL";
  request.duration_ns = *rc::gen::inRange<int64_t>(1, 8);
  request.start_ns = *rc::gen::inRange<int64_t>(0, 6);
  int64_t hosts = *rc::gen::inRange<int64_t>(1, 7);
  if (*rc::gen::inRange(0, 3) == 0) {
    request.segment = *rc::gen::inRange(1, 4);
    hosts *= request.segment;
  }
  request.gpus = hosts * kGpusPerHost;
  request.max_switches = *rc::gen::element(0, 0, 1, 2);
  request.spares = *rc::gen::element(0, 0, 0, 1);
  if (*rc::gen::inRange(0, 3) == 0) request.layout = Layout::kSpread;
  return request;
}

struct World {
  Snapshot snapshot;
  std::vector<Claim> claims;
  int64_t cap_w = 0, cap_start_ns = 0, cap_end_ns = 0;
};

/// What is there keeps its limits, since every claim in it was planned.
World any_world() {
  World world{Snapshot(any_fleet()), {}};
  auto num_hosts = static_cast<HostIndex>(world.snapshot.fleet().hosts().size());
  for (HostIndex host = 0; host < num_hosts; ++host) {
    if (*rc::gen::inRange(0, 8) == 0) world.snapshot = world.snapshot.with_out_of_use(host, "drained");
    if (*rc::gen::inRange(0, 6) == 0) world.snapshot = world.snapshot.with_lemon(host, true);
  }
  if (*rc::gen::inRange(0, 3) == 0) {
    world.cap_w = *rc::gen::inRange<int64_t>(0, 8) * kHostW;
    world.cap_start_ns = *rc::gen::inRange<int64_t>(0, 10);
    world.cap_end_ns = world.cap_start_ns + *rc::gen::inRange<int64_t>(1, 10);
    world.snapshot = world.snapshot.with_power_cap(0, world.cap_w, world.cap_start_ns, world.cap_end_ns);
  }
  int tries = *rc::gen::inRange(0, 8);
  for (int i = 0; i < tries; ++i) {
    auto plan = decide(world.snapshot, any_request(), {}, 0);
    if (!plan) continue;
    world.claims.push_back(claim_of(*plan, "c" + std::to_string(i)));
    world.snapshot = world.snapshot.with_claim(world.claims.back()).value();
  }
  return world;
}

bool has(const std::vector<Claim>& claims, HostIndex host, int64_t time) {
  return std::ranges::any_of(claims, [&](const Claim& claim) {
    return claim.start_ns <= time && time < claim.end_ns &&
           std::ranges::any_of(claim.hosts, [&](const HostGpus& part) { return part.host == host; });
  });
}

/// Watts at one instant of the hosts that `in` picks, by adding them up.
template <class In>
int64_t watts(const Fleet& fleet, const std::vector<Claim>& claims, int64_t time, In in) {
  int64_t sum = 0;
  for (size_t i = 0; i < fleet.hosts().size(); ++i) {
    if (in(fleet.hosts()[i]) && has(claims, static_cast<HostIndex>(i), time)) sum += kHostW;
  }
  return sum;
}

void check_power(const World& world) {
  const Fleet& fleet = world.snapshot.fleet();
  for (int64_t t = 0; t < kHorizon; ++t) {
    for (size_t r = 0; r < fleet.racks().size(); ++r) {
      auto rack = static_cast<RackIndex>(r);
      int64_t drawn = watts(fleet, world.claims, t, [&](const auto& host) { return host.rack == rack; });
      RC_ASSERT(drawn <= fleet.rack(rack).power_budget_w);
      RC_ASSERT(drawn == world.snapshot.rack_power_w(rack, t));
    }
    for (size_t r = 0; r < fleet.rows().size(); ++r) {
      auto row = static_cast<fleet::RowIndex>(r);
      int64_t drawn =
          watts(fleet, world.claims, t, [&](const auto& host) { return fleet.rack(host.rack).row == row; });
      RC_ASSERT(fleet.row(row).power_budget_w == 0 || drawn <= fleet.row(row).power_budget_w);
      RC_ASSERT(drawn == world.snapshot.row_power_w(row, t));
    }
    int64_t drawn = watts(fleet, world.claims, t, [](const auto&) { return true; });
    RC_ASSERT(fleet.sites()[0].power_budget_w == 0 || drawn <= fleet.sites()[0].power_budget_w);
    RC_ASSERT(drawn <= world.cap_w || t < world.cap_start_ns || t >= world.cap_end_ns);
    RC_ASSERT(drawn == world.snapshot.site_power_w(0, t));
  }
}

/// Whole, in blocks, on few enough leaves, its spares and groups counted.
void check_shape(const World& world, const Request& request, const Policy& policy, const Plan& plan) {
  int64_t hosts = request.gpus / kGpusPerHost;
  int64_t blocks = request.segment > 0 ? hosts / request.segment : 1;
  int64_t spares = blocks * request.spares;
  RC_ASSERT(static_cast<int64_t>(plan.hosts.size()) == hosts + spares);
  RC_ASSERT(static_cast<int64_t>(plan.spares.size()) == spares);
  RC_ASSERT(plan.gpus == (hosts + spares) * kGpusPerHost);
  RC_ASSERT(std::ranges::is_sorted(plan.hosts, {}, &HostGpus::host));
  std::map<fleet::LeafIndex, int64_t> leaves, spares_on;
  for (const HostGpus& part : plan.hosts) {
    RC_ASSERT(part.gpus == 0b11u);
    RC_ASSERT(!world.snapshot.host_use(part.host, 0).out_of_use.has_value());
    ++leaves[world.snapshot.fleet().host(part.host).leaf];
  }
  for (HostIndex host : plan.spares) ++spares_on[world.snapshot.fleet().host(host).leaf];
  for (auto [leaf, count] : leaves) {
    if (request.segment == 0) continue;
    RC_ASSERT(count % (request.segment + request.spares) == 0);
    RC_ASSERT(spares_on[leaf] == count / (request.segment + request.spares) * request.spares);
  }
  RC_ASSERT(request.max_switches == 0 || static_cast<int32_t>(leaves.size()) <= request.max_switches);
  int64_t limit = policy.max_group_hosts > 0 ? policy.max_group_hosts : hosts + spares, sum = 0;
  for (int32_t group : plan.groups) {
    RC_ASSERT(group >= 1 && group <= limit);
    sum += group;
  }
  RC_ASSERT(sum == hosts + spares);
  RC_ASSERT(static_cast<int64_t>(plan.groups.size()) == (sum + limit - 1) / limit);
}

TEST(PlaceProperty, LimitsHoldAtEveryInstantAndTheStartIsTheEarliest) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    check_power(world);
    Request request = any_request();
    Policy policy;
    policy.max_group_hosts = *rc::gen::element(0, 1, 3);
    auto decision = decide(world.snapshot, request, policy, 0);
    const Plan* plan = decision ? &*decision : decision.error().later ? &*decision.error().later : nullptr;
    policy.find_changes = false;
    Request then = request;
    for (then.start_ns = request.start_ns; then.start_ns < kHorizon; ++then.start_ns) {
      if (decide(world.snapshot, then, policy, 0)) break;
    }
    RC_ASSERT((plan == nullptr) == (then.start_ns == kHorizon));
    if (plan == nullptr) return;
    RC_ASSERT(plan->start_ns == then.start_ns);
    check_shape(world, request, policy, *plan);
    world.claims.push_back(claim_of(*plan, "plan"));
    auto with = world.snapshot.with_claim(world.claims.back());
    RC_ASSERT(with.has_value());
    Snapshot before = world.snapshot;
    world.snapshot = *with;
    check_power(world);
    // Taken back, everything is as it was.
    auto again = decide(world.snapshot.without_claim(world.claims.back()), then, policy, 0);
    RC_ASSERT(again.has_value());
    RC_ASSERT(again->hosts == decide(before, then, policy, 0)->hosts);
  }));
}

TEST(PlaceProperty, ChangesOfTheFabricStartIt) {
  EXPECT_TRUE(rc::check([] {
    World world = any_world();
    Request request = any_request();
    Policy policy;
    policy.max_group_hosts = *rc::gen::element(0, 0, 2);
    policy.split_groups = *rc::gen::arbitrary<bool>();
    auto decision = decide(world.snapshot, request, policy, 0);
    if (decision) return;
    for (const Change& change : decision.error().changes) {
      if (!change.raise_power.empty() || !change.return_hosts.empty() || !change.release_claims.empty())
        continue;
      Request changed = request;
      changed.gpus = change.gpus.value_or(request.gpus);
      changed.duration_ns = change.duration_ns.value_or(request.duration_ns);
      changed.max_switches = change.max_switches.value_or(request.max_switches);
      changed.segment = change.segment.value_or(request.segment);
      Policy allowed = policy;
      allowed.split_groups |= change.split_groups;
      auto then = decide(world.snapshot, changed, allowed, 0);
      if (!then) RC_FAIL(decision.error().text + "; " + change.text + ": " + then.error().text);
    }
  }));
}

TEST(PlaceProperty, MovesPayAndCanBeMadeInOrder) {
  int found = 0;
  EXPECT_TRUE(rc::check([&] {
    World world = any_world();
    Request gang = any_request();
    gang.start_ns = 0;
    std::vector<Movable> movables;
    for (const Claim& claim : world.claims) movables.push_back({claim, *rc::gen::inRange<int64_t>(0, 3)});
    auto plan = plan_defrag(world.snapshot, gang, {}, 0, movables,
                            {.max_moves = 4, .wait_ns = 10, .switch_ppm = 200'000});
    if (!plan) return;
    ++found;
    RC_ASSERT(!plan->moves.empty() && plan->moves.size() <= 4u);
    RC_ASSERT(plan->gain_gpu_ns > plan->cost_gpu_ns);
    for (const Move& move : plan->moves) {
      auto claim = std::ranges::find(world.claims, move.claim, &Claim::id);
      RC_ASSERT(claim != world.claims.end());
      RC_ASSERT(claim->hosts == move.from);
      RC_ASSERT(move.to.size() == move.from.size());
      world.snapshot = world.snapshot.without_claim(*claim);
      claim->hosts = move.to;
      claim->start_ns = 0;
      auto next = world.snapshot.with_claim(*claim);
      RC_ASSERT(next.has_value());
      world.snapshot = *next;
    }
    world.claims.push_back(claim_of(plan->gang, "gang"));
    auto next = world.snapshot.with_claim(world.claims.back());
    RC_ASSERT(next.has_value());
    world.snapshot = *next;
    check_power(world);
  }));
  RecordProperty("found", found);
}

// Two leaves of two hosts, each with one of them taken by a job that can move: 2 of 4 GPUs a leaf are free,
// none of it whole.
std::shared_ptr<const Fleet> two_leaves() {
  auto fleet = fleet::generate_fleet({.num_leaves = 2, .hosts_per_rack = 2, .series = "LOCAL"});
  return std::make_shared<const Fleet>(*std::move(fleet));
}

TEST(DefragTest, CountsWhatIsScattered) {
  Snapshot snapshot(two_leaves());
  EXPECT_EQ(fragmentation(snapshot, 0).free_gpus, 8);
  EXPECT_EQ(fragmentation(snapshot, 0).share, 0);
  snapshot = snapshot.with_claim({"a", 0, 100, {{0, 3}}}).value();
  EXPECT_EQ(fragmentation(snapshot, 0).free_gpus, 6);
  EXPECT_EQ(fragmentation(snapshot, 0).whole_leaf_gpus, 4);
  EXPECT_DOUBLE_EQ(fragmentation(snapshot, 0).share, 1.0 / 3);
  snapshot = snapshot.with_claim({"b", 0, 100, {{2, 3}}}).value();
  EXPECT_EQ(fragmentation(snapshot, 0).share, 1);
  EXPECT_EQ(fragmentation(snapshot, 100).share, 0);
}

TEST(DefragTest, MovesOneJobWhenThatPays) {
  Claim a{"a", 0, 100, {{0, 3}}}, b{"b", 0, 100, {{2, 3}}};
  Snapshot snapshot = Snapshot(two_leaves()).with_claim(a)->with_claim(b).value();
  Request gang;
  gang.name = "gang", gang.gpus = 4, gang.series = "LOCAL", gang.duration_ns = 50, gang.max_switches = 1;
  // 4 GPUs would wait 90 ns: 360 GPU ns against 2 GPUs × 20 ns.
  const std::vector<Movable> movables = {{a, 20}, {b, 30}};
  auto plan = plan_defrag(snapshot, gang, {}, 10, movables, {.wait_ns = 90});
  ASSERT_TRUE(plan.has_value());
  ASSERT_EQ(plan->moves.size(), 1u);
  EXPECT_EQ(plan->moves[0].claim, "a");
  EXPECT_EQ(plan->moves[0].to, (std::vector<HostGpus>{{3, 3}}));
  EXPECT_EQ(plan->gang.hosts, (std::vector<HostGpus>{{0, 3}, {1, 3}}));
  EXPECT_EQ(plan->gain_gpu_ns, 360);
  EXPECT_EQ(plan->cost_gpu_ns, 40);
  EXPECT_FALSE(
      plan_defrag(snapshot, gang, {}, 10, movables, {.wait_ns = 10}).has_value());  // 40 is not over 40
  EXPECT_FALSE(plan_defrag(snapshot, gang, {}, 10, {}, {.wait_ns = 90}).has_value());
  // Without the limit it starts at once on two switches; one less is worth 30 % of 4 GPUs × 50 ns = 60.
  gang.max_switches = 0, gang.duration_ns = 50'000'000;
  plan = plan_defrag(Snapshot(two_leaves())
                         .with_claim({"a", 0, 100'000'000, {{0, 3}}})
                         ->with_claim({"b", 0, 100'000'000, {{2, 3}}})
                         .value(),
                     gang, {}, 10, std::vector<Movable>{{{"a", 0, 100'000'000, {{0, 3}}}, 20}},
                     {.switch_ppm = 300'000});
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->gain_gpu_ns, 4 * 50'000'000 / 10 * 3);
}

TEST(PlaceTest, AGangOverOneGroupIsSplitOrRefused) {
  Snapshot snapshot(two_leaves());
  Request gang;
  gang.name = "gang", gang.gpus = 6, gang.series = "LOCAL", gang.duration_ns = 3'600'000'000'000;
  Policy policy;
  policy.max_group_hosts = 2;
  auto plan = decide(snapshot, gang, policy, 0);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->groups, (std::vector<int32_t>{2, 1}));  // cut between the leaves
  policy.split_groups = false;
  auto refusal = decide(snapshot, gang, policy, 0);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kTopology);
  EXPECT_EQ(refusal.error().text,
            "6 GPUs of LOCAL for 1h are 3 VMs, and one placement group of the cloud holds 2");
  ASSERT_EQ(refusal.error().changes.size(), 2u);
  EXPECT_EQ(refusal.error().changes[0].text, "allow 2 placement groups");
  EXPECT_EQ(refusal.error().changes[1].gpus, 4);
}

TEST(PlaceTest, SwitchesSegmentsAndCapsAreToldWhenTheyAreInTheWay) {
  Snapshot snapshot = Snapshot(two_leaves()).with_claim({"a", 0, 100, {{0, 3}}}).value();
  Request gang;
  gang.name = "gang", gang.gpus = 6, gang.series = "LOCAL", gang.duration_ns = 50, gang.max_switches = 1;
  auto refusal = decide(snapshot, gang, {}, 0);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kTopology);
  EXPECT_NE(refusal.error().text.find("6 free, 2 taken (a)"), std::string::npos) << refusal.error().text;
  EXPECT_NE(refusal.error().text.find("at most 4 of them on 1 leaf switches"), std::string::npos);
  EXPECT_FALSE(refusal.error().later.has_value());  // a leaf has two hosts
  bool told = false;
  for (const Change& change : refusal.error().changes) told |= change.text == "allow 2 switches";
  EXPECT_TRUE(told);
  EXPECT_EQ(refusal.error().error().code, Code::kUnsatisfiable);

  gang.max_switches = 0, gang.gpus = 8, gang.segment = 2;
  refusal = decide(snapshot, gang, {}, 0);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kBusy);
  EXPECT_EQ(refusal.error().later->start_ns, 100);
  gang.gpus = 6;
  refusal = decide(snapshot, gang, {}, 0);
  EXPECT_EQ(refusal.error().text, "segment: 3 hosts do not divide into blocks of 2; ask for 2 or 4 hosts");

  // 140 W in the site until 30: two hosts, of which one is taken.
  Snapshot capped = snapshot.with_power_cap(0, 2 * kHostW, 0, 30);
  gang.segment = 0, gang.gpus = 4;
  refusal = decide(capped, gang, {}, 0);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kPower);
  EXPECT_EQ(refusal.error().later->start_ns, 30);
  told = false;
  for (const Change& change : refusal.error().changes) {
    told |= change.text == "raise site site's budget by 70 W";
  }
  EXPECT_TRUE(told);
}

TEST(PlaceTest, LemonsAreTakenLast) {
  Snapshot snapshot = Snapshot(two_leaves()).with_lemon(0, true);
  Request gang;
  gang.name = "gang", gang.gpus = 4, gang.series = "LOCAL", gang.duration_ns = 50;
  EXPECT_EQ(decide(snapshot, gang, {}, 0)->hosts, (std::vector<HostGpus>{{2, 3}, {3, 3}}));
  gang.gpus = 8;
  auto plan = decide(snapshot, gang, {}, 0);
  ASSERT_TRUE(plan.has_value());
  EXPECT_NE(plan->explanation.find("1 of them fail often, and nothing else fits"), std::string::npos);
  EXPECT_TRUE(snapshot.host_use(0, 0).is_lemon);
  EXPECT_EQ(decide(snapshot.with_lemon(0, false), gang, {}, 0)->explanation.find("fail often"),
            std::string::npos);
}

TEST(PlaceTest, SpreadTakesFewOfEachLeafAndRack) {
  auto fleet =
      fleet::generate_fleet({.num_leaves = 2, .racks_per_leaf = 2, .hosts_per_rack = 2, .series = "LOCAL"});
  Snapshot snapshot(std::make_shared<const Fleet>(*std::move(fleet)));
  Request gang;
  gang.name = "gang", gang.gpus = 8, gang.series = "LOCAL", gang.duration_ns = 50,
  gang.layout = Layout::kSpread;
  auto plan = decide(snapshot, gang, {}, 0);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->hosts, (std::vector<HostGpus>{{0, 3}, {2, 3}, {4, 3}, {6, 3}}));
  PlaceCost cost = place_cost(snapshot, gang, *plan);
  EXPECT_EQ(cost.most_on_leaf, 2);
  EXPECT_EQ(cost.most_in_rack, 1);
  EXPECT_EQ(cost.total, 2 * 1000 + 100);
}

}  // namespace
}  // namespace th::reserve
