#include "report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace th {

int report(const Error& error, bool json) {
  if (json)
    fmt::print("{}\n", dump_json(error_json(error)));
  else
    fmt::print(stderr, "th-train: {}\n", error.message);
  return error.code == Code::kInternal || error.code == Code::kNoSpace ? kFailed : kBadInput;
}

}  // namespace th
