#include "node/protocol.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"

namespace th::node {
namespace {

constexpr std::array<std::string_view, 4> kStateNames = {"starting", "running", "ready", "exited"};
constexpr int kMaxAttempt = 1'000'000;
constexpr int kMaxRank = 1'000'000;
constexpr int64_t kMaxGraceMs = 600'000;
constexpr size_t kMaxChecks = 64;

Result<TaskState> state_from_name(std::string_view name) {
  for (size_t i = 0; i < kStateNames.size(); ++i) {
    if (kStateNames[i] == name) return static_cast<TaskState>(i);
  }
  return fail(Code::kInvalidArgument,
              fmt::format("field 'state': want starting, running, ready or exited, got '{}'", name));
}

Result<int> parse_count(std::string_view digits, int min, int max) {
  int value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  bool plain = !digits.empty() && (digits == "0" || digits[0] != '0') && digits[0] != '-';
  if (error != std::errc() || end != digits.data() + digits.size() || !plain || value < min || value > max) {
    return fail(Code::kInvalidArgument, "");
  }
  return value;
}

Status bad(const char* field, std::string_view problem) {
  return fail(Code::kInvalidArgument, fmt::format("field '{}': {}", field, problem));
}

Status check_text(const char* field, std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return bad(field, "has a NUL byte");
  return {};
}

Status check_absolute(const char* field, std::string_view path) {
  if (path.empty() || path[0] != '/') return bad(field, fmt::format("want an absolute path, got '{}'", path));
  return check_text(field, path);
}

Result<int64_t> get_int_in(const Json& object, const char* field, int64_t min, int64_t max,
                           std::optional<int64_t> fallback = std::nullopt) {
  auto value = fallback ? get_int(object, field, *fallback) : get_int(object, field);
  if (value && (*value < min || *value > max)) {
    return fail(bad(field, fmt::format("want {} to {}, got {}", min, max, *value)).error());
  }
  return value;
}

/// The member, or nullptr when it is missing or null. Errors: it is there with another type.
Result<const Json*> get_container(const Json& object, const char* field, Json::value_t type, size_t max) {
  if (!object.is_object()) return fail(bad(field, "want an object around it").error());
  auto it = object.find(field);
  if (it == object.end() || it->is_null()) return static_cast<const Json*>(nullptr);
  if (it->type() != type) {
    return fail(bad(field, type == Json::value_t::array ? "want a list" : "want an object").error());
  }
  if (it->size() > max)
    return fail(bad(field, fmt::format("{} entries, at most {}", it->size(), max)).error());
  return &*it;
}

template <class T, class Read>
Result<std::vector<T>> get_list(const Json& object, const char* field, size_t max, Read read) {
  TH_TRY(const Json* list, get_container(object, field, Json::value_t::array, max));
  std::vector<T> values;
  if (list == nullptr) return values;
  values.reserve(list->size());
  for (const Json& item : *list) {
    TH_TRY(T value, read(item));
    values.push_back(std::move(value));
  }
  return values;
}

Result<std::map<std::string, std::string>> get_string_map(const Json& object, const char* field) {
  TH_TRY(const Json* map, get_container(object, field, Json::value_t::object, kMaxArguments));
  std::map<std::string, std::string> values;
  if (map == nullptr) return values;
  for (const auto& [key, value] : map->items()) {
    if (!value.is_string()) return fail(bad(field, fmt::format("'{}': want a string", key)).error());
    values[key] = value.get<std::string>();
  }
  return values;
}

Result<std::optional<std::string>> get_optional_string(const Json& object, const char* field) {
  if (!object.is_object() || !object.contains(field) || object.at(field).is_null()) {
    return std::optional<std::string>();
  }
  TH_TRY(std::string value, get_string(object, field));
  return std::optional<std::string>(std::move(value));
}

Result<std::optional<int>> get_optional_int(const Json& object, const char* field, int min, int max) {
  if (!object.is_object() || !object.contains(field) || object.at(field).is_null())
    return std::optional<int>();
  TH_TRY(int64_t value, get_int_in(object, field, min, max));
  return std::optional<int>(static_cast<int>(value));
}

Result<TaskId> get_task_id(const Json& object) {
  TH_TRY(std::string text, get_string(object, "task"));
  return parse_task_id(text);
}

Status check_task(const Task& task) {
  if (task.argv.empty() || task.argv[0].empty()) return bad("argv", "want a program");
  for (const std::string& argument : task.argv) TH_RETURN_IF_ERROR(check_text("argv", argument));
  for (const auto& [name, value] : task.env) {
    if (name.empty() || name.find('=') != std::string::npos)
      return bad("env", fmt::format("bad name '{}'", name));
    TH_RETURN_IF_ERROR(check_text("env", name));
    TH_RETURN_IF_ERROR(check_text("env", value));
  }
  if (task.cwd) TH_RETURN_IF_ERROR(check_absolute("cwd", *task.cwd));
  for (const auto& [path, text] : task.files) TH_RETURN_IF_ERROR(check_inside_path(path, "field 'files'"));
  for (const auto& [to, from] : task.stage) {
    TH_RETURN_IF_ERROR(check_inside_path(to, "field 'stage'"));
    TH_RETURN_IF_ERROR(check_absolute("stage", from));
  }
  if (task.metrics_file) TH_RETURN_IF_ERROR(check_inside_path(*task.metrics_file, "field 'metrics_file'"));
  if (task.ready_url && !task.ready_url->starts_with("http://")) return bad("ready_url", "want http://…");
  return {};
}

Result<TaskReport> report_from_json(const Json& json) {
  TaskReport report;
  TH_TRY(report.id, get_task_id(json));
  TH_TRY(std::string state, get_string(json, "state"));
  TH_TRY(report.state, state_from_name(state));
  TH_TRY(report.pid, get_int_in(json, "pid", 0, INT32_MAX, 0));
  TH_TRY(report.exit_code, get_optional_int(json, "exit_code", 0, 255));
  TH_TRY(report.signal, get_optional_int(json, "signal", 1, 128));
  TH_TRY(report.reason, get_string(json, "reason", ""));
  TH_TRY(report.started_ns, get_int_in(json, "started_ns", 0, INT64_MAX, 0));
  TH_TRY(report.ended_ns, get_int_in(json, "ended_ns", 0, INT64_MAX, 0));
  return report;
}

Result<MetricsLine> metrics_from_json(const Json& json) {
  MetricsLine line;
  TH_TRY(line.id, get_task_id(json));
  TH_TRY(line.line_no, get_int_in(json, "line_no", 1, INT64_MAX));
  if (!json.contains("line") || !json.at("line").is_object())
    return fail(bad("line", "want an object").error());
  line.line = dump_json(json.at("line"));
  return line;
}

Result<Check> check_from_json(const Json& json) {
  Check check;
  TH_TRY(check.name, get_string(json, "name"));
  TH_TRY(check.ok, get_bool(json, "ok", false));
  TH_TRY(check.value, get_string(json, "value", ""));
  TH_TRY(check.want, get_string(json, "want", ""));
  return check;
}

Json report_json(const TaskReport& report) {
  return {{"task", report.id.text()},
          {"state", std::string(state_name(report.state))},
          {"pid", report.pid},
          {"exit_code", report.exit_code ? Json(*report.exit_code) : Json()},
          {"signal", report.signal ? Json(*report.signal) : Json()},
          {"reason", report.reason},
          {"started_ns", report.started_ns},
          {"ended_ns", report.ended_ns}};
}

Json validation_json(const Validation& validation) {
  Json checks = Json::array();
  for (const Check& check : validation.checks) {
    checks.push_back({{"name", check.name}, {"ok", check.ok}, {"value", check.value}, {"want", check.want}});
  }
  return {{"ok", validation.ok}, {"checks", std::move(checks)}};
}

}  // namespace

std::string TaskId::text() const { return fmt::format("{}.{}.{}", job, attempt, rank); }

Result<TaskId> parse_task_id(std::string_view text) {
  size_t rank_dot = text.rfind('.');
  size_t attempt_dot = rank_dot == std::string_view::npos || rank_dot == 0 ? std::string_view::npos
                                                                           : text.rfind('.', rank_dot - 1);
  if (attempt_dot != std::string_view::npos) {
    std::string_view job = text.substr(0, attempt_dot);
    auto attempt = parse_count(text.substr(attempt_dot + 1, rank_dot - attempt_dot - 1), 1, kMaxAttempt);
    auto rank = parse_count(text.substr(rank_dot + 1), 0, kMaxRank);
    if (attempt && rank && check_name(job, "job")) return TaskId{std::string(job), *attempt, *rank};
  }
  return fail(Code::kInvalidArgument,
              fmt::format("task '{}': want JOB.ATTEMPT.RANK, like 'job-1.1.0'", text.substr(0, 80)));
}

std::string slice_of(const Task& task) {
  const auto found = task.env.find(kSliceVariable);
  return found != task.env.end() && check_name(found->second, kSliceVariable) ? found->second : std::string();
}

std::string_view state_name(TaskState state) { return kStateNames.at(static_cast<size_t>(state)); }

Status check_inside_path(std::string_view path, std::string_view what) {
  auto bad_path = [&](std::string_view problem) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: path '{}' {}; want a relative path inside the job's folder", what,
                            path.substr(0, 200), problem));
  };
  if (path.empty()) return bad_path("is empty");
  if (path.size() > 1024) return bad_path("is over 1024 bytes");
  if (path.find('\0') != std::string_view::npos) return bad_path("has a NUL byte");
  for (const std::string& part : split(path, '/')) {
    if (part.empty()) return bad_path("has an empty part");
    if (part == "." || part == "..") return bad_path("has a part '.' or '..'");
    if (part.size() > 255) return bad_path("has a part over 255 bytes");
  }
  return {};
}

