// What one sees of a whole training: its trace, a rank that lags, a number that is not finite.

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/json.h"
#include "train/checkpoint.h"
#include "train/test_job.h"
#include "train/zero.h"

namespace th::train {
namespace {

struct Span {
  std::string name;
  double begin, end;
};

/// By rank and track.
std::map<std::pair<int, int>, std::vector<Span>> spans_of(const Json& events) {
  std::map<std::pair<int, int>, std::vector<Span>> spans;
  for (const Json& e : events) {
    if (e["ph"] != "X") continue;
    const double begin = e["ts"].get<double>();
    spans[{e["pid"].get<int>(), e["tid"].get<int>()}].push_back(
        {e["name"].get<std::string>(), begin, begin + e["dur"].get<double>()});
  }
  return spans;
}

size_t count(const std::vector<Span>& spans, std::string_view name) {
  return static_cast<size_t>(std::ranges::count(spans, name, &Span::name));
}

TEST(WatchSlow, ATraceHasWhatEachRankDidWhen) {
  Job job(2);
  job.recipe.steps = 6;
  job.recipe.checkpoint.every = 3;
  job.recipe.zero_stage = 3;
  job.recipe.trace = job.folder() / "trace.json";
  ASSERT_TRUE(job.run());
  auto spans = spans_of(parse_json(read_file(job.recipe.trace).value(), "trace").value());
  for (int rank : {0, 1}) {
    auto& compute = spans.at({rank, 1});
    const auto& collectives = spans.at({rank, 2});
    for (int step = 1; step <= 6; ++step) EXPECT_EQ(count(compute, "step " + std::to_string(step)), 1u);
    for (const char* name :
         {"data", "embedding", "forward layer 0", "forward layer 1", "head and loss", "backward layer 1",
          "backward layer 0", "embedding backward", "optimizer layer 1"}) {
      EXPECT_GE(count(compute, name), 6u) << name;
    }
    EXPECT_EQ(count(compute, "backward layer 0"), 6u);
    EXPECT_EQ(count(collectives, "reduce-scatter of layer 1"), 6u);
    EXPECT_GE(count(collectives, "all-gather of layer 1"), 6u);
    EXPECT_EQ(count(spans.at({rank, 3}), "checkpoint of step 3"), 1u);
    // A span of the computation lies within another or beside it, never across its end. Microseconds with
    // three decimals, of which a double has room for a hundredth.
    constexpr double kExact = 0.01;
    std::ranges::sort(compute, [](const Span& a, const Span& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
    });
    std::vector<Span> open;
    for (const Span& span : compute) {
      while (!open.empty() && open.back().end <= span.begin + kExact) open.pop_back();
      EXPECT_TRUE(open.empty() || span.end <= open.back().end + kExact)
          << span.name << " and " << open.back().name;
      open.push_back(span);
    }
    bool overlaps = false;
    for (const Span& c : collectives) {
      for (const Span& layer : compute) {
        const bool computes =
            layer.name.starts_with("forward layer") || layer.name.starts_with("backward layer");
        overlaps = overlaps || (computes && c.begin < layer.end && layer.begin < c.end);
      }
    }
    EXPECT_TRUE(overlaps) << "no collective beside the computation, rank " << rank;
  }
}

TEST(WatchSlow, ARankThatIsHeldUpIsNamedAsStraggler) {
  Job job(2);
  job.recipe.steps = 1'000'000;
  job.recipe.batch = 8;  // so that it computes more than it waits
  setenv("TH_NODE", "some-node", 1);
  const auto pids = job.start();
  unsetenv("TH_NODE");
  const auto text = [&] { return read_file(job.folder() / "metrics.jsonl").value_or(""); };
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  // From the first step on rank 1 runs a fifth of the time.
  bool is_named = false;
  while (!is_named && std::chrono::steady_clock::now() < until) {
    const bool has_begun = !text().empty();
    if (has_begun) kill(pids[1], SIGSTOP);
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    kill(pids[1], SIGCONT);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    is_named = text().find("\"straggler\"") != std::string::npos;
  }
  for (const pid_t pid : pids) kill(pid, SIGKILL);
  wait_gang(pids);
  ASSERT_TRUE(is_named);
  const std::string all = text();
  const size_t begin = all.find("{\"event\":\"straggler\"");
  const Json line = parse_json(all.substr(begin, all.find('\n', begin) - begin), "line").value();
  EXPECT_EQ(line["rank"], 1);
  EXPECT_EQ(line["node"], "some-node");
  EXPECT_GT(line["times_median"], 1.5);
}

/// Another checkpoint, one step on, like the newest but for a weight of rank 1 that is not a number.
bool poison(collective::Group& group, const Job& job, const model::ModelConfig& config, int64_t bad) {
  const model::ParameterLayout layout(config);
  const auto folder = job.folder() / "checkpoints";
  const auto manifest = parse_json(read_file(folder / "step-000005" / "manifest.json").value(), "manifest");
  auto zero = Zero<float>::create(group, layout, {.optimizer = job.recipe.optimizer}, 1).value();
  Checkpoints checkpoints(folder, 2, group, layout);
  auto meta = checkpoints.load_newest(get_string(*manifest, "fingerprint").value(), zero->state()).value();
  if (!meta) return false;
  ++meta->step;
  for (const StatePart& part : zero->share()) {
    if (bad >= part.begin && bad < part.begin + static_cast<int64_t>(part.weights.size()))
      part.weights[static_cast<size_t>(bad - part.begin)] = NAN;
  }
  return checkpoints.begin(*meta, zero->share()) && checkpoints.finish();
}

TEST(WatchSlow, ANumberThatIsNotFiniteEndsTheRunWithStepRankAndTensor) {
  Job job(2);
  job.recipe.steps = 5;
  job.recipe.checkpoint.every = 5;
  ASSERT_TRUE(job.run());
  model::ModelConfig config = job.recipe.model;
  config.vocab_size = job.recipe.data.vocab_size;
  const model::ParameterLayout layout(config);
  const int64_t bad = layout.layers[1].down + config.hidden_size * config.intermediate_size - 1;
  ASSERT_TRUE(run_gang(2, [&](collective::Group& group) { return poison(group, job, config, bad); }));
  job.recipe.steps = 10;
  EXPECT_TRUE(run_gang(2, [&](collective::Group& group) {
    const auto result = train(job.recipe, group, {.job_folder = job.folder(), .metrics_file = {}});
    if (result) return false;
    const std::string& text = result.error().message;
    return text.find("step 7: the loss of rank 0 is not finite") != text.npos &&
           text.find("weights of model.layers.1.mlp.down_proj.weight (rank 1)") != text.npos;
  }));
}

}  // namespace
}  // namespace th::train
