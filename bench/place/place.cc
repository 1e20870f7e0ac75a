// How fast gangs are placed on a fleet of 16,384 hosts (131,072 GPUs): decide, then the next snapshot with
// the claim in it. Usage: bench-place [SEED]. Prints one JSON object; times are wall time of one thread.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/env.h"
#include "base/json.h"
#include "base/units.h"
#include "reserve/reserve.h"

namespace {

using namespace th;
using reserve::Claim;
using reserve::Policy;
using reserve::Request;
using reserve::Snapshot;

constexpr int kRounds = 5;
constexpr int kPlacements = 20'000;
constexpr int kRefusals = 50;

/// Gangs of 1 to 16 whole hosts of 8 GPUs, of 1 to 48 hours.
Request any_request(Prng& random) {
  return {"gang",
          int64_t{8} << random.below(5),
          "ND_A100_v4",
          static_cast<int64_t>(1 + random.below(48)) * kHour,
          0,
          std::nullopt};
}

double percentile(std::vector<double>& values, double part) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
}

struct State {
  Snapshot snapshot;
  std::deque<Claim> claims;
  int64_t next_id = 0;
};

/// Places one gang if there is room now.
bool place_one(State& state, const Request& request) {
  auto plan = reserve::decide(state.snapshot, request,
                              {.quota = {}, .usage = {}, .end_by_ns = {}, .find_changes = false}, 0);
  if (!plan) return false;
  state.claims.push_back(claim_of(*plan, "c" + std::to_string(state.next_id++)));
  auto next = state.snapshot.with_claim(state.claims.back());
  TH_CHECK(next.has_value());
  state.snapshot = *std::move(next);
  return true;
}

/// On a fleet about nine tenths full: one gang in, then as many of the oldest out as make up for it.
Json measure_placements(State state, Prng& random) {
  std::vector<double> rates, micros;
  Env& env = Env::real();
  int64_t placed_hosts = 0;
  for (int round = 0; round < kRounds; ++round) {
    int64_t round_ns = 0;
    for (int i = 0; i < kPlacements; ++i) {
      Request request = any_request(random);
      int64_t start = env.monotonic_ns();
      TH_CHECK(place_one(state, request));
      int64_t ns = env.monotonic_ns() - start;
      round_ns += ns;
      micros.push_back(static_cast<double>(ns) / 1e3);
      placed_hosts += static_cast<int64_t>(state.claims.back().hosts.size());
      while (placed_hosts > 0) {
        placed_hosts -= static_cast<int64_t>(state.claims.front().hosts.size());
        state.snapshot = state.snapshot.without_claim(state.claims.front());
        state.claims.pop_front();
      }
    }
    rates.push_back(kPlacements / (static_cast<double>(round_ns) / 1e9));
  }
  return {{"placements_per_s", percentile(rates, 0.5)},
          {"placements_per_s_min", rates.front()},
          {"placements_per_s_max", rates.back()},
          {"microseconds_p50", percentile(micros, 0.5)},
          {"microseconds_p99", percentile(micros, 0.99)}};
}

/// On a full fleet: the reason and the earliest start, and with what would change it.
Json measure_refusals(const State& state, bool find_changes) {
  std::vector<double> millis;
  Policy policy;
  policy.find_changes = find_changes;
  for (int i = 0; i < kRefusals; ++i) {
    Request request{"gang", 8 * (1 + i % 16), "ND_A100_v4", kHour * (1 + i), 0, std::nullopt};
    int64_t start = Env::real().monotonic_ns();
    auto decision = reserve::decide(state.snapshot, request, policy, 0);
    millis.push_back(static_cast<double>(Env::real().monotonic_ns() - start) / 1e6);
    TH_CHECK(!decision && decision.error().later);
  }
  return {{"milliseconds_p50", percentile(millis, 0.5)}, {"milliseconds_p99", percentile(millis, 0.99)}};
}

}  // namespace

int main(int argc, char** argv) {
  Prng random(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1);
  auto fleet = fleet::generate_fleet({.num_leaves = 512,
                                      .racks_per_leaf = 8,
                                      .hosts_per_rack = 4,
                                      .series = "ND_A100_v4",
                                      .rack_power_budget_w = 0});
  TH_CHECK(fleet.has_value());
  State state{Snapshot(std::make_shared<const fleet::Fleet>(*std::move(fleet))), {}, 0};
  int64_t hosts = 0, total = static_cast<int64_t>(state.snapshot.fleet().hosts().size());
  while (hosts < total * 9 / 10) {
    TH_CHECK(place_one(state, any_request(random)));
    hosts += static_cast<int64_t>(state.claims.back().hosts.size());
  }
  Json result = {{"hosts", total}, {"gpus", total * 8}, {"gangs_held", state.claims.size()}};
  result["place"] = measure_placements(state, random);
  while (place_one(state, {"filler", 8, "ND_A100_v4", 24 * kHour, 0, std::nullopt})) {
  }
  result["refuse_full_fleet"] = measure_refusals(state, false);
  result["refuse_full_fleet_with_changes"] = measure_refusals(state, true);
  std::puts(dump_json(result).c_str());
  return 0;
}
