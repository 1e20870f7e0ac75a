#include "sim/trace/fuzz_trace.h"
#include "sim/trace/swf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto read = [](auto text, const auto& options, auto& skipped) {
    return th::sim::read_swf(text, options, skipped).map([](th::sim::SwfTrace trace) { return trace.jobs; });
  };
  return th::sim::fuzz_trace(data, size, read, th::sim::lasts_within_its_limit);
}
