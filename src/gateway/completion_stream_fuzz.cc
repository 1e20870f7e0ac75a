#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "gateway/completion_stream.h"

// The input is the data of a replica's events, one a line.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th;
  using namespace th::gateway;
  static const auto filter = *safety::ContentFilter::create({});
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (Endpoint endpoint : {Endpoint::kCompletions, Endpoint::kChat}) {
    CompletionStream stream({.endpoint = endpoint, .annotate = true, .choices = 2, .filter = filter});
    Assembler assembler(endpoint);
    std::vector<Json> chunks;
    std::string_view lines = rest;
    while (!lines.empty()) {
      size_t end = std::min(lines.find('\n'), lines.size());
      if (!stream.take(lines.substr(0, end), chunks)) break;
      lines.remove_prefix(std::min(end + 1, lines.size()));
    }
    for (const Json& chunk : chunks) assembler.add(chunk);
    TH_CHECK(!assembler.body(stream.usage()).empty());
  }
  return 0;
}
