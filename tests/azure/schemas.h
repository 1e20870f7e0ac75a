#pragma once
// JSON schemas of the requests that the emulator takes, and the check against them.

#include <string>

#include "base/json.h"

namespace th::azure_emulator {

/// What is wrong with `request`, {"query": {...}, "headers": {...}, "body": {...}}, as a request of this
/// kind;
/// "" when nothing is. Kinds: "read", "change", "token", "put set", "patch set", "deallocate", "put group",
/// "put reservation", "metadata", "acknowledge", "prices". Header names in lower case.
std::string check_request(const std::string& kind, const Json& request);

}  // namespace th::azure_emulator
