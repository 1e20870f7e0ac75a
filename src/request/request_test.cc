#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/units.h"
#include "request/job_spec.h"
#include "request/slice_spec.h"

namespace th::request {
namespace {

constexpr const char* kSlice = "name: demo\ngpus: 4\nseries: LOCAL\ntime: 1h\n";
constexpr const char* kRecipe =
    "name: llama-small\ngpus: 4\nslice: demo\nregister: llama-small\ntrain:\n  steps: 10\n";

template <class T>
std::string message_of(const Result<T>& result) {
  EXPECT_FALSE(result.has_value());
  if (result) return "";
  EXPECT_EQ(result.error().code, Code::kInvalidArgument);
  return result.error().message;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(SliceSpecTest, ReadsYaml) {
  auto spec = parse_slice_spec(std::string(kSlice) + "max_price: 1.25\n", "s.yaml");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_EQ(*spec, (SliceSpec{"demo", 4, "LOCAL", kHour, 0, 1'250'000}));
}

TEST(SliceSpecTest, YamlRefusalsNameLineAndKey) {
  struct Case {
    const char *from, *to, *says;
  };
  const Case cases[] = {
      {"gpus: 4", "gpu: 4", "s.yaml:2: gpu: unknown key, did you mean 'gpus'?"},
      {"gpus: 4", "gpus: 0", "s.yaml:2: gpus: want 1 to 1000000, got 0"},
      {"gpus: 4", "gpus: four", "s.yaml:2: gpus: want an integer, got 'four'"},
      {"LOCAL", "LOCA", "s.yaml:3: series: series 'LOCA' is not in the catalogue, did you mean 'LOCAL'?"},
      {"1h", "100ms", "s.yaml:4: time: want 1s to 365d, got 100ms"},
      {"time: 1h\n", "", "s.yaml:1: time: is missing"},
  };
  for (const Case& c : cases) {
    std::string message = message_of(parse_slice_spec(replaced(kSlice, c.from, c.to), "s.yaml"));
    EXPECT_TRUE(message.starts_with(c.says)) << message;
  }
}

TEST(SliceSpecTest, JsonGoesThereAndBack) {
  SliceSpec spec{"demo", 4, "LOCAL", kHour, 77, 5};
  EXPECT_EQ(slice_spec_from_json(to_json(spec)).value(), spec);
  spec.start_ns = 0;
  spec.max_microusd_per_gpu_hour.reset();
  EXPECT_EQ(slice_spec_from_json(to_json(spec)).value(), spec);
}

TEST(SliceSpecTest, JsonRefusalsNameTheField) {
  Json body = to_json(SliceSpec{"demo", 4, "LOCAL", kHour, 0, {}});
  auto with = [&](const char* field, Json value) {
    Json changed = body;
    changed[field] = std::move(value);
    return message_of(slice_spec_from_json(changed));
  };
  EXPECT_EQ(with("duration_s", 5), "unknown field 'duration_s', did you mean 'duration_ns'?");
  EXPECT_EQ(with("gpus", "4"), "field 'gpus': want an integer, got string");
  EXPECT_EQ(with("gpus", -1), "field 'gpus': want 1 to 1000000, got -1");
  EXPECT_EQ(with("start_ns", -1).substr(0, 17), "field 'start_ns':");
  EXPECT_EQ(with("name", "a b").substr(0, 13), "field 'name':");
  EXPECT_EQ(message_of(slice_spec_from_json(Json::array())), "want a JSON object, got array");
}

// ND_A100_v4 has 8 GPUs a host.
TEST(SliceSpecTest, SizesPlacesAndLimits) {
  auto spec = parse_slice_spec(
      "name: big\nnodes: 4\nmin_nodes: 2\nseries: ND_A100_v4\ntime: 1h\nstart: now+1hour\ndeadline: "
      "now+3hours\n"
      "spares: 1\nspread: true\nswitches: 2\nsegment: 2\nspot: true\nbudget: 100.5\n",
      "s.yaml", 7 * kHour);
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_EQ(spec->gpus, 32);
  EXPECT_EQ(spec->min_gpus, 16);
  EXPECT_EQ(spec->start_ns, 8 * kHour);
  EXPECT_EQ(spec->deadline_ns, 10 * kHour);
  EXPECT_TRUE(spec->spread && spec->spot);
  EXPECT_EQ(spec->spares * 100 + spec->max_switches * 10 + spec->segment, 122);
  EXPECT_EQ(spec->budget_microusd, 100'500'000);
  EXPECT_EQ(slice_spec_from_json(to_json(*spec)).value(), *spec);

  Json body = to_json(SliceSpec{"demo", 4, "LOCAL", kHour, 0, {}});
  body.erase("gpus");
  EXPECT_EQ(message_of(slice_spec_from_json(body)), "field 'gpus' is missing ('nodes' in its place is fine)");
  body["nodes"] = 3;
  EXPECT_EQ(slice_spec_from_json(body)->gpus, 6);
  body["gpus"] = 6;
  EXPECT_EQ(message_of(slice_spec_from_json(body)), "fields 'gpus' and 'nodes': give one of them");
  body.erase("nodes");
  body["min_gpus"] = 7;
  EXPECT_EQ(message_of(slice_spec_from_json(body)), "field 'min_gpus': 7 is over gpus, 6");
  body["min_gpus"] = 2;
  body["deadline_ns"] = kHour - 1;
  EXPECT_EQ(message_of(slice_spec_from_json(body)),
            "field 'deadline_ns': 1h of time do not fit between start and deadline");
}

// ND_A100_v4 has 8 GPUs a host, LOCAL 2.
TEST(AdmissionTest, CountsWholeHosts) {
  EXPECT_EQ(whole_host_gpus(3, "LOCAL"), 4);
  EXPECT_EQ(whole_host_gpus(4, "LOCAL"), 4);
  EXPECT_EQ(whole_host_gpus(9, "ND_A100_v4"), 16);
}

TEST(AdmissionTest, QuotaIsUpToAndWithItsLimit) {
  SliceSpec spec{"demo", 3, "LOCAL", kHour, 0, {}};  // comes to 4 GPUs
  EXPECT_TRUE(admit(spec, {}, {1'000'000, 0}).has_value());
  EXPECT_TRUE(admit(spec, {.max_gpus = 6, .budget_microusd = {}}, {2, 0}).has_value());
  auto refused = admit(spec, {.max_gpus = 5, .budget_microusd = {}}, {2, 0});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_EQ(refused.error().message,
            "quota: 'demo' wants 4 GPUs beside 2 in use, and the quota is 5 at once");
}

TEST(AdmissionTest, BudgetIsUpToAndWithItsLimit) {
  SliceSpec spec{"demo", 4, "LOCAL", kHour, 0, {}};  // 4 GPU-hours at $0.10
  EXPECT_TRUE(admit(spec, {.max_gpus = {}, .budget_microusd = 500'000}, {0, 100'000}).has_value());
  auto refused = admit(spec, {.max_gpus = {}, .budget_microusd = 500'000}, {0, 100'001});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_EQ(
      refused.error().message,
      "budget: 'demo' would cost $0.400000 beside $0.100001 spent or promised, and the budget is $0.500000");
}

TEST(JobSpecTest, TrainSectionMakesATrainingJob) {
  auto spec = parse_job_recipe(kRecipe, "r.yaml", "/recipes/train");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_EQ(spec->name, "llama-small");
  EXPECT_EQ(spec->gpus, 4);
  EXPECT_EQ(spec->slice, "demo");
  EXPECT_EQ(spec->register_as, "llama-small");
  EXPECT_EQ(spec->retries, 2);
  EXPECT_EQ(spec->command, (std::vector<std::string>{"th-train", "run", "recipe.yaml"}));
  EXPECT_EQ(spec->files, (std::map<std::string, std::string>{{"recipe.yaml", kRecipe}}));
}

TEST(JobSpecTest, TheDataSetOfATrainingIsTheJobs) {
  const auto data_of = [](const std::string& rest) {
    auto spec = parse_job_recipe("name: t\n" + rest, "r.yaml", "/r");
    return spec ? spec->data : spec.error().message;
  };
  EXPECT_EQ(data_of("train: {data: {set: code@2}}\n"), "code@2");
  EXPECT_EQ(data_of("command: [ls]\ndata: code\n"), "code");
  EXPECT_EQ(data_of("train: {data: {text: t.txt}}\n"), "");
  EXPECT_EQ(data_of("train: {data: 7}\n"), "");  // th-train says what is wrong there
  EXPECT_NE(data_of("command: [ls]\ndata: ../code\n").find("data"), std::string::npos);
}

TEST(JobSpecTest, CommandRecipe) {
  auto spec = parse_job_recipe(
      "name: t\ncommand: [python3, train.py]\nenv: {SEED: 7}\nworkdir: /data\nretries: 0\ntime: 30m\nmemory: "
      "2GiB\n"
      "stage: {data/a.txt: ../data/a.txt, data/b.txt: /abs/b.txt}\n",
      "r.yaml", "/recipes/train");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_EQ(spec->gpus, 1);
  EXPECT_EQ(spec->command, (std::vector<std::string>{"python3", "train.py"}));
  EXPECT_EQ(spec->env.at("SEED"), "7");
  EXPECT_EQ(spec->workdir, "/data");
  EXPECT_EQ(spec->retries, 0);
  EXPECT_EQ(spec->duration_ns, 30 * kMinute);
  EXPECT_EQ(spec->memory_bytes, int64_t{2} << 30);
  EXPECT_EQ(spec->stage.at("data/a.txt"), "/recipes/data/a.txt");
  EXPECT_EQ(spec->stage.at("data/b.txt"), "/abs/b.txt");
  EXPECT_TRUE(spec->files.empty());
}

TEST(JobSpecTest, YamlRefusalsNameLineAndKey) {
  struct Case {
    const char *from, *to, *says;
  };
  const Case cases[] = {
      {"gpus: 4", "gpsu: 4", "r.yaml:2: gpsu: unknown key, did you mean 'gpus'?"},
      {"slice: demo", "retries: -1", "r.yaml:3: retries: want 0 to 1000, got -1"},
      {"slice: demo", "memory: 5", "r.yaml:3: memory: want 1048576 to"},
      {"slice: demo", "memory: lots", "r.yaml:3: memory: "},
      {"slice: demo", "stage: {../x: /y}",
       "r.yaml:3: stage: '../x' must be a path inside of the job's folder"},
      {"slice: demo", "stage: {a: ''}", "r.yaml:3: stage: a: want an absolute path"},
      {"slice: demo", "stage: {recipe.yaml: /y}", "r.yaml:3: stage: 'recipe.yaml' is among the files too"},
      {"slice: demo", "workdir: here", "r.yaml:3: workdir: want an absolute path, got 'here'"},
      {"slice: demo", "env: {1X: a}", "r.yaml:3: env: '1X' cannot name a variable"},
      {"slice: demo", "command: []", "r.yaml:3: command: is empty: say what to run"},
      {"slice: demo", "command: run", "r.yaml:3: command: want a list"},
      {"train:\n  steps: 10\n", "", "r.yaml:1: command: is missing"},
  };
  for (const Case& c : cases) {
    std::string message = message_of(parse_job_recipe(replaced(kRecipe, c.from, c.to), "r.yaml", "/r"));
    EXPECT_TRUE(message.starts_with(c.says)) << message;
  }
}

TEST(JobSpecTest, JsonGoesThereAndBack) {
  JobSpec spec;
  spec.name = "t";
  spec.command = {"true"};
  EXPECT_EQ(job_spec_from_json(to_json(spec)).value(), spec);
  spec.slice = "demo";
  spec.gpus = 8;
  spec.env = {{"A", "b"}};
  spec.workdir = "/w";
  spec.retries = 5;
  spec.duration_ns = kMinute;
  spec.memory_bytes = 1 << 20;
  spec.files = {{"recipe.yaml", "x"}};
  spec.stage = {{"data/x.txt", "/abs/x.txt"}};
  spec.register_as = "m";
  EXPECT_EQ(job_spec_from_json(to_json(spec)).value(), spec);
}

TEST(JobSpecTest, OptionsAreCheckedTogether) {
  auto says = [](auto change) {
    JobSpec spec;
    spec.name = "t", spec.command = {"true"}, spec.gpus = 8;
    change(spec);
    auto status = validate(spec);
    return status ? std::string("fine") : status.error().message;
  };
  EXPECT_EQ(says([](JobSpec& s) { s.min_nodes = s.max_nodes = 2, s.gpus_per_node = 4, s.ntasks = 8; }),
            "fine");
  EXPECT_EQ(says([](JobSpec& s) { s.gpus_per_node = 3; }),
            "field 'gpus_per_node': 3 GPUs a node do not come to 8 GPUs on 2 nodes");
  EXPECT_EQ(says([](JobSpec& s) { s.ntasks = 64; }), "fine");
  EXPECT_EQ(says([](JobSpec& s) { s.ntasks = 65; }), "field 'ntasks': 65 tasks are over 8 on each of 8 GPUs");
  EXPECT_EQ(says([](JobSpec& s) { s.min_nodes = 3, s.max_nodes = 2; }),
            "field 'max_nodes': 2 is under min_nodes, 3");
  EXPECT_EQ(says([](JobSpec& s) { s.gpu_milli = 250; }),
            "field 'gpu_milli': a part of a GPU is for a job of one task; ask for whole GPUs");
  EXPECT_EQ(says([](JobSpec& s) { s.gpus = 1, s.gpu_milli = 250; }), "fine");
  EXPECT_EQ(says([](JobSpec& s) { s.qos = "a b"; }).substr(0, 12), "field 'qos':");
  EXPECT_EQ(says([](JobSpec& s) { s.exclude = {"-"}; }).substr(0, 16), "field 'exclude':");
  EXPECT_EQ(says([](JobSpec& s) { s.signal = "USR9"; }).substr(0, 15), "field 'signal':");
}

TEST(JobSpecTest, MoreEntriesThanANodeTakesAreRefused) {
  JobSpec spec;
  spec.name = "many", spec.gpus = 1, spec.command.assign(900, "x");
  EXPECT_TRUE(validate(spec));
  spec.command.push_back("x");
  EXPECT_EQ(validate(spec).error().message, "field 'command': has 901 entries; at most 900 are taken");
  spec.command.resize(1);
  for (int i = 0; i <= 900; ++i) spec.env["V" + std::to_string(i)] = "";
  EXPECT_FALSE(validate(spec));
}

TEST(JobSpecTest, JsonRefusalsNameTheField) {
  JobSpec spec;
  spec.name = "t";
  spec.command = {"true"};
  auto with = [&](const char* field, Json value) {
    Json changed = to_json(spec);
    changed[field] = std::move(value);
    return message_of(job_spec_from_json(changed));
  };
  EXPECT_EQ(with("comand", 1), "unknown field 'comand', did you mean 'command'?");
  EXPECT_EQ(with("command", "true"), "field 'command': want a list of strings");
  EXPECT_EQ(with("command", Json::array()), "field 'command': is empty: say what to run");
  EXPECT_EQ(with("env", Json::array()), "field 'env': want an object of strings, got array");
  EXPECT_EQ(with("env", {{"A", 1}}), "field 'env': 'A': want a string, got number");
  EXPECT_EQ(with("files", {{"/etc/passwd", "x"}}).substr(0, 15), "field 'files': ");
  EXPECT_EQ(with("files", {{"a/../../b", "x"}}).substr(0, 15), "field 'files': ");
  EXPECT_EQ(with("stage", {{"a", "b"}}), "field 'stage': a: want an absolute path to copy from, got 'b'");
  EXPECT_EQ(with("command", {std::string("a\0b", 3)}),
            "field 'command': an argument has a zero byte or over 128 KiB");
}

}  // namespace
}  // namespace th::request
