#include "request/sbatch.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "base/units.h"
#include "request/job_options.h"
#include "request/sbatch_forms.h"
#include "request/slice_spec.h"

namespace th::request {
namespace {

constexpr int64_t kMaxNice = 2'147'483'645;
constexpr size_t kMaxScriptBytes = size_t{512} << 10;

tl::unexpected<Error> bad(std::string text) { return fail(Code::kInvalidArgument, std::move(text)); }

/// What the options said so far that only makes sense together.
struct Draft {
  SbatchRequest out;
  CountRange nodes;
  std::optional<int64_t> ntasks, gpu_milli, gpus_per_node;
  std::string gpu_type;
  int64_t now_ns = 0;
};

Result<int64_t> count_in(const std::string& text, int64_t min, int64_t max) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return bad(fmt::format("want a number of {} to {}, got '{}'", min, max, text.substr(0, 80)));
  }
  return value;
}

/// "4", "h100:4"; a type goes to the draft. With `parts` also "0.25", as thousandths.
Result<int64_t> gpu_count(Draft& draft, const std::string& text, bool parts) {
  std::vector<std::string> words = split(text, ':');
  if (words.size() > 2) return bad(fmt::format("want [type:]number, got '{}'", text.substr(0, 80)));
  if (words.size() == 2) {
    TH_RETURN_IF_ERROR(check_name(words[0], "type of GPU"));
    draft.gpu_type = words[0];
  }
  const std::string& number = words.back();
  if (parts && number.starts_with("0.") && number.size() <= 5) {
    TH_TRY(int64_t milli, count_in((number + "000").substr(2, 3), 1, 999));
    return milli;
  }
  TH_TRY(int64_t count, count_in(number, 1, kMaxRequestGpus));
  return parts ? count * 1000 : count;
}

Status take_gres(Draft& draft, const std::string& text) {
  if (text == "none") return {};
  if (text != "gpu" && !text.starts_with("gpu:")) {
    return bad(
        fmt::format("want gpu[:type][:number], got '{}'; there are no other resources", text.substr(0, 80)));
  }
  std::string rest = text.size() > 4 ? text.substr(4) : "1";
  const bool is_type = rest.find_first_not_of("0123456789") == 0;
  if (rest.find(':') == std::string::npos && is_type) rest += ":1";  // "gpu:h100"
  TH_TRY(draft.gpus_per_node, gpu_count(draft, rest, false));
  return {};
}

Status take_switches(Draft& draft, const std::string& text) {
  std::vector<std::string> words = split(text, '@');
  if (words.size() > 2) return bad("want count[@max-time]");
  TH_TRY(draft.out.spec.max_switches, count_in(words[0], 1, 1'000'000));
  draft.out.spec.switches_wait_ns = 0;
  if (words.size() == 2) {
    TH_TRY(draft.out.spec.switches_wait_ns, parse_duration_ns(words[1]));
  }
  return {};
}

Status take_time(Draft& draft, const std::string& text) {
  TH_TRY(int64_t limit_ns, parse_duration_ns(text));
  draft.out.spec.duration_ns.reset();
  if (limit_ns > 0) draft.out.spec.duration_ns = limit_ns;  // 0: no limit
  return {};
}

Status take_hosts(std::vector<std::string>& hosts, const std::string& text) {
  TH_TRY(hosts, parse_hostlist(text));
  return {};
}

template <auto Parse>
Status take_text(std::string& member, const std::string& text) {
  TH_RETURN_IF_ERROR(Parse(text));
  member = text;
  return {};
}

Status take_name(std::string& member, const std::string& text) {
  TH_RETURN_IF_ERROR(check_name(text, "value"));
  member = text;
  return {};
}

Status take_partition(Draft& draft, const std::string& text) {
  if (text.find(',') != std::string::npos) return bad("want one partition; a slice is one");
  std::string name;
  TH_RETURN_IF_ERROR(take_name(name, text));
  draft.out.spec.slice = name;
  return {};
}

