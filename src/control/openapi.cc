#include "control/openapi.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "openapi_yaml.h"

namespace th::control {
namespace {

/// By YAML's core schema; what is quoted is a string.
Json json_of_scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;
  if (text == "true" || text == "false") return text == "true";
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (const auto read = std::from_chars(text.data(), end, integer); !text.empty() && read.ptr == end)
    return integer;
  return text;
}

Json json_of_yaml(const YAML::Node& node) {
  if (node.IsScalar()) return json_of_scalar(node);
  if (node.IsSequence()) {
    Json list = Json::array();
    for (const YAML::Node& item : node) list.push_back(json_of_yaml(item));
    return list;
  }
  if (!node.IsMap()) return nullptr;
  Json object = Json::object();
  for (const auto& entry : node) {
    const Json value = json_of_yaml(entry.second);
    if (entry.first.Scalar() == "<<") {
      object.update(value);
    } else {
      object[entry.first.Scalar()] = value;
    }
  }
  return object;
}

}  // namespace

const std::string& openapi_json() {
  static const std::string document = dump_json(json_of_yaml(YAML::Load(kOpenApiYaml)));
  return document;
}

}  // namespace th::control
