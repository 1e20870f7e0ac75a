#pragma once
// What a customer asks for when acquiring a slice, and whether its quota and budget allow it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace th::request {

struct SliceSpec {
  std::string name;
  int64_t gpus = 0;  // all of them, or with min_gpus the most that is useful
  std::string series;
  int64_t duration_ns = 0;
  int64_t start_ns = 0;                              // not before; 0: now
  std::optional<int64_t> max_microusd_per_gpu_hour;  // refuse a dearer offer

  int64_t min_gpus = 0;  // the offer is the largest from here to gpus that starts in time; 0: gpus
  int64_t spares = 0;    // nodes beside those of `gpus` that stand by for lost ones
  bool spread = false;  // over as many racks as there are, so that one rack's fault takes little; else packed
  int64_t max_switches = 0;                     // leaves it may span; 0: any number
  int64_t segment = 0;                          // nodes of one block that stay under one leaf; 0: no blocks
  bool spot = false;                            // cheaper, and may be taken back after a notice
  int64_t deadline_ns = 0;                      // it must have ended by then; 0: none
  std::optional<int64_t> budget_microusd = {};  // what the whole slice may cost at most

  std::string stack = {};                   // its software, "train" or "train@1"; empty: base
  std::vector<std::string> or_series = {};  // taken in this order where `series` cannot be had
  std::vector<std::string> zones = {};      // of the cloud's region, tried in this order; none: any
  int64_t idle_ns = 0;                      // released when it was without work for so long; 0: never
  std::string account = {};                 // whose it is; empty: its maker's

  bool operator==(const SliceSpec&) const = default;
};

inline constexpr int64_t kMaxRequestGpus = 1'000'000;
inline constexpr int64_t kMaxRequestDurationNs = int64_t{365} * 24 * 3600 * 1'000'000'000;

/// Name, counts, series known, durations in range. Errors: kInvalidArgument naming the field; kNotFound
/// never.
Status validate(const SliceSpec& spec);

/// A slice file: name, gpus or nodes, series, time, max_price ("1.25", dollars per GPU-hour), budget
/// (dollars), start and deadline (see parse_moment), min_gpus or min_nodes, spares, spread, switches,
/// segment, spot, stack, or_series, zones, idle, account. `now_ns`: what times are read against. Validated.
/// Errors: kInvalidArgument, "slice.yaml:3: gpus: ...".
Result<SliceSpec> parse_slice_spec(std::string_view yaml, std::string_view file, int64_t now_ns = 0);

/// The body of POST /api/v1/offers and /slices (docs/protocols.md); `nodes` and `min_nodes` are read as GPUs
/// of so many hosts of the series. Validated; an unknown field is an error with the nearest known one.
/// Errors: kInvalidArgument naming the field.
Result<SliceSpec> slice_spec_from_json(const Json& body);
Json to_json(const SliceSpec& spec);

/// The series and zone of one alternative: every zone of the first series, then of the next.
struct Alternative {
  std::string series, zone;
};
/// None: there are no more.
std::optional<Alternative> alternative(const SliceSpec& spec, int64_t attempt);

/// GPUs that VMs of the series come to: `gpus` rounded up to whole hosts. The series must be in the
/// catalogue.
int64_t whole_host_gpus(int64_t gpus, const std::string& series);

struct Quota {
  std::optional<int64_t> max_gpus;         // at once
  std::optional<int64_t> budget_microusd;  // over time
};

/// What a tenant has already. `committed_microusd`: spent, plus the full price of what is held or leased.
struct Usage {
  int64_t gpus = 0;
  int64_t committed_microusd = 0;
};

/// Whether the slice, in whole hosts at list price, fits beside what is in use. The spec must be valid.
/// Errors: kResourceExhausted, saying have, want and limit.
Status admit(const SliceSpec& spec, const Quota& quota, const Usage& usage);

}  // namespace th::request
