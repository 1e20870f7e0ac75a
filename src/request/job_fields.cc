#include "request/job_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "request/job_options.h"
#include "request/slice_spec.h"

namespace th::request {
namespace {

constexpr int64_t kMaxTimeNs = std::numeric_limits<int64_t>::max() / 2;
constexpr int64_t kMaxPriority = 4'294'967'294;  // Slurm's: 32 bits
constexpr int64_t kMaxNice = 2'147'483'645;      // Slurm's
constexpr size_t kMaxTextBytes = 4096;
constexpr int64_t kMaxTasksPerGpu = 8;  // a node takes 256 tasks and has up to 32 GPUs

struct IntOption {
  const char* name;
  int64_t JobSpec::*member;
  int64_t min, max;
};
constexpr IntOption kInts[] = {{"min_nodes", &JobSpec::min_nodes, 0, kMaxRequestGpus},
                               {"max_nodes", &JobSpec::max_nodes, 0, kMaxRequestGpus},
                               {"ntasks", &JobSpec::ntasks, 0, kMaxRequestGpus},
                               {"ntasks_per_node", &JobSpec::ntasks_per_node, 0, 1024},
                               {"gpus_per_node", &JobSpec::gpus_per_node, 0, 1024},
                               {"gpu_milli", &JobSpec::gpu_milli, 1, 1000},
                               {"max_switches", &JobSpec::max_switches, 0, 1'000'000},
                               {"switches_wait_ns", &JobSpec::switches_wait_ns, 0, kMaxRequestDurationNs},
                               {"segment", &JobSpec::segment, 0, kMaxRequestGpus},
                               {"priority", &JobSpec::priority, 0, kMaxPriority},
                               {"nice", &JobSpec::nice, -kMaxNice, kMaxNice},
                               {"begin_ns", &JobSpec::begin_ns, 0, kMaxTimeNs},
                               {"deadline_ns", &JobSpec::deadline_ns, 0, kMaxTimeNs},
                               {"array_index", &JobSpec::array_index, 0, kMaxArrayIndex},
                               {"array_limit", &JobSpec::array_limit, 0, std::numeric_limits<int64_t>::max()},
                               {"min_gpus", &JobSpec::min_gpus, 0, kMaxRequestGpus}};

struct FlagOption {
  const char* name;
  bool JobSpec::*member;
};
constexpr FlagOption kFlags[] = {{"exclusive", &JobSpec::exclusive},
                                 {"batch", &JobSpec::batch},
                                 {"requeue", &JobSpec::requeue},
                                 {"can_rescale", &JobSpec::can_rescale}};

std::optional<std::string> wrong_name(const std::string& text) {
  auto status = check_name(text, "value");
  return status ? std::nullopt : std::optional(status.error().message);
}
template <auto Parse>
std::optional<std::string> wrong(const std::string& text) {
  auto value = Parse(text);
  return value ? std::nullopt : std::optional(value.error().message);
}
std::optional<std::string> wrong_path(const std::string& text) {
  if (text.size() < kMaxTextBytes && text.find('\0') == std::string::npos) return std::nullopt;
  return "want a path of at most 4095 bytes";
}

struct TextOption {
  const char* name;
  std::string JobSpec::*member;
  std::optional<std::string> (*problem)(const std::string& text);  // of one that is not empty
};
constexpr TextOption kTexts[] = {{"step_of", &JobSpec::step_of, wrong<parse_job_ref>},
                                 {"constraint", &JobSpec::constraint, wrong<parse_constraint>},
                                 {"reservation", &JobSpec::reservation, wrong_name},
                                 {"account", &JobSpec::account, wrong_name},
                                 {"qos", &JobSpec::qos, wrong_name},
                                 {"dependency", &JobSpec::dependency, wrong<parse_dependencies>},
                                 {"array", &JobSpec::array, wrong<parse_array>},
                                 {"array_job", &JobSpec::array_job, wrong<parse_job_ref>},
                                 {"output", &JobSpec::output, wrong_path},
                                 {"error", &JobSpec::error, wrong_path},
                                 {"signal", &JobSpec::signal, wrong<parse_end_signal>},
                                 {"data", &JobSpec::data, data_name_problem},
                                 {"stack", &JobSpec::stack, stack_name_problem}};

struct ListOption {
  const char* name;
  std::vector<std::string> JobSpec::*member;
};
constexpr ListOption kLists[] = {{"nodelist", &JobSpec::nodelist}, {"exclude", &JobSpec::exclude}};

const JobSpec& defaults() {
  static const JobSpec spec;
  return spec;
}

std::optional<Problem> shape_problem(const JobSpec& spec) {
  auto at_most = [](const char* field, int64_t value, const char* of,
                    int64_t limit) -> std::optional<Problem> {
    if (value <= limit) return std::nullopt;
    return Problem{field, fmt::format("{} is over the job's {} {}", value, limit, of)};
  };
  if (auto problem = at_most("min_nodes", spec.min_nodes, "GPUs; a node has to give one", spec.gpus))
    return problem;
  if (spec.max_nodes > 0 && spec.max_nodes < spec.min_nodes) {
    return Problem{"max_nodes", fmt::format("{} is under min_nodes, {}", spec.max_nodes, spec.min_nodes)};
  }
  if (spec.gpus_per_node > 0) {
    const int64_t nodes = spec.gpus / spec.gpus_per_node;
    if (spec.gpus % spec.gpus_per_node != 0 || nodes < spec.min_nodes ||
        (spec.max_nodes && nodes > spec.max_nodes)) {
      return Problem{
          "gpus_per_node",
          fmt::format("{} GPUs a node do not come to {} GPUs on {} nodes", spec.gpus_per_node, spec.gpus,
                      spec.max_nodes ? spec.max_nodes : std::max<int64_t>(spec.min_nodes, nodes))};
    }
  }
  if (auto problem = at_most("min_gpus", spec.min_gpus, "GPUs", spec.gpus)) return problem;
  if (spec.gpu_milli < 1000 && (spec.gpus != 1 || spec.ntasks > 1)) {
    return Problem{"gpu_milli", "a part of a GPU is for a job of one task; ask for whole GPUs"};
  }
  if (spec.ntasks <= spec.gpus * kMaxTasksPerGpu) return std::nullopt;
  return Problem{"ntasks", fmt::format("{} tasks are over {} on each of {} GPUs", spec.ntasks,
                                       kMaxTasksPerGpu, spec.gpus)};
}

}  // namespace

const std::vector<const char*>& option_names() {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> out;
    for (const auto& option : kInts) out.push_back(option.name);
    for (const auto& option : kFlags) out.push_back(option.name);
    for (const auto& option : kTexts) out.push_back(option.name);
    for (const auto& option : kLists) out.push_back(option.name);
    return out;
  }();
  return names;
}

