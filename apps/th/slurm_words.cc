#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "job.h"
#include "launch/rendezvous.h"
#include "slurm.h"

namespace th::cli {
namespace {

struct Words {
  const char *letters, *word;
};

Words state_of(const Json& job) {
  const std::string state = text_of(job, "state"), cause = text_of(job, "reason_code");
  if (job.value("stopping", false)) return {"CG", "COMPLETING"};
  if (state == "pending") return {"PD", "PENDING"};
  if (state == "starting") return {"CF", "CONFIGURING"};
  if (state == "running") return {"R", "RUNNING"};
  if (state == "succeeded") return {"CD", "COMPLETED"};
  if (state == "cancelled") return {"CA", "CANCELLED"};
  if (state == "restarting") return {"PD", "PENDING"};
  if (cause == "timeout") return {"TO", "TIMEOUT"};
  if (cause == "deadline") return {"DL", "DEADLINE"};
  if (cause == "node_fail") return {"NF", "NODE_FAIL"};
  if (cause == "preempted") return {"PR", "PREEMPTED"};
  return {"F", "FAILED"};
}

constexpr std::pair<const char*, const char*> kReasons[] = {
    {"priority", "Priority"},
    {"dependency", "Dependency"},
    {"dependency_never_satisfied", "DependencyNeverSatisfied"},
    {"begin_time", "BeginTime"},
    {"array_limit", "JobArrayTaskLimit"},
    {"quota", "AssocGrpGRES"},
    {"qos", "QOSGrpGRES"},
    {"budget", "AssocGrpBillingMinutes"},
    {"price", "AssocGrpBillingMinutes"},
    {"drained", "ReqNodeNotAvail"},
    {"window", "PartitionTimeLimit"},
    {"reservation", "Reservation"}};

/// "12" of "job-12".
std::string number_in(const std::string& id) { return id.substr(id.find('-') + 1); }

std::string time_text(int64_t ns) { return ns == 0 ? "Unknown" : format_time(ns).substr(0, 19); }

std::string exit_code(const Json& job) {
  int64_t code = 0, signal = 0;
  for (const Json& rank : list_of(job, "ranks")) {
    code = std::max(code, int_of(rank, "exit_code")), signal = std::max(signal, int_of(rank, "signal"));
  }
  return fmt::format("{}:{}", code, signal);
}

std::string resources(const Json& job) {
  size_t gpus = 0;
  for (const Json& place : list_of(job, "places")) gpus += list_of(place, "gpus").size();
  if (gpus == 0) return "";
  return fmt::format("gres/gpu={},node={}", gpus, num_nodes(job));
}

}  // namespace

std::string plain_number(const Json& job) { return number_in(text_of(job, "id")); }

std::string array_number(const Json& job) {
  const std::string id = text_of(object_of(job, "options"), "array_job");
  return id.empty() ? "" : number_in(id);
}

std::string shown_id(const Json& job) {
  const Json& options = object_of(job, "options");
  const int64_t index = int_of(options, "array_index");
  const std::string array = array_number(job), step_of = text_of(options, "step_of");
  if (!array.empty()) return fmt::format("{}_{}", array, index);
  if (!step_of.empty()) return fmt::format("{}.{}", number_in(step_of), index);
  return plain_number(job);
}

std::string partition_of(const Json& job) {
  const std::string slice = text_of(job, "slice");
  return slice.empty() ? "-" : slice;
}

int64_t num_nodes(const Json& job) {
  const auto placed = static_cast<int64_t>(list_of(job, "places").size());
  return placed > 0 ? placed : std::max<int64_t>(1, int_of(object_of(job, "options"), "min_nodes"));
}

std::string node_list(const Json& job) {
  std::vector<std::string> nodes;
  for (const Json& place : list_of(job, "places")) nodes.push_back(text_of(place, "node"));
  return launch::compress_nodes(nodes);
}

std::string state_letters(const Json& job) { return state_of(job).letters; }
std::string state_word(const Json& job) { return state_of(job).word; }

std::string reason_word(const Json& job) {
  const std::string code = text_of(job, "reason_code");
  for (const auto& [known, word] : kReasons) {
    if (code == known) return word;
  }
  // Its slice is not there yet: leased for later, or on its way.
  if (code == "slice" && int_of(job, "estimated_start_ns") > Env::real().unix_ns() + kSecond)
    return "Reservation";
  return code.empty() ? "None" : "Resources";
}

std::string clock_text(int64_t ns) {
  const int64_t s = ns / kSecond, days = s / 86'400, hours = s / 3600 % 24, minutes = s / 60 % 60;
  if (days > 0) return fmt::format("{}-{:02}:{:02}:{:02}", days, hours, minutes, s % 60);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, s % 60);
  return fmt::format("{}:{:02}", minutes, s % 60);
}

std::string elapsed(const Json& job) {
  const int64_t start_ns = int_of(job, "started_ns"), end_ns = int_of(job, "ended_ns");
  if (start_ns == 0) return "0:00";
  return clock_text(std::max<int64_t>(0, (end_ns ? end_ns : Env::real().unix_ns()) - start_ns));
}

std::string node_state(const Json& node, size_t used) {
  const std::string state = text_of(node, "state");
  if (state == "down" || state == "suspect") return "down";
  if (state != "ready") return "boot";
  if (used == 0) return "idle";
  return static_cast<int64_t>(used) < int_of(node, "gpus") ? "mix" : "alloc";
}

namespace {

struct Column {
  const char* name;
  std::string (*value)(const Json& job);
};
const Column kColumns[] = {
    {"JobID", shown_id},
    {"JobName", [](const Json& job) { return text_of(job, "name"); }},
    {"Partition", partition_of},
    {"Account", [](const Json& job) { return text_of(object_of(job, "options"), "account"); }},
    {"QOS", [](const Json& job) { return text_of(object_of(job, "options"), "qos"); }},
    {"User", [](const Json& job) { return text_of(job, "user"); }},
    {"AllocTRES", resources},
    {"NNodes", [](const Json& job) { return std::to_string(num_nodes(job)); }},
    {"NodeList", node_list},
    {"State", state_word},
    {"Reason",
     [](const Json& job) { return text_of(job, "state") == "pending" ? reason_word(job) : "None"; }},
    {"ExitCode", exit_code},
    {"Elapsed", elapsed},
    {"Timelimit",
     [](const Json& job) {
       const int64_t limit_ns = int_of(job, "time_limit_ns");
       return limit_ns ? clock_text(limit_ns) : std::string("UNLIMITED");
     }},
    {"Submit", [](const Json& job) { return time_text(int_of(job, "submitted_ns")); }},
    {"Start", [](const Json& job) { return time_text(int_of(job, "started_ns")); }},
    {"End", [](const Json& job) { return time_text(int_of(job, "ended_ns")); }}};

}  // namespace

Result<std::string> account_column(const std::string& name) {
  std::vector<std::string> names;
  for (const Column& column : kColumns) {
    const std::string known = column.name;
    if (std::ranges::equal(
            known, name, [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); }))
      return known;
    names.push_back(known);
  }
  std::string hint = did_you_mean(name, names);
  if (hint.empty()) hint = "; known: " + join(names, ", ");
  return fail(Code::kInvalidArgument, fmt::format("--format: column '{}' is unknown{}", name, hint));
}

std::string account_value(const Json& job, const std::string& column) {
  const auto* found =
      std::ranges::find(kColumns, column, [](const Column& c) { return std::string(c.name); });
  return found == std::end(kColumns) ? "" : found->value(job);
}

}  // namespace th::cli
