// Any bytes as an answer of slurmrestd or an exit file: refused, or read into values that are in their
// ranges.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "launch/slurm/api.h"

using namespace th;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto exit = launch::parse_exit(text)) TH_CHECK(exit->code >= 0 && exit->code < 256 && exit->at_ns >= 0);
  auto json = parse_json(text, "fuzz");
  if (!json) return 0;
  if (auto jobs = launch::parse_jobs(*json)) {
    for (const launch::SlurmJob& job : *jobs)
      TH_CHECK(!(job.is_pending() && job.has_ended()) && job.start_ns >= 0);
  }
  if (launch::parse_submitted(*json)) TH_CHECK(launch::errors_of(*json).empty());
  return 0;
}
