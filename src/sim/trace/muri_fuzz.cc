#include "sim/trace/fuzz_trace.h"
#include "sim/trace/muri.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return th::sim::fuzz_trace(data, size, th::sim::read_muri, [](const th::sim::MuriJob& job) {
    return job.iterations * job.iteration_s > 0;
  });
}
