#include "base/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace th {
namespace {

constexpr int kMaxDepth = 64;

/// The field, nullptr when it is missing or null.
Result<const Json*> find(const Json& object, const char* field) {
  if (!object.is_object()) {
    return fail(Code::kInvalidArgument,
                fmt::format("field '{}': want an object around it, got {}", field, object.type_name()));
  }
  auto it = object.find(field);
  if (it == object.end() || it->is_null()) return static_cast<const Json*>(nullptr);
  return &*it;
}

tl::unexpected<Error> missing(const char* field) {
  return fail(Code::kInvalidArgument, fmt::format("field '{}' is missing", field));
}

tl::unexpected<Error> wrong_type(const char* field, const char* want, const Json& got) {
  return fail(Code::kInvalidArgument,
              fmt::format("field '{}': want {}, got {}", field, want, got.type_name()));
}

template <class T>
struct Want;
template <>
struct Want<std::string> {
  static constexpr const char* kName = "a string";
  static bool is(const Json& v) { return v.is_string(); }
};
template <>
struct Want<int64_t> {
  static constexpr const char* kName = "an integer";
  static bool is(const Json& v) {
    if (v.is_number_unsigned()) return v.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
    return v.is_number_integer();
  }
};
template <>
struct Want<double> {
  static constexpr const char* kName = "a number";
  static bool is(const Json& v) { return v.is_number(); }
};
template <>
struct Want<bool> {
  static constexpr const char* kName = "true or false";
  static bool is(const Json& v) { return v.is_boolean(); }
};

template <class T>
Result<T> get(const Json& object, const char* field, const T* fallback) {
  TH_TRY(const Json* value, find(object, field));
  if (value == nullptr) {
    if (fallback == nullptr) return missing(field);
    return *fallback;
  }
  if (!Want<T>::is(*value)) return wrong_type(field, Want<T>::kName, *value);
  return value->get<T>();
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  bool too_deep = false;
  auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  try {
    Json value = Json::parse(text, limit_depth);
    if (too_deep) {
      return fail(Code::kInvalidArgument, fmt::format("{}: nested deeper than {} levels", what, kMaxDepth));
    }
    return value;
  } catch (const Json::parse_error& e) {
    return fail(Code::kInvalidArgument, fmt::format("{}: not JSON (at byte {})", what, e.byte));
  } catch (const Json::exception& e) {
    return fail(Code::kInvalidArgument, fmt::format("{}: not JSON ({})", what, e.what()));
  }
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> get_string(const Json& o, const char* f) { return get<std::string>(o, f, nullptr); }
Result<std::string> get_string(const Json& o, const char* f, std::string d) {
  return get<std::string>(o, f, &d);
}
Result<int64_t> get_int(const Json& o, const char* f) { return get<int64_t>(o, f, nullptr); }
Result<int64_t> get_int(const Json& o, const char* f, int64_t d) { return get<int64_t>(o, f, &d); }
Result<double> get_double(const Json& o, const char* f) { return get<double>(o, f, nullptr); }
Result<double> get_double(const Json& o, const char* f, double d) { return get<double>(o, f, &d); }
Result<bool> get_bool(const Json& o, const char* f, bool d) { return get<bool>(o, f, &d); }

Json error_json(const Error& error) {
  return {{"error", {{"code", std::string(code_name(error.code))}, {"message", error.message}}}};
}

}  // namespace th
