#pragma once
// docs/api/openapi.yaml, which describes every route, as the daemon serves it.

#include <string>

namespace th::control {

/// The document as JSON, on one line. Made once. Thread-safe.
const std::string& openapi_json();

}  // namespace th::control
