#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/text.h"
#include "request/sbatch.h"

// A script, and the same bytes as the words of a command line.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::request;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  constexpr int64_t kNowNs = int64_t{1'800'000'000} * 1'000'000'000;
  auto check = [&](const std::vector<SbatchOption>& options) {
    auto request = sbatch_request(options, kNowNs);
    if (!request) {
      TH_CHECK(request.error().code == th::Code::kInvalidArgument);
      return;
    }
    request->spec.name = "fuzz";
    TH_CHECK(set_script(request->spec, "#!/bin/sh\n", {}).has_value());
    if (!validate(request->spec)) return;
    auto again = job_spec_from_json(to_json(request->spec));
    TH_CHECK(again.has_value() && *again == request->spec);
  };
  auto options = read_sbatch_script(text, "fuzz.sh");
  if (options) {
    check(*options);
  } else {
    TH_CHECK(options.error().message.starts_with("fuzz.sh:"));
  }
  const auto words = th::split(text, '\n');
  if (auto read = read_sbatch_words(words, ""); read) check(read->options);
  JobSpec spec;
  static_cast<void>(set_script(spec, text, {}));
  return 0;
}
