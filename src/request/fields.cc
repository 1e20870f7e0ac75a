#include "request/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/text.h"

namespace th::request {

Status as_status(const std::optional<Problem>& problem) {
  if (!problem) return {};
  return fail(Code::kInvalidArgument, fmt::format("field '{}': {}", problem->field, problem->text));
}

Status as_status(const std::optional<Problem>& problem, const Config& config,
                 std::initializer_list<FieldName> names) {
  if (!problem) return {};
  for (const FieldName& name : names) {
    if (std::string_view(name.json) == problem->field) return config.bad(name.yaml, problem->text);
  }
  return config.bad(problem->field, problem->text);
}

Status check_fields(const Json& body, const std::vector<const char*>& known) {
  if (!body.is_object()) {
    return fail(Code::kInvalidArgument, fmt::format("want a JSON object, got {}", body.type_name()));
  }
  std::vector<std::string> names(known.begin(), known.end());
  for (const auto& entry : body.items()) {
    if (std::ranges::find(names, entry.key()) != names.end()) continue;
    std::string hint = did_you_mean(entry.key(), names);
    if (hint.empty()) hint = "; known: " + join(names, ", ");
    return fail(Code::kInvalidArgument, fmt::format("unknown field '{}'{}", entry.key().substr(0, 80), hint));
  }
  return {};
}

Result<std::optional<int64_t>> optional_int(const Json& body, const char* field) {
  auto it = body.find(field);
  if (it == body.end() || it->is_null()) return std::optional<int64_t>();
  TH_TRY(int64_t value, get_int(body, field));
  return std::optional<int64_t>(value);
}

Result<std::optional<std::string>> optional_string(const Json& body, const char* field) {
  auto it = body.find(field);
  if (it == body.end() || it->is_null()) return std::optional<std::string>();
  TH_TRY(std::string value, get_string(body, field));
  return std::optional<std::string>(std::move(value));
}

Result<std::vector<std::string>> optional_strings(const Json& body, const char* field) {
  auto it = body.find(field);
  if (it == body.end() || it->is_null()) return std::vector<std::string>();
  bool good = it->is_array() && std::ranges::all_of(*it, [](const Json& item) { return item.is_string(); });
  if (!good) return fail(Code::kInvalidArgument, fmt::format("field '{}': want a list of strings", field));
  return it->get<std::vector<std::string>>();
}

namespace {

/// NAME or NAME@VERSION.
std::optional<std::string> versioned_name_problem(const std::string& text, const std::string& what) {
  const size_t at = text.find('@');
  Status good = check_name(text.substr(0, at), what);
  if (good && at != std::string::npos) good = check_name(text.substr(at + 1), "version of a " + what);
  return good ? std::nullopt : std::optional(good.error().message);
}

}  // namespace

std::optional<std::string> stack_name_problem(const std::string& text) {
  return versioned_name_problem(text, "stack");
}

std::optional<std::string> data_name_problem(const std::string& text) {
  return versioned_name_problem(text, "data set");
}

std::optional<Problem> name_problem(const char* field, std::string_view name) {
  if (auto status = check_name(name, field); !status) return Problem{field, status.error().message};
  return std::nullopt;
}

std::optional<Problem> range_problem(const char* field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return std::nullopt;
  return Problem{field, fmt::format("want {} to {}, got {}", min, max, value)};
}

}  // namespace th::request