Json to_json(const Task& task) {
  return {{"task", task.id.text()},
          {"job", task.id.job},
          {"attempt", task.id.attempt},
          {"rank", task.id.rank},
          {"argv", task.argv},
          {"env", task.env},
          {"cwd", task.cwd ? Json(*task.cwd) : Json()},
          {"files", task.files},
          {"stage", task.stage},
          {"gpus", task.gpus},
          {"memory_bytes", task.memory_bytes},
          {"grace_ms", task.grace_ms},
          {"signal", task.signal},
          {"signal_leader_only", task.signal_leader_only},
          {"metrics_file", task.metrics_file ? Json(*task.metrics_file) : Json()},
          {"ready_url", task.ready_url ? Json(*task.ready_url) : Json()}};
}

namespace {

Result<std::vector<std::string>> get_argv(const Json& json) {
  return get_list<std::string>(json, "argv", kMaxArguments, [](const Json& item) -> Result<std::string> {
    if (!item.is_string()) return fail(bad("argv", "want strings").error());
    return item.get<std::string>();
  });
}

}  // namespace

Result<Task> task_from_json(const Json& json) {
  auto gpu = [](const Json& item) -> Result<int> {
    if (!item.is_number_integer() || item < 0 || item > 1023)
      return fail(bad("gpus", "want indices").error());
    return item.get<int>();
  };
  Task task;
  TH_TRY(task.id, get_task_id(json));
  TH_TRY(task.argv, get_argv(json));
  TH_TRY(task.env, get_string_map(json, "env"));
  TH_TRY(task.cwd, get_optional_string(json, "cwd"));
  TH_TRY(task.files, get_string_map(json, "files"));
  TH_TRY(task.stage, get_string_map(json, "stage"));
  TH_TRY(task.gpus, get_list<int>(json, "gpus", kMaxArguments, gpu));
  TH_TRY(task.memory_bytes, get_int_in(json, "memory_bytes", 0, INT64_MAX, 0));
  TH_TRY(task.grace_ms, get_int_in(json, "grace_ms", 0, kMaxGraceMs, 10'000));
  TH_TRY(task.signal, get_int_in(json, "signal", 0, 31, 0));
  TH_TRY(task.signal_leader_only, get_bool(json, "signal_leader_only", false));
  TH_TRY(task.metrics_file, get_optional_string(json, "metrics_file"));
  TH_TRY(task.ready_url, get_optional_string(json, "ready_url"));
  if (Status status = check_task(task); !status) {
    return fail(status.error().code, fmt::format("task {}: {}", task.id.text(), status.error().message));
  }
  return task;
}

Json to_json(const SyncRequest& request) {
  Json tasks = Json::array(), metrics = Json::array();
  for (const TaskReport& report : request.tasks) tasks.push_back(report_json(report));
  for (const MetricsLine& line : request.metrics) {
    auto parsed = parse_json(line.line, "metrics line");
    TH_CHECK(parsed && parsed->is_object());
    metrics.push_back({{"task", line.id.text()}, {"line_no", line.line_no}, {"line", *std::move(parsed)}});
  }
  return {{"boot_id", request.boot_id},
          {"have_generation", request.have_generation},
          {"validation", request.validation ? validation_json(*request.validation) : Json()},
          {"address", request.address},
          {"tasks", std::move(tasks)},
          {"metrics", std::move(metrics)}};
}

Result<SyncRequest> sync_request_from_json(const Json& json) {
  SyncRequest request;
  TH_TRY(request.boot_id, get_string(json, "boot_id"));
  if (request.boot_id.empty() || request.boot_id.size() > 64)
    return fail(bad("boot_id", "want 1–64 bytes").error());
  TH_TRY(request.have_generation, get_int_in(json, "have_generation", 0, INT64_MAX, 0));
  TH_TRY(request.address, get_string(json, "address", ""));
  TH_TRY(request.tasks, get_list<TaskReport>(json, "tasks", kMaxTasks, report_from_json));
  TH_TRY(request.metrics, get_list<MetricsLine>(json, "metrics", kMaxMetricsLines, metrics_from_json));
  TH_TRY(const Json* validation, get_container(json, "validation", Json::value_t::object, kMaxChecks));
  if (validation != nullptr) {
    request.validation.emplace();
    TH_TRY(request.validation->ok, get_bool(*validation, "ok", false));
    TH_TRY(request.validation->checks, get_list<Check>(*validation, "checks", kMaxChecks, check_from_json));
  }
  return request;
}

Json to_json(const SyncReply& reply) {
  Json tasks = Json::array();
  for (const Task& task : reply.tasks) tasks.push_back(to_json(task));
  Json out = {
      {"generation", reply.generation}, {"tasks", std::move(tasks)}, {"ack_metrics", reply.ack_metrics}};
  for (const SessionSpec& session : reply.sessions) out["sessions"].push_back(to_json(session));
  return out;
}

Json to_json(const SessionSpec& session) {
  return {{"session", session.session},   {"task", session.task.text()}, {"argv", session.argv},
          {"terminal", session.terminal}, {"rows", session.rows},        {"columns", session.columns}};
}

Result<SessionSpec> session_from_json(const Json& json) {
  SessionSpec out;
  TH_TRY(out.session, get_string(json, "session"));
  TH_RETURN_IF_ERROR(check_name(out.session, "session"));
  TH_TRY(out.task, get_task_id(json));
  TH_TRY(out.argv, get_argv(json));
  for (const std::string& argument : out.argv) TH_RETURN_IF_ERROR(check_text("argv", argument));
  if (!out.argv.empty() && out.argv[0].empty()) return fail(bad("argv", "want a program").error());
  TH_TRY(out.terminal, get_bool(json, "terminal", false));
  TH_TRY(out.rows, get_int_in(json, "rows", 1, kMaxTerminalSide, 24));
  TH_TRY(out.columns, get_int_in(json, "columns", 1, kMaxTerminalSide, 80));
  return out;
}

Result<SyncReply> sync_reply_from_json(const Json& json) {
  SyncReply reply;
  TH_TRY(reply.generation, get_int_in(json, "generation", 0, INT64_MAX));
  // A reply without the list must not read as "nothing to run", which would stop every rank.
  if (!json.contains("tasks") || !json.at("tasks").is_array())
    return fail(bad("tasks", "want a list").error());
  TH_TRY(reply.tasks, get_list<Task>(json, "tasks", kMaxTasks, task_from_json));
  std::set<std::string> seen;
  for (const Task& task : reply.tasks) {
    if (!seen.insert(task.id.text()).second)
      return fail(bad("tasks", task.id.text() + " stands twice").error());
  }
  TH_TRY(reply.sessions, get_list<SessionSpec>(json, "sessions", kMaxSessions, session_from_json));
  TH_TRY(const Json* acks, get_container(json, "ack_metrics", Json::value_t::object, 4 * kMaxTasks));
  if (acks == nullptr) return reply;
  for (const auto& [task, line_no] : acks->items()) {
    TH_TRY(TaskId id, parse_task_id(task));
    if (!line_no.is_number_integer() || line_no < 0)
      return fail(bad("ack_metrics", "want line numbers").error());
    reply.ack_metrics[id.text()] = line_no.get<int64_t>();
  }
  return reply;
}

}  // namespace th::node
