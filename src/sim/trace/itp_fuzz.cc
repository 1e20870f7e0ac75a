#include "sim/trace/fuzz_trace.h"
#include "sim/trace/itp.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return th::sim::fuzz_trace(data, size, th::sim::read_itp, th::sim::lasts_within_its_limit);
}
