#pragma once
// What a customer asks for when acquiring a slice, and whether its quota and budget allow it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace th::request {

struct SliceSpec {
  std::string name;
  int64_t gpus = 0;
  std::string series;
  int64_t duration_ns = 0;
  int64_t start_ns = 0;                              // not before; 0: now
  std::optional<int64_t> max_microusd_per_gpu_hour;  // refuse a dearer offer

  bool operator==(const SliceSpec&) const = default;
};

inline constexpr int64_t kMaxRequestGpus = 1'000'000;
inline constexpr int64_t kMaxRequestDurationNs = int64_t{365} * 24 * 3600 * 1'000'000'000;

/// Name, counts, series known, durations in range. Errors: kInvalidArgument naming the field; kNotFound
/// never.
Status validate(const SliceSpec& spec);

/// A slice file: name, gpus, series, time, max_price ("1.25", dollars per GPU-hour). Validated.
/// Errors: kInvalidArgument, "slice.yaml:3: gpus: ...".
Result<SliceSpec> parse_slice_spec(std::string_view yaml, std::string_view file);

/// The body of POST /api/v1/offers and /slices (docs/protocols.md). Validated; an unknown field is an error
/// with the nearest known one. Errors: kInvalidArgument naming the field.
Result<SliceSpec> slice_spec_from_json(const Json& body);
Json to_json(const SliceSpec& spec);

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
