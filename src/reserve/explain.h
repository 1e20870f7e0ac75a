#pragma once
// Says in words what was decided.

#include <string>

#include "reserve/reserve.h"
#include "reserve/room.h"

namespace th::reserve::detail {

/// A request that has been checked: whole hosts, a start, a known series.
struct Ask {
  const Snapshot& snapshot;
  const Request& request;
  const Policy& policy;
  fleet::SeriesIndex series = -1;  // -1: any (slices only)
  int64_t gpus = 0;                // rounded up to whole hosts on a fleet
  int64_t start_ns = 0;

  Query query() const { return {snapshot.root(), series, start_ns, start_ns + request.duration_ns}; }
};

/// a · b / c, rounded down, without overflow inside. c > 0.
int64_t mul_div(int64_t a, int64_t b, int64_t c);
/// `part` in millionths of `whole`.
int64_t part_ppm(int64_t part, int64_t whole);

/// "leaf1 (4 GPUs), leaf2 (2 GPUs)": the first few and how many more.
std::string list_some(const std::vector<std::string>& parts);

/// "4 GPUs", "1 GPU".
std::string count_gpus(int64_t gpus);

/// "4 GPUs of LOCAL for 1h".
std::string describe(const Ask& ask);

/// Why there: the leaves, and how near the racks come to their power budget. `clear`: found among hosts
/// without any claim.
std::string explain_place(const Ask& ask, const Plan& plan, bool clear);

/// What is there, and what is in the way of the rest, in the site with the most room.
struct Obstacles {
  Reason reason = Reason::kBusy;  // what alone hides most of what is missing
  std::string text;
};
Obstacles find_obstacles(const Ask& ask);

}  // namespace th::reserve::detail
