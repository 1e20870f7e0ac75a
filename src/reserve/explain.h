#pragma once
// Says in words what was decided.

#include <string>

#include "reserve/place.h"
#include "reserve/reserve.h"

namespace th::reserve::detail {

/// A request that has been checked: whole units, a start, a known series.
struct Ask {
  const Snapshot& snapshot;
  const Request& request;
  const Policy& policy;
  fleet::SeriesIndex series = -1;  // -1: any (slices only)
  int64_t gpus = 0;                // in whole units, those of the spares too
  int64_t start_ns = 0;
  int64_t unit_gpus = 1;  // GPUs of a unit (room.h)
  int64_t block = 1;      // units that stay together: a segment and its spares

  Query query() const {
    return {.root = snapshot.root(),
            .series = series,
            .start_ns = start_ns,
            .end_ns = start_ns + request.duration_ns,
            .gpus_per_host = snapshot.is_slice() ? request.gpus_per_host : 0,
            .only = request.only ? &*request.only : nullptr};
  }
  int64_t units() const { return gpus / unit_gpus; }
  Demand demand() const {
    return {units(), block, request.max_switches > 0 ? static_cast<size_t>(request.max_switches) : SIZE_MAX,
            request.layout};
  }
  /// What is left of so many units, spares taken off, in GPUs.
  int64_t gpus_without_spares(int64_t units) const;
};

/// a · b / c, rounded down, without overflow inside. c > 0.
int64_t mul_div(int64_t a, int64_t b, int64_t c);
/// `part` in millionths of `whole`.
int64_t part_ppm(int64_t part, int64_t whole);

/// "leaf1 (4 GPUs), leaf2 (2 GPUs)": the first few and how many more.
std::string list_some(const std::vector<std::string>& parts);

/// "4 GPUs of LOCAL for 1h".
std::string describe(const Ask& ask);

/// Why there: the leaves, and how near racks, rows and sites come to their power budget.
std::string explain_place(const Ask& ask, const Plan& plan);

/// What is there, and what is in the way of the rest, in the site with the most room.
struct Obstacles {
  Reason reason = Reason::kBusy;  // what alone hides most of what is missing
  std::string text;
};
Obstacles find_obstacles(const Ask& ask);

}  // namespace th::reserve::detail
