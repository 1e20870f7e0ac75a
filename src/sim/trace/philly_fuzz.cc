#include "sim/trace/fuzz_trace.h"
#include "sim/trace/philly.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto read = [](auto text, const auto& options, auto& skipped) {
    return th::sim::read_philly(text, options, "", skipped);
  };
  return th::sim::fuzz_trace(data, size, read, th::sim::lasts_within_its_limit);
}