Status options_from_json(const Json& body, JobSpec& spec) {
  for (const IntOption& option : kInts) {
    TH_TRY(spec.*option.member, get_int(body, option.name, spec.*option.member));
  }
  for (const FlagOption& option : kFlags) {
    TH_TRY(spec.*option.member, get_bool(body, option.name, spec.*option.member));
  }
  for (const TextOption& option : kTexts) {
    TH_TRY(spec.*option.member, get_string(body, option.name, spec.*option.member));
  }
  for (const ListOption& option : kLists) {
    TH_TRY(spec.*option.member, optional_strings(body, option.name));
  }
  return {};
}

void options_to_json(const JobSpec& spec, Json& body) {
  auto write = [&](const auto& options) {
    for (const auto& option : options) {
      if (spec.*option.member != defaults().*option.member) body[option.name] = spec.*option.member;
    }
  };
  write(kInts), write(kFlags), write(kTexts), write(kLists);
}

Status options_from_config(const Config& config, JobSpec& spec) {
  for (const IntOption& option : kInts) {
    TH_TRY(spec.*option.member, config.integer_or(option.name, spec.*option.member));
  }
  for (const FlagOption& option : kFlags) {
    TH_TRY(spec.*option.member, config.boolean_or(option.name, spec.*option.member));
  }
  for (const TextOption& option : kTexts) {
    TH_TRY(spec.*option.member, config.string(option.name, spec.*option.member));
  }
  for (const ListOption& option : kLists) {
    TH_TRY(spec.*option.member, config.strings(option.name));
  }
  return {};
}

std::optional<Problem> option_problem(const JobSpec& spec) {
  for (const IntOption& option : kInts) {
    if (auto problem = range_problem(option.name, spec.*option.member, option.min, option.max))
      return problem;
  }
  for (const TextOption& option : kTexts) {
    const std::string& text = spec.*option.member;
    if (text.empty()) continue;
    if (text.size() > (64u << 10)) return Problem{option.name, "is over 64 KiB long"};
    if (auto problem = option.problem(text)) return Problem{option.name, *std::move(problem)};
  }
  for (const ListOption& option : kLists) {
    if ((spec.*option.member).size() > kMaxHosts) {
      return Problem{option.name, fmt::format("names over {} hosts", kMaxHosts)};
    }
    for (const std::string& name : spec.*option.member) {
      if (auto problem = wrong_name(name)) return Problem{option.name, *std::move(problem)};
    }
  }
  if (!spec.array.empty() && !spec.array_job.empty()) {
    return Problem{"array", "a task of an array cannot be an array itself"};
  }
  return shape_problem(spec);
}

}  // namespace th::request
