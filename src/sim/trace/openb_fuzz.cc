#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sim/trace/openb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::sim;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (OnBadLine on_bad : {OnBadLine::kRefuse, OnBadLine::kSkip}) {
    Skipped skipped;
    auto nodes = read_openb_nodes(text, {.file = "n.csv", .on_bad = on_bad}, skipped);
    if (!nodes) TH_CHECK(nodes.error().message.starts_with("n.csv:"));
    for (size_t i = 1; nodes && i < nodes->size(); ++i) TH_CHECK((*nodes)[i - 1].name < (*nodes)[i].name);
    auto pods = read_openb_pods(text, {.file = "p.csv", .on_bad = on_bad}, 4, skipped);
    if (!pods) TH_CHECK(pods.error().message.starts_with("p.csv:"));
    if (!pods) continue;
    for (const OpenbPod& pod : *pods) {
      TH_CHECK(pod.gpus >= 0 && pod.gpus <= 4 && pod.gpu_milli >= 0 && pod.gpu_milli <= kOpenbWholeMilli);
      TH_CHECK((pod.gpus == 0) == (pod.gpu_milli == 0) && pod.cpu_milli >= 0 && pod.memory_mib >= 0);
    }
  }
  return 0;
}
