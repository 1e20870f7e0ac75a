#include "ledger/event.h"

#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"

namespace th::ledger {
namespace {

template <class T>
Json write_value(const T& value);

template <class T>
Json write_value(const std::vector<T>& values) {
  Json list = Json::array();
  for (const T& value : values) list.push_back(write_value(value));
  return list;
}

template <class T>
Json write_value(const T& value) {
  if constexpr (requires { T::kKind; }) {
    Json object = Json::object();
    auto write = [&object](const char* name, const auto& field) { object[name] = write_value(field); };
    T::fields(value, write);
    return object;
  } else {
    return value;
  }
}

/// Reads the fields of one object; keeps the first problem.
class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) problem(where_, "want an object");
  }

  template <class T>
  void operator()(const char* name, T& field) {
    if (!error_.empty()) return;
    ++known_;
    const auto found = object_.find(name);
    if (found == object_.end()) return problem(where_ + "." + name, "is missing");
    read(*found, where_ + "." + name, field);
  }

  std::string finish() {
    if (error_.empty() && known_ != object_.size())
      problem(where_, "has fields that this version does not know");
    return error_;
  }

 private:
  void problem(const std::string& where, const std::string& what) { error_ = where + " " + what; }

  void read(const Json& json, const std::string& where, std::string& out) {
    if (!json.is_string()) return problem(where, "want a string");
    out = json.get<std::string>();
  }
  void read(const Json& json, const std::string& where, int64_t& out) {
    const bool fits =
        json.is_number_integer() && (!json.is_number_unsigned() || json.get<uint64_t>() <= INT64_MAX);
    if (!fits) return problem(where, "want an integer of 64 bits");
    out = json.get<int64_t>();
  }
  void read(const Json& json, const std::string& where, bool& out) {
    if (!json.is_boolean()) return problem(where, "want a boolean");
    out = json.get<bool>();
  }
  template <class T>
  void read(const Json& json, const std::string& where, std::vector<T>& out) {
    if (!json.is_array()) return problem(where, "want a list");
    for (const Json& item : json) {
      read(item, where + "[]", out.emplace_back());
      if (!error_.empty()) return;
    }
  }
  template <class T>
  requires requires { T::kKind; }
  void read(const Json& json, const std::string& where, T& out) {
    Reader inner(json, where);
    if (inner.error_.empty()) T::fields(out, inner);
    error_ = inner.finish();
  }

  const Json& object_;
  std::string where_, error_;
  size_t known_ = 0;
};

template <class T>
Result<Event> read_event(const Json& json) {
  T event;
  Reader reader(json, T::kKind);
  T::fields(event, reader);
  if (std::string error = reader.finish(); !error.empty()) return fail(Code::kDataLoss, "event " + error);
  return Event(std::move(event));
}

template <size_t... I>
Result<Event> read_by_kind(const std::string& kind, const Json& json, std::index_sequence<I...>) {
  Result<Event> out = fail(Code::kDataLoss, "event kind '" + kind + "' is unknown to this version");
  static_cast<void>(((kind == std::variant_alternative_t<I, Event>::kKind &&
                      (out = read_event<std::variant_alternative_t<I, Event>>(json), true)) ||
                     ...));
  return out;
}

}  // namespace

std::string kind_of(const Event& event) {
  return std::visit([](const auto& e) { return std::string(e.kKind); }, event);
}

std::string event_to_json(const Event& event) {
  return dump_json(std::visit([](const auto& e) { return write_value(e); }, event));
}

Result<Event> event_from_json(const std::string& kind, const std::string& json) {
  auto parsed = parse_json(json, "event " + kind);
  if (!parsed) return fail(Code::kDataLoss, parsed.error().message);
  if (!parsed->is_object()) return fail(Code::kDataLoss, "event " + kind + ": want an object");
  return read_by_kind(kind, *parsed, std::make_index_sequence<std::variant_size_v<Event>>());
}

std::vector<std::string> subjects_of(const Event& event) {
  static constexpr std::array<std::string_view, 6> kSubjects = {"slice", "vm", "job", "host", "lost", "name"};
  std::vector<std::string> out;
  std::set<std::string> seen;
  auto add = [&](const char* name, const auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, std::string>) {
      const bool is_subject = std::find(kSubjects.begin(), kSubjects.end(), name) != kSubjects.end();
      if (is_subject && !field.empty() && seen.insert(field).second) out.push_back(field);
    }
  };
  std::visit([&](const auto& e) { std::decay_t<decltype(e)>::fields(e, add); }, event);
  return out;
}

}  // namespace th::ledger
