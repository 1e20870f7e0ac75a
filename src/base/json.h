#pragma once
// JSON as the project uses it. This header is light (forward declarations only); a .cc that builds or reads
// JSON values includes <nlohmann/json.hpp> itself.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th {

/// Keeps the order in which keys were written.
using Json = nlohmann::ordered_json;

/// Errors: kInvalidArgument, naming `what` and the byte at which it stops being JSON; so does nesting over 64
/// levels.
Result<Json> parse_json(std::string_view text, std::string_view what);

/// One line, no spaces; bytes that are not UTF-8 become U+FFFD.
std::string dump_json(const Json& value);

// A field of an object. Errors: kInvalidArgument, naming the field and the type that was wanted
// ("field 'gpus': want an integer, got a string"); without a fallback also when it is missing.
Result<std::string> get_string(const Json& object, const char* field);
Result<std::string> get_string(const Json& object, const char* field, std::string fallback);
Result<int64_t> get_int(const Json& object, const char* field);
Result<int64_t> get_int(const Json& object, const char* field, int64_t fallback);
Result<double> get_double(const Json& object, const char* field);
Result<double> get_double(const Json& object, const char* field, double fallback);
Result<bool> get_bool(const Json& object, const char* field, bool fallback);

/// {"error":{"code":"not_found","message":"..."}}: the shape of a failed --json command.
Json error_json(const Error& error);

}  // namespace th
