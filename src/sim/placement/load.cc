#include "sim/placement/load.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <utility>

#include "base/units.h"

namespace th::sim {
namespace {

struct SizeCount {
  int64_t gpus;
  uint64_t jobs;
};

// Jobs by num_gpus of the Philly trace as kept in pkusys/ElasticFlow (CC-BY-4.0, from Microsoft Philly,
// ATC'19): 82,247 jobs.
constexpr std::array<SizeCount, 10> kPhillySizes = {
    {{1, 76'627}, {2, 1818}, {4, 1870}, {8, 1643}, {12, 7}, {16, 199}, {24, 7}, {32, 67}, {64, 6}, {128, 3}}};

constexpr int kMaxRefusals = 200;
constexpr int kSwings = 3;

reserve::Policy quick() {
  reserve::Policy policy;
  policy.find_changes = false;
  return policy;
}

}  // namespace

int64_t draw_philly_gpus(Prng& random) {
  uint64_t all = 0;
  for (const SizeCount& entry : kPhillySizes) all += entry.jobs;
  uint64_t drawn = random.below(all);
  size_t i = 0;
  while (drawn >= kPhillySizes[i].jobs) drawn -= kPhillySizes[i++].jobs;
  return kPhillySizes[i].gpus;
}

void hash_plan(uint64_t& hash, const reserve::Plan& plan) {
  for (const reserve::HostGpus& part : plan.hosts) {
    hash_word(hash, static_cast<uint64_t>(part.host));
    hash_word(hash, part.gpus);
  }
}

reserve::Request gang_request(const std::string& series, int64_t gpus) {
  reserve::Request request;
  request.name = "gang";
  request.gpus = gpus;
  request.series = series;
  request.duration_ns = 24 * kHour;
  return request;
}

Load::Load(std::shared_ptr<const fleet::Fleet> fleet, std::string series, uint64_t seed)
    : snapshot_(std::move(fleet)), series_(std::move(series)), random_(seed) {
  auto index = fleet::find_series(series_);
  gpus_ = index ? snapshot_.fleet().num_gpus(*index) : 0;
}

double Load::fill() const {
  return gpus_ == 0 ? 0 : static_cast<double>(gpus_taken_) / static_cast<double>(gpus_);
}

bool Load::add(int64_t gpus) {
  auto plan = reserve::decide(snapshot_, gang_request(series_, gpus), quick(), 0);
  if (!plan) {
    ++refused_;
    return false;
  }
  hash_plan(log_hash_, *plan);
  claims_.push_back(reserve::claim_of(*plan, "gang-" + std::to_string(next_id_++)));
  snapshot_ = snapshot_.with_claim(claims_.back()).value();
  gpus_taken_ += plan->gpus;
  return true;
}

bool Load::fits(int64_t gpus) const {
  return reserve::decide(snapshot_, gang_request(series_, gpus), quick(), 0).has_value();
}

void Load::release_one() {
  auto i = static_cast<size_t>(random_.below(claims_.size()));
  std::swap(claims_[i], claims_.back());
  snapshot_ = snapshot_.without_claim(claims_.back());
  for (const reserve::HostGpus& part : claims_.back().hosts) gpus_taken_ -= std::popcount(part.gpus);
  claims_.pop_back();
}

void Load::fill_up(double fill) {
  const auto all = static_cast<double>(gpus_);
  const auto goal = static_cast<int64_t>(fill * all),
             high = static_cast<int64_t>((fill + (1 - fill) / 2) * all);
  for (int swing = 0; swing < kSwings; ++swing) {
    for (int refused = 0; gpus_taken_ < (fill > 0 ? high : 0) && refused < kMaxRefusals;) {
      refused = add(draw_philly_gpus(random_)) ? 0 : refused + 1;
    }
    while (gpus_taken_ > goal && !claims_.empty()) release_one();
  }
  for (int refused = 0; gpus_taken_ < goal && refused < kMaxRefusals;) {
    refused = add(draw_philly_gpus(random_)) ? 0 : refused + 1;
  }
}

std::vector<RackCell> rack_cells(const reserve::Snapshot& snapshot) {
  std::vector<RackCell> cells;
  const fleet::Fleet& fleet = snapshot.fleet();
  for (size_t i = 0; i < fleet.racks().size(); ++i) {
    const fleet::Rack& rack = fleet.racks()[i];
    int64_t gpus = 0, used = 0;
    for (fleet::HostIndex host = rack.first_host; host < rack.first_host + rack.num_hosts; ++host) {
      gpus += fleet.host(host).gpus;
      used += std::popcount(snapshot.host_use(host, 0).busy);
    }
    int64_t watts = snapshot.rack_power_w(static_cast<fleet::RackIndex>(i), 0);
    cells.push_back(
        {rack.id, rack.row < 0 ? "" : fleet.row(rack.row).id,
         static_cast<double>(used) / static_cast<double>(gpus),
         fmt::format("{}: {} of {} GPUs, {:.1f} of {:.1f} kW", rack.id, used, gpus,
                     static_cast<double>(watts) / 1e3, static_cast<double>(rack.power_budget_w) / 1e3)});
  }
  return cells;
}

}  // namespace th::sim
