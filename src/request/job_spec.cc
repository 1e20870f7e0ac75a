#include "request/job_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/text.h"
#include "base/units.h"
#include "request/fields.h"
#include "request/job_fields.h"
#include "request/slice_spec.h"

namespace th::request {
namespace {

constexpr int64_t kMaxRetries = 1000;
constexpr int64_t kMinMemoryBytes = int64_t{1} << 20;
constexpr int64_t kMaxMemoryBytes = int64_t{1} << 50;
constexpr size_t kMaxArgumentBytes = size_t{128} << 10;  // Linux's limit of one argument
constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxEntries = 900;  // a node takes 1,024, and the rendezvous adds some variables

bool is_env_name(std::string_view name) {
  auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !name.empty() && is_letter(name.front()) &&
         std::ranges::all_of(name, [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); });
}

/// Whether the system takes it as one argument or environment value.
bool is_argument(std::string_view text) {
  return text.size() < kMaxArgumentBytes && text.find('\0') == std::string_view::npos;
}

bool is_path(std::string_view path) {
  return !path.empty() && path.size() < kMaxPathBytes && path.find('\0') == std::string_view::npos;
}

/// Relative, of plain names only: it cannot lead out of the folder that it is taken in.
bool stays_inside(std::string_view path) {
  if (!is_path(path)) return false;
  auto parts = split(path, '/');
  return std::ranges::none_of(parts, [](const std::string& p) { return p.empty() || p == "." || p == ".."; });
}

std::optional<Problem> count_problem(const JobSpec& spec) {
  const std::pair<const char*, size_t> counts[] = {{"command", spec.command.size()},
                                                   {"env", spec.env.size()},
                                                   {"files", spec.files.size()},
                                                   {"stage", spec.stage.size()}};
  for (const auto& [field, count] : counts) {
    if (count > kMaxEntries) {
      return Problem{field, fmt::format("has {} entries; at most {} are taken", count, kMaxEntries)};
    }
  }
  return std::nullopt;
}

std::optional<Problem> command_problem(const JobSpec& spec) {
  if (spec.command.empty() || spec.command.front().empty()) {
    return Problem{"command", "is empty: say what to run"};
  }
  for (const std::string& argument : spec.command) {
    if (!is_argument(argument)) return Problem{"command", "an argument has a zero byte or over 128 KiB"};
  }
  for (const auto& [name, value] : spec.env) {
    if (!is_env_name(name)) {
      return Problem{"env", fmt::format("'{}' cannot name a variable: want letters, digits and '_'",
                                        name.substr(0, 80))};
    }
    if (!is_argument(value)) return Problem{"env", fmt::format("{} has a zero byte or over 128 KiB", name)};
  }
  return std::nullopt;
}

std::optional<Problem> path_problem(const JobSpec& spec) {
  auto outside = [](const char* field, const std::string& path) {
    return Problem{field, fmt::format("'{}' must be a path inside of the job's folder, without '..'",
                                      path.substr(0, 80))};
  };
  for (const auto& file : spec.files) {
    if (!stays_inside(file.first)) return outside("files", file.first);
  }
  for (const auto& [to, from] : spec.stage) {
    if (!stays_inside(to)) return outside("stage", to);
    if (spec.files.contains(to)) return Problem{"stage", fmt::format("'{}' is among the files too", to)};
    if (!is_path(from) || from.front() != '/') {
      return Problem{"stage",
                     fmt::format("{}: want an absolute path to copy from, got '{}'", to, from.substr(0, 80))};
    }
  }
  if (spec.workdir && (!is_path(*spec.workdir) || spec.workdir->front() != '/')) {
    return Problem{"workdir", fmt::format("want an absolute path, got '{}'", spec.workdir->substr(0, 80))};
  }
  return std::nullopt;
}

std::optional<Problem> find_problem(const JobSpec& spec) {
  if (auto problem = name_problem("name", spec.name)) return problem;
  if (spec.slice) {
    if (auto problem = name_problem("slice", *spec.slice)) return problem;
  }
  if (auto problem = range_problem("gpus", spec.gpus, 1, kMaxRequestGpus)) return problem;
  if (auto problem = count_problem(spec)) return problem;
  if (auto problem = command_problem(spec)) return problem;
  if (auto problem = path_problem(spec)) return problem;
  if (auto problem = range_problem("retries", spec.retries, 0, kMaxRetries)) return problem;
  if (spec.duration_ns && (*spec.duration_ns < kSecond || *spec.duration_ns > kMaxRequestDurationNs)) {
    return Problem{"duration_ns", fmt::format("want 1s to {}, got {}", format_duration(kMaxRequestDurationNs),
                                              format_duration(*spec.duration_ns))};
  }
  if (spec.memory_bytes) {
    if (auto problem = range_problem("memory_bytes", *spec.memory_bytes, kMinMemoryBytes, kMaxMemoryBytes)) {
      return problem;
    }
  }
  if (spec.register_as) {
    if (auto problem = name_problem("register", *spec.register_as)) return problem;
  }
  return option_problem(spec);
}

Result<std::map<std::string, std::string>> text_map(const Json& body, const char* field) {
  std::map<std::string, std::string> texts;
  auto it = body.find(field);
  if (it == body.end() || it->is_null()) return texts;
  if (!it->is_object()) {
    return fail(Code::kInvalidArgument,
                fmt::format("field '{}': want an object of strings, got {}", field, it->type_name()));
  }
  for (const auto& entry : it->items()) {
    if (!entry.value().is_string()) {
      return fail(Code::kInvalidArgument, fmt::format("field '{}': '{}': want a string, got {}", field,
                                                      entry.key().substr(0, 80), entry.value().type_name()));
    }
    texts[entry.key()] = entry.value().get<std::string>();
  }
  return texts;
}

/// Reads what stands in the recipe beside the command.
Status read_settings(const Config& config, const std::string& folder, JobSpec& spec) {
  if (config.has("slice")) {
    TH_TRY(spec.slice, config.string("slice"));
  }
  TH_TRY(spec.gpus, config.integer_or("gpus", 1));
  TH_TRY(auto env, config.string_map("env"));
  spec.env = {env.begin(), env.end()};
  if (config.has("workdir")) {
    TH_TRY(spec.workdir, config.string("workdir"));
  }
  TH_TRY(spec.retries, config.integer_or("retries", spec.retries));
  if (config.has("time")) {
    TH_TRY(spec.duration_ns, config.duration_ns_or("time", 0));
  }
  if (config.has("memory")) {
    TH_TRY(spec.memory_bytes, config.bytes_or("memory", 0));
  }
  TH_TRY(auto stage, config.string_map("stage"));
  for (const auto& [to, from] : stage) {
    spec.stage[to] = from.empty() ? from : (std::filesystem::path(folder) / from).lexically_normal().string();
  }
  if (config.has("register")) {
    TH_TRY(spec.register_as, config.string("register"));
  }
  return options_from_config(config, spec);
}

/// train.data.set, or else `fallback`; what is wrong in that section is told by who reads it.
Result<std::string> data_set_of(const Config& recipe, const std::string& fallback) {
  const auto train = recipe.open_map("train");
  const auto data = train && train->has("data") ? train->open_map("data") : train;
  if (!data || !train->has("data") || !data->has("set")) return fallback;
  return data->string("set");
}

}  // namespace