template <class T>
Status set(T& to, Result<int64_t> value) {
  if (!value) return fail(std::move(value).error());
  to = *value;
  return {};
}

Status take_exclusive(Draft& draft, const std::string& text) {
  if (!text.empty()) return bad(fmt::format("takes no '{}' here: it is the whole node", text.substr(0, 80)));
  draft.out.spec.exclusive = true;
  return {};
}

Status take_nice(Draft& draft, const std::string& text) {
  draft.out.spec.nice = 100;  // as the manual says of --nice alone
  return text.empty() ? Status() : set(draft.out.spec.nice, count_in(text, -kMaxNice, kMaxNice));
}

Status take_nodes(Draft& draft, const std::string& text) {
  TH_TRY(draft.nodes, parse_count_range(text, kMaxRequestGpus));
  return {};
}

using Text = const std::string&;
struct Option {
  OptionForm form;
  Status (*take)(Draft&, const std::string&);  // null: taken, without any effect
};

constexpr Option kOptions[] = {
    {{"account", 'A', Value::kWanted}, [](Draft& d, Text v) { return take_name(d.out.spec.account, v); }},
    {{"array", 'a', Value::kWanted},
     [](Draft& d, Text v) { return take_text<parse_array>(d.out.spec.array, v); }},
    {{"begin", 'b', Value::kWanted},
     [](Draft& d, Text v) { return set(d.out.spec.begin_ns, parse_moment(v, d.now_ns)); }},
    {{"chdir", 'D', Value::kWanted}, [](Draft& d, Text v) { return d.out.spec.workdir = v, Status(); }},
    {{"constraint", 'C', Value::kWanted},
     [](Draft& d, Text v) { return take_text<parse_constraint>(d.out.spec.constraint, v); }},
    {{"deadline", 0, Value::kWanted},
     [](Draft& d, Text v) { return set(d.out.spec.deadline_ns, parse_moment(v, d.now_ns)); }},
    {{"dependency", 'd', Value::kWanted},
     [](Draft& d, Text v) { return take_text<parse_dependencies>(d.out.spec.dependency, v); }},
    {{"error", 'e', Value::kWanted}, [](Draft& d, Text v) { return d.out.spec.error = v, Status(); }},
    {{"exclude", 'x', Value::kWanted}, [](Draft& d, Text v) { return take_hosts(d.out.spec.exclude, v); }},
    {{"exclusive", 0, Value::kOptional}, take_exclusive},
    {{"export", 0, Value::kWanted}, [](Draft& d, Text v) { return d.out.exported = v, Status(); }},
    {{"gpus", 'G', Value::kWanted}, [](Draft& d, Text v) { return set(d.gpu_milli, gpu_count(d, v, true)); }},
    {{"gpus-per-node", 0, Value::kWanted},
     [](Draft& d, Text v) { return set(d.gpus_per_node, gpu_count(d, v, false)); }},
    {{"gres", 0, Value::kWanted}, take_gres},
    {{"job-name", 'J', Value::kWanted}, [](Draft& d, Text v) { return take_name(d.out.spec.name, v); }},
    {{"nice", 0, Value::kOptional}, take_nice},
    {{"no-requeue", 0, Value::kNone}, [](Draft& d, Text) { return d.out.spec.requeue = false, Status(); }},
    {{"nodelist", 'w', Value::kWanted}, [](Draft& d, Text v) { return take_hosts(d.out.spec.nodelist, v); }},
    {{"nodes", 'N', Value::kWanted}, take_nodes},
    {{"ntasks", 'n', Value::kWanted},
     [](Draft& d, Text v) { return set(d.ntasks, count_in(v, 1, kMaxRequestGpus)); }},
    {{"ntasks-per-node", 0, Value::kWanted},
     [](Draft& d, Text v) { return set(d.out.spec.ntasks_per_node, count_in(v, 1, 1024)); }},
    {{"output", 'o', Value::kWanted}, [](Draft& d, Text v) { return d.out.spec.output = v, Status(); }},
    {{"parsable", 0, Value::kNone}, [](Draft& d, Text) { return d.out.parsable = true, Status(); }},
    {{"partition", 'p', Value::kWanted}, take_partition},
    {{"priority", 0, Value::kWanted},
     [](Draft& d, Text v) { return set(d.out.spec.priority, count_in(v, 1, 4'294'967'294)); }},
    {{"qos", 'q', Value::kWanted}, [](Draft& d, Text v) { return take_name(d.out.spec.qos, v); }},
    {{"quiet", 'Q', Value::kNone}, [](Draft& d, Text) { return d.out.quiet = true, Status(); }},
    {{"requeue", 0, Value::kNone}, [](Draft& d, Text) { return d.out.spec.requeue = true, Status(); }},
    {{"reservation", 0, Value::kWanted},
     [](Draft& d, Text v) { return take_name(d.out.spec.reservation, v); }},
    {{"segment", 0, Value::kWanted},
     [](Draft& d, Text v) { return set(d.out.spec.segment, count_in(v, 1, kMaxRequestGpus)); }},
    {{"signal", 0, Value::kWanted},
     [](Draft& d, Text v) { return take_text<parse_end_signal>(d.out.spec.signal, v); }},
    {{"stack", 0, Value::kWanted}, [](Draft& d, Text v) { return d.out.spec.stack = v, Status(); }},
    {{"switches", 0, Value::kWanted}, take_switches},
    {{"test-only", 0, Value::kNone}, [](Draft& d, Text) { return d.out.test_only = true, Status(); }},
    {{"time", 't', Value::kWanted}, take_time},
    {{"wait", 'W', Value::kNone}, [](Draft& d, Text) { return d.out.wait = true, Status(); }},
    {{"wrap", 0, Value::kWanted}, [](Draft& d, Text v) { return d.out.wrap = v, Status(); }},
    // A node's cores and memory go with its GPUs; nobody is written to.
    {{"comment", 0, Value::kWanted}, nullptr},
    {{"cpus-per-gpu", 0, Value::kWanted}, nullptr},
    {{"cpus-per-task", 'c', Value::kWanted}, nullptr},
    {{"mail-type", 0, Value::kWanted}, nullptr},
    {{"mail-user", 0, Value::kWanted}, nullptr},
    {{"mem", 0, Value::kWanted}, nullptr},
    {{"mem-per-cpu", 0, Value::kWanted}, nullptr},
    {{"mem-per-gpu", 0, Value::kWanted}, nullptr},
};

const Option* find_option(std::string_view name) {
  const auto* found =
      std::ranges::find(kOptions, name, [](const Option& o) { return std::string_view(o.form.name); });
  return found == std::end(kOptions) ? nullptr : found;
}

/// GPUs, nodes and tasks from what was said of them.
Status settle_size(Draft& draft) {
  JobSpec& spec = draft.out.spec;
  const int64_t per_node = draft.gpus_per_node.value_or(0);
  if (draft.gpu_milli && *draft.gpu_milli < 1000) {
    if (per_node || draft.nodes.max > 1 || draft.ntasks.value_or(1) > 1) {
      return bad("--gpus: a part of a GPU is for one task on one node");
    }
    spec.gpu_milli = *draft.gpu_milli;
    return {};
  }
  const std::optional<int64_t> gpus = draft.gpu_milli ? std::optional(*draft.gpu_milli / 1000) : std::nullopt;
  CountRange nodes = draft.nodes;
  const int64_t tasks_per_node = spec.ntasks_per_node;
  if (nodes.max == 0 && gpus && per_node) nodes = {*gpus / per_node, *gpus / per_node};
  if (nodes.max == 0 && draft.ntasks && tasks_per_node) {
    nodes.min = nodes.max = (*draft.ntasks + tasks_per_node - 1) / tasks_per_node;
  }
  if (gpus && per_node &&
      (*gpus % per_node != 0 || *gpus / per_node < nodes.min || *gpus / per_node > nodes.max)) {
    return bad(fmt::format("--gpus {} and {} GPUs a node do not go together", *gpus, per_node));
  }
  const int64_t tasks_of_node = std::max<int64_t>(1, tasks_per_node);
  const int64_t min_tasks = draft.ntasks.value_or(std::max<int64_t>(1, nodes.min) * tasks_of_node);
  const int64_t max_tasks = draft.ntasks.value_or(std::max<int64_t>(1, nodes.max) * tasks_of_node);
  if (per_node && nodes.max == 0) nodes = {1, 1};
  auto gpus_on = [&](int64_t count, int64_t tasks) {
    return gpus ? *gpus : per_node ? per_node * count : std::max(tasks, count);
  };
  spec.gpus = gpus_on(nodes.max, max_tasks);
  const int64_t least = gpus_on(nodes.min, min_tasks);
  if (least < spec.gpus) spec.min_gpus = least;
  spec.min_nodes = nodes.min, spec.max_nodes = nodes.max, spec.gpus_per_node = per_node;
  spec.ntasks = draft.ntasks.value_or(tasks_per_node || nodes.max ? max_tasks : 0);
  if (nodes.min > spec.gpus)
    return bad(fmt::format("--nodes {}: with {} GPUs; a node gives one at least", nodes.min, spec.gpus));
  return {};
}

}  // namespace

std::span<const OptionForm> option_forms() {
  static const std::vector<OptionForm> forms = [] {
    std::vector<OptionForm> out;
    for (const Option& option : kOptions) out.push_back(option.form);
    return out;
  }();
  return forms;
}

Result<SbatchRequest> sbatch_request(std::span<const SbatchOption> options, int64_t now_ns) {
  Draft draft;
  draft.now_ns = now_ns;
  draft.out.spec.batch = true, draft.out.spec.retries = 0;
  for (const SbatchOption& given : options) {
    const Option* option = find_option(given.name);
    if (option == nullptr) return unknown_option(given.where, "--" + given.name);
    if (option->take == nullptr) {
      draft.out.notes.push_back(fmt::format("{}--{} changes nothing here", given.where, given.name));
      continue;
    }
    if (Status taken = option->take(draft, given.value); !taken) {
      return bad(fmt::format("{}--{}: {}", given.where, given.name, taken.error().message));
    }
  }
  TH_RETURN_IF_ERROR(settle_size(draft));
  JobSpec& spec = draft.out.spec;
  if (!draft.gpu_type.empty()) {
    const bool bare_or =
        spec.constraint.find('|') != std::string::npos && spec.constraint.find('&') == std::string::npos;
    const std::string before = bare_or ? "(" + spec.constraint + ")" : spec.constraint;
    spec.constraint = before.empty() ? draft.gpu_type : before + "&" + draft.gpu_type;
  }
  return std::move(draft.out);
}

Status set_script(JobSpec& spec, std::string_view text, std::span<const std::string> arguments) {
  if (text.size() > kMaxScriptBytes || text.find('\0') != std::string_view::npos) {
    return bad("the script is over 512 KiB or has a zero byte");
  }
  const std::string line(text.substr(0, std::min(text.find('\n'), text.size())));
  std::vector<std::string> interpreter;
  for (const std::string& word : split(line.starts_with("#!") ? line.substr(2) : "", ' ')) {
    if (word.find_first_not_of("\t\r") != std::string::npos)
      interpreter.push_back(word.substr(0, word.find_last_not_of("\t\r") + 1));
  }
  if (interpreter.empty()) return bad("the script's first line has to be '#!' and an interpreter");
  spec.command = std::move(interpreter);
  spec.command.emplace_back(kBatchFile);
  spec.command.insert(spec.command.end(), arguments.begin(), arguments.end());
  spec.files[kBatchFile] = text;
  return {};
}

}  // namespace th::request
