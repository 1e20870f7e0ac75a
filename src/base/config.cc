#include "base/config.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/text.h"
#include "base/units.h"

namespace th {

struct Config::Node {
  YAML::Node yaml;
  std::string file;
  std::string path;  // "racks[1].power", "" at the top

  std::string path_of(std::string_view key) const {
    return path.empty() ? std::string(key) : path + "." + std::string(key);
  }
  tl::unexpected<Error> error(const YAML::Mark& mark, std::string_view where,
                              std::string_view problem) const {
    int line = mark.is_null() ? 1 : mark.line + 1;
    return fail(Code::kInvalidArgument, fmt::format("{}:{}: {}: {}", file, line, where, problem));
  }
};

namespace {

constexpr size_t kMaxBytes = size_t{16} << 20;
constexpr int kMaxDepth = 32;
constexpr int64_t kMaxNodes = 4'000'000;

/// False when nested too deep or, by aliases, larger than it looks.
bool check_size(const YAML::Node& node, int depth, int64_t& budget) {
  if (depth > kMaxDepth || --budget < 0) return false;
  if (node.IsSequence()) {
    for (const auto& child : node) {
      if (!check_size(child, depth + 1, budget)) return false;
    }
  } else if (node.IsMap()) {
    for (const auto& entry : node) {
      if (!entry.first.IsScalar() || !check_size(entry.second, depth + 1, budget)) return false;
    }
  }
  return true;
}

/// yaml-cpp recurses while it parses; a document nested absurdly deep is refused before it gets there.
bool looks_too_deep(std::string_view text) {
  int flow = 0;
  size_t indent = 0, dashes = 0;
  bool at_start = true;
  for (char c : text) {
    if (c == '[' || c == '{') ++flow;
    if ((c == ']' || c == '}') && flow > 0) --flow;
    if (flow > 4 * kMaxDepth) return true;
    if (c == '\n') {
      at_start = true;
      indent = dashes = 0;
    } else if (at_start && (c == ' ' || c == '-' || c == '?' || c == ':')) {
      ++indent;
      if (c != ' ') ++dashes;
      if (dashes > kMaxDepth || indent > 1024) return true;
    } else {
      at_start = false;
    }
  }
  return false;
}

const char* kind_of(const YAML::Node& node) {
  if (node.IsMap()) return "a mapping";
  if (node.IsSequence()) return "a list";
  if (node.IsNull()) return "nothing";
  return "a text";
}

}  // namespace

Result<Config> Config::parse(std::string_view text, std::string_view file,
                             const std::vector<const char*>& known) {
  auto refuse = [&](std::string_view why) {
    return fail(Code::kInvalidArgument, fmt::format("{}: {}", file, why));
  };
  if (text.size() > kMaxBytes) return refuse("larger than 16 MiB");
  if (looks_too_deep(text)) return refuse("nested deeper than 32 levels");
  auto node = std::make_shared<Node>();
  node->file = file;
  try {
    node->yaml = YAML::Load(std::string(text));
    int64_t budget = kMaxNodes;
    if (!check_size(node->yaml, 0, budget)) {
      return refuse(
          "nested deeper than 32 levels, larger than 4 million values, or with a key that is not a text");
    }
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalidArgument, fmt::format("{}:{}: not YAML: {}", file, e.mark.line + 1, e.msg));
  }
  if (!node->yaml.IsMap()) return refuse(fmt::format("want a mapping of keys, got {}", kind_of(node->yaml)));
  Config config(std::move(node));
  TH_RETURN_IF_ERROR(config.check_keys(known));
  return config;
}

Status Config::check_keys(const std::vector<const char*>& known) const {
  std::vector<std::string> names(known.begin(), known.end());
  std::set<std::string> seen;
  for (const auto& entry : node_->yaml) {
    const YAML::Node& key = entry.first;
    const std::string& name = key.Scalar();
    if (std::ranges::find(names, name) == names.end()) {
      std::string hint = did_you_mean(name, names);
      if (hint.empty()) hint = fmt::format("; known here: {}", join(names, ", "));
      return node_->error(key.Mark(), node_->path_of(name), "unknown key" + hint);
    }
    if (!seen.insert(name).second) return node_->error(key.Mark(), node_->path_of(name), "stands here twice");
  }
  return {};
}

bool Config::has(const char* key) const {
  YAML::Node value = node_->yaml[key];
  return value.IsDefined() && !value.IsNull();
}

tl::unexpected<Error> Config::bad(const char* key, std::string_view problem) const {
  YAML::Node value = node_->yaml[key];
  return node_->error(value.IsDefined() ? value.Mark() : node_->yaml.Mark(), node_->path_of(key), problem);
}

Result<std::string> Config::string(const char* key) const {
  if (!has(key)) return bad(key, "is missing");
  YAML::Node value = node_->yaml[key];
  if (!value.IsScalar()) return bad(key, fmt::format("want a text, got {}", kind_of(value)));
  return value.Scalar();
}

Result<std::string> Config::string(const char* key, std::string fallback) const {
  return has(key) ? string(key) : Result<std::string>(std::move(fallback));
}

