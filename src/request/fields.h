#pragma once
// What the readers of the specs share: one check of the values, told in the words of the form they came in.

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/json.h"
#include "base/result.h"

namespace th::request {

/// What is wrong with a field; `field` is its name in JSON.
struct Problem {
  const char* field;
  std::string text;
};

/// The two names of a field.
struct FieldName {
  const char* json;
  const char* yaml;
};

/// "field 'gpus': ...". Success when there is no problem.
Status as_status(const std::optional<Problem>& problem);

/// "slice.yaml:3: gpus: ...", under the field's name in YAML.
Status as_status(const std::optional<Problem>& problem, const Config& config,
                 std::initializer_list<FieldName> names);

/// Errors: kInvalidArgument when `body` is not an object or has a field that is not `known`.
Status check_fields(const Json& body, const std::vector<const char*>& known);

/// A missing field (or null) is nullopt. Errors: kInvalidArgument, as get_int and get_string.
Result<std::optional<int64_t>> optional_int(const Json& body, const char* field);
Result<std::optional<std::string>> optional_string(const Json& body, const char* field);

/// Empty when it is missing or null. Errors: kInvalidArgument.
Result<std::vector<std::string>> optional_strings(const Json& body, const char* field);

/// What is wrong with a stack's name, "train" or "train@1".
std::optional<std::string> stack_name_problem(const std::string& text);
/// And of a data set's.
std::optional<std::string> data_name_problem(const std::string& text);

/// The problem of a name (see check_name), or of an integer outside [min, max].
std::optional<Problem> name_problem(const char* field, std::string_view name);
std::optional<Problem> range_problem(const char* field, int64_t value, int64_t min, int64_t max);

}  // namespace th::request