Status validate(const JobSpec& spec) { return as_status(find_problem(spec)); }

Result<JobSpec> parse_job_recipe(std::string_view yaml, std::string_view file, const std::string& folder) {
  std::vector<const char*> known = {"name",    "gpus", "slice",  "command", "env",      "workdir",
                                    "retries", "time", "memory", "stage",   "register", "train"};
  known.insert(known.end(), option_names().begin(), option_names().end());
  TH_TRY(Config config, Config::parse(yaml, file, known));
  JobSpec spec;
  TH_TRY(spec.name, config.string("name"));
  TH_RETURN_IF_ERROR(read_settings(config, folder, spec));
  TH_TRY(spec.command, config.strings("command"));
  if (config.has("train")) {
    spec.files["recipe.yaml"] = yaml;
    if (!config.has("command")) spec.command = {"th-train", "run", "recipe.yaml"};
    TH_TRY(spec.data, data_set_of(config, spec.data));
  } else if (!config.has("command")) {
    return config.bad("command", "is missing: say what to run, or add a 'train' section");
  }
  TH_RETURN_IF_ERROR(
      as_status(find_problem(spec), config, {{"duration_ns", "time"}, {"memory_bytes", "memory"}}));
  return spec;
}

Result<JobSpec> job_spec_from_json(const Json& body) {
  std::vector<const char*> known = {"name",    "slice",       "gpus",         "command", "env",   "workdir",
                                    "retries", "duration_ns", "memory_bytes", "files",   "stage", "register"};
  known.insert(known.end(), option_names().begin(), option_names().end());
  TH_RETURN_IF_ERROR(check_fields(body, known));
  JobSpec spec;
  TH_TRY(spec.name, get_string(body, "name"));
  TH_TRY(spec.slice, optional_string(body, "slice"));
  TH_TRY(spec.gpus, get_int(body, "gpus"));
  if (!body.contains("command")) return fail(Code::kInvalidArgument, "field 'command' is missing");
  TH_TRY(spec.command, optional_strings(body, "command"));
  TH_TRY(spec.env, text_map(body, "env"));
  TH_TRY(spec.workdir, optional_string(body, "workdir"));
  TH_TRY(spec.retries, get_int(body, "retries", spec.retries));
  TH_TRY(spec.duration_ns, optional_int(body, "duration_ns"));
  TH_TRY(spec.memory_bytes, optional_int(body, "memory_bytes"));
  TH_TRY(spec.files, text_map(body, "files"));
  TH_TRY(spec.stage, text_map(body, "stage"));
  TH_TRY(spec.register_as, optional_string(body, "register"));
  TH_RETURN_IF_ERROR(options_from_json(body, spec));
  TH_RETURN_IF_ERROR(validate(spec));
  return spec;
}

Json to_json(const JobSpec& spec) {
  Json body = {{"name", spec.name}};
  if (spec.slice) body["slice"] = *spec.slice;
  body["gpus"] = spec.gpus;
  body["command"] = spec.command;
  body["env"] = Json(spec.env);
  if (spec.workdir) body["workdir"] = *spec.workdir;
  body["retries"] = spec.retries;
  if (spec.duration_ns) body["duration_ns"] = *spec.duration_ns;
  if (spec.memory_bytes) body["memory_bytes"] = *spec.memory_bytes;
  body["files"] = Json(spec.files);
  body["stage"] = Json(spec.stage);
  if (spec.register_as) body["register"] = *spec.register_as;
  options_to_json(spec, body);
  return body;
}

}  // namespace th::request