Result<int64_t> Config::integer(const char* key, IntRange range) const {
  TH_TRY(std::string text, string(key));
  std::string digits = text;
  std::erase(digits, '_');
  int64_t value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  bool parsed = error == std::errc() && end == digits.data() + digits.size();
  if (parsed && value >= range.min && value <= range.max) return value;
  std::string want = "an integer";
  if (range.min != IntRange{}.min) want += fmt::format(" >= {}", range.min);
  if (range.max != IntRange{}.max)
    want += fmt::format("{} <= {}", range.min != IntRange{}.min ? " and" : "", range.max);
  return bad(key, fmt::format("want {}, got '{}'", want, text));
}

Result<int64_t> Config::integer_or(const char* key, int64_t fallback, IntRange range) const {
  return has(key) ? integer(key, range) : Result<int64_t>(fallback);
}

Result<double> Config::number(const char* key) const {
  TH_TRY(std::string text, string(key));
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value - value == 0) return value;
  return bad(key, fmt::format("want a number, got '{}'", text));
}

Result<double> Config::number_or(const char* key, double fallback) const {
  return has(key) ? number(key) : Result<double>(fallback);
}

Result<bool> Config::boolean_or(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  TH_TRY(std::string text, string(key));
  if (text == "true") return true;
  if (text == "false") return false;
  return bad(key, fmt::format("want true or false, got '{}'", text));
}

namespace {
using ParseUnit = Result<int64_t> (*)(std::string_view);
}

static Result<int64_t> unit_or(const Config& config, const char* key, int64_t fallback, ParseUnit parse) {
  if (!config.has(key)) return fallback;
  TH_TRY(std::string text, config.string(key));
  auto value = parse(text);
  if (!value) return config.bad(key, value.error().message);
  return *value;
}

Result<int64_t> Config::duration_ns_or(const char* key, int64_t fallback) const {
  return unit_or(*this, key, fallback, parse_duration_ns);
}

Result<int64_t> Config::bytes_or(const char* key, int64_t fallback) const {
  return unit_or(*this, key, fallback, parse_bytes);
}

Result<int64_t> Config::money_or(const char* key, int64_t fallback_microusd) const {
  return unit_or(*this, key, fallback_microusd, parse_money_microusd);
}

Result<std::vector<std::string>> Config::strings(const char* key) const {
  std::vector<std::string> texts;
  if (!has(key)) return texts;
  YAML::Node list = node_->yaml[key];
  if (!list.IsSequence()) return bad(key, fmt::format("want a list, got {}", kind_of(list)));
  for (const auto& item : list) {
    if (!item.IsScalar()) {
      return node_->error(item.Mark(), fmt::format("{}[{}]", node_->path_of(key), texts.size()),
                          fmt::format("want a text, got {}", kind_of(item)));
    }
    texts.push_back(item.Scalar());
  }
  return texts;
}

Result<std::vector<std::pair<std::string, std::string>>> Config::string_map(const char* key) const {
  std::vector<std::pair<std::string, std::string>> pairs;
  if (!has(key)) return pairs;
  YAML::Node map = node_->yaml[key];
  if (!map.IsMap()) return bad(key, fmt::format("want a mapping, got {}", kind_of(map)));
  for (const auto& entry : map) {
    const YAML::Node &name = entry.first, &value = entry.second;
    if (!value.IsScalar()) {
      return node_->error(name.Mark(), fmt::format("{}.{}", node_->path_of(key), name.Scalar()),
                          fmt::format("want a text, got {}", kind_of(value)));
    }
    pairs.emplace_back(name.Scalar(), value.Scalar());
  }
  return pairs;
}

Result<Config> Config::map(const char* key, std::initializer_list<const char*> known) const {
  TH_TRY(Config config, open_map(key));
  TH_RETURN_IF_ERROR(config.check_keys(known));
  return config;
}

Result<Config> Config::open_map(const char* key) const {
  if (!has(key)) return bad(key, "is missing");
  YAML::Node value = node_->yaml[key];
  if (!value.IsMap()) return bad(key, fmt::format("want a mapping, got {}", kind_of(value)));
  return Config(std::make_shared<Node>(Node{value, node_->file, node_->path_of(key)}));
}

Result<std::vector<Config>> Config::maps(const char* key, std::initializer_list<const char*> known) const {
  std::vector<Config> list;
  if (!has(key)) return list;
  YAML::Node values = node_->yaml[key];
  if (!values.IsSequence()) return bad(key, fmt::format("want a list of mappings, got {}", kind_of(values)));
  for (const auto& value : values) {
    std::string path = fmt::format("{}[{}]", node_->path_of(key), list.size());
    if (!value.IsMap())
      return node_->error(value.Mark(), path, fmt::format("want a mapping, got {}", kind_of(value)));
    list.push_back(Config(std::make_shared<Node>(Node{value, node_->file, path})));
    TH_RETURN_IF_ERROR(list.back().check_keys(known));
  }
  return list;
}

}  // namespace th
