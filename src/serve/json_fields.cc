#include "serve/json_fields.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace th::serve {

const Json* JsonFields::find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const Json* JsonFields::required(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) {
    refuse(name, "missing_required_parameter", fmt::format("Missing required parameter: '{}'.", name));
  }
  return value;
}

std::optional<std::string> JsonFields::string(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  wrong_type(name, "a string", *value);
  return std::nullopt;
}

std::optional<bool> JsonFields::boolean(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  wrong_type(name, "true or false", *value);
  return std::nullopt;
}

std::optional<int64_t> JsonFields::integer(const char* name, int64_t min, int64_t max) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    wrong_type(name, "an integer", *value);
    return std::nullopt;
  }
  const bool beyond =
      value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (beyond || value->get<int64_t>() < min || value->get<int64_t>() > max) {
    out_of_range(name, fmt::format("an integer from {} to {}", min, max), *value);
    return std::nullopt;
  }
  return value->get<int64_t>();
}

std::optional<double> JsonFields::number(const char* name, double min, double max) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    wrong_type(name, "a number", *value);
    return std::nullopt;
  }
  const auto number = value->get<double>();
  if (!(number >= min && number <= max)) {
    out_of_range(name, fmt::format("a number from {} to {}", min, max), *value);
    return std::nullopt;
  }
  return number;
}

void JsonFields::only_false(const char* name) {
  const Json* value = find(name);
  if (value == nullptr || *value == false) return;
  refuse(name, "unsupported_value",
         fmt::format("Unsupported parameter: '{}' is not supported. Leave it out.", name));
}

void JsonFields::only_empty(const char* name) {
  const Json* value = find(name);
  if (value == nullptr || ((value->is_array() || value->is_object()) && value->empty())) return;
  if (value->is_string() && value->get_ref<const std::string&>().empty()) return;
  refuse(name, "unsupported_value",
         fmt::format("Unsupported parameter: '{}' is not supported. Leave it out.", name));
}

void JsonFields::refuse(const std::string& param, std::string code, std::string message) {
  if (error_) return;
  error_ = ApiError{.message = std::move(message), .param = param, .code = std::move(code)};
}

void JsonFields::wrong_type(const std::string& param, std::string_view want, const Json& got) {
  refuse(
      param, "invalid_type",
      fmt::format("Invalid type for '{}': expected {}, but got {} instead.", param, want, got.type_name()));
}

void JsonFields::out_of_range(const char* name, const std::string& range, const Json& got) {
  refuse(name, "invalid_value",
         fmt::format("Invalid '{}': expected {}, but got {} instead.", name, range, got.dump()));
}

}  // namespace th::serve
