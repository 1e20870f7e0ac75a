#include "train/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/text.h"
#include "base/units.h"
#include "train/test_gang.h"
#include "train/trace.h"

namespace th::train {
namespace {

TEST(StragglerWatch, NamesARankThatIsLateThreeTimesInARowAndOnlyOnce) {
  StragglerWatch watch;
  const std::vector<float> late = {1.0f, 1.1f, 1.7f, 0.9f}, even = {1.0f, 1.1f, 1.4f, 0.9f};
  EXPECT_FALSE(watch.add(late));
  EXPECT_FALSE(watch.add(late));
  EXPECT_FALSE(watch.add(even));  // 1.4 is within 1.5 times the lower median, 1.0
  EXPECT_FALSE(watch.add(late));
  EXPECT_FALSE(watch.add(late));
  EXPECT_EQ(watch.add(late), 2u);
  EXPECT_FALSE(watch.add(late));  // was told
  EXPECT_FALSE(watch.add(even));
  EXPECT_FALSE(watch.add(late));
  EXPECT_FALSE(watch.add(late));
  EXPECT_EQ(watch.add(late), 2u);  // again, after it had caught up
}

TEST(StragglerWatch, OneOfTwoCanBeLate) {
  StragglerWatch watch;
  const std::vector<float> two = {3.f, 1.f}, one = {5.f};
  EXPECT_FALSE(watch.add(two));
  EXPECT_FALSE(watch.add(two));
  EXPECT_EQ(watch.add(two), 0u);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(StragglerWatch().add(one));
}

TEST(LossWatch, NamesAJumpOnceAndNotTheWayDown) {
  LossWatch watch;
  // From 7 to 2 with noise of ±0.1 that repeats: nothing to tell.
  double loss = 0;
  for (int step = 0; step < 500; ++step) {
    loss = 2 + 5 * std::exp(-step / 60.0) + 0.1 * std::sin(step * 12.9898);
    EXPECT_FALSE(watch.add(loss)) << step << " " << loss;
  }
  const auto expected = watch.add(4.5);
  ASSERT_TRUE(expected);
  EXPECT_NEAR(*expected, 2, 0.1);
  EXPECT_FALSE(watch.add(4.4));  // the same jump
  EXPECT_FALSE(watch.add(2.0));
  EXPECT_TRUE(watch.add(4.5));  // another one
}

TEST(LossWatch, SaysNothingBeforeItKnowsWhatToExpect) {
  LossWatch watch;
  for (double loss : {7.0, 9.0, 6.0, 30.0, 5.0}) EXPECT_FALSE(watch.add(loss));
}

TEST(Progress, WritesWhatAStepTookAndWhatLooksWrong) {
  TemporaryFolder folder;
  const std::string path = folder.path() / "m.jsonl";
  {
    Metrics metrics(path);
    Progress progress({.steps = 30,
                       .first_step = 0,
                       .tokens_per_step = 100,
                       .flop_per_token = 6e6,
                       .peak_flop_per_s = 1e18,
                       .nodes = {"n1", "n2"}},
                      metrics);
    for (int64_t i = 1; i <= 30; ++i) {
      Progress::Step step = {.number = i, .learning_rate = 0.1};
      step.stats = {.loss = i == 25 ? 9.f : 2.f, .grad_norm = 0.5, .busy_s = {0.1f, 0.4f}};
      step.times = {.compute_ns = 3'000'000,
                    .optimizer_ns = 2'000'000,
                    .waited_ns = 1'000'000,
                    .collective_ns = 4'000'000};
      step.data_ns = 500'000;
      progress.add(step, i >= 28);  // reports at 1, 28, 29 and 30
    }
  }
  std::vector<Json> lines;
  for (const std::string& line : split(read_file(path).value(), '\n'))
    if (!line.empty()) lines.push_back(parse_json(line, "line").value());
  const auto of = [&](const std::string& event) {
    std::vector<Json> found;
    for (const Json& line : lines)
      if (line["event"] == event) found.push_back(line);
    return found;
  };
  const auto reports = of("progress"), spikes = of("loss_spike"), stragglers = of("straggler");
  ASSERT_EQ(reports.size(), 4u);
  const Json& second = reports[1];  // of 27 steps
  EXPECT_EQ(second["step"], 28);
  EXPECT_EQ(second["grad_norm"], 0.5);
  EXPECT_EQ(second["compute_ms"], 3.0);
  EXPECT_EQ(second["optimizer_ms"], 2.0);
  EXPECT_EQ(second["waited_ms"], 1.0);
  EXPECT_EQ(second["collective_ms"], 4.0);
  EXPECT_EQ(second["data_ms"], 0.5);
  EXPECT_GT(second["memory_bytes"], 1 << 20);
  EXPECT_GE(second["peak_memory_bytes"], second["memory_bytes"]);
  ASSERT_EQ(spikes.size(), 1u);
  EXPECT_EQ(spikes[0]["step"], 25);
  EXPECT_EQ(spikes[0]["loss"], 9.0);
  EXPECT_EQ(spikes[0]["expected"], 2.0);
  ASSERT_EQ(stragglers.size(), 1u);  // three reports of it in a row: 1, 28, 29
  EXPECT_EQ(stragglers[0]["step"], 29);
  EXPECT_EQ(stragglers[0]["rank"], 1);
  EXPECT_EQ(stragglers[0]["node"], "n2");
  EXPECT_EQ(stragglers[0]["times_median"], 4.0);
}

TEST(Progress, ThePeakIsThatOfAllRanksAndNodesHaveNames) {
  EXPECT_TRUE(run_gang(2, [](collective::Group& group) {
    setenv("TH_NODE", group.rank() == 0 ? "left" : "right", 1);
    const auto names = node_names(group);
    const auto peak = measure_peak_flop_per_s(group, Dtype::kFloat32);
    collective::Group alone;
    const auto one = measure_peak_flop_per_s(alone, Dtype::kFloat32);
    return names && *names == std::vector<std::string>{"left", "right"} && peak && one && *one > 1e8 &&
           *peak > *one / 2;
  }));
}

TEST(Trace, ManyThreadsAndRanksGiveOneFileOfJson) {
  TemporaryFolder folder;
  const auto file = folder.path() / "trace.json";
  const int64_t second = Env::real().unix_ns() / kSecond;
  for (int rank = 0; rank < 2; ++rank) {
    Trace trace(file, rank, "n\"1", second);
    const int64_t now = Trace::now_ns();
    trace.span(Trace::Track::kCompute, "forward layer 0", now - 2'500, now);
    trace.span(Trace::Track::kCollectives, "all-gather", now - 1'000);
    ASSERT_TRUE(trace.close());
  }
  EXPECT_EQ(merge_traces(file, 3).error().code, Code::kNotFound);
  ASSERT_TRUE(merge_traces(file, 2));
  const Json events = parse_json(read_file(file).value(), "trace").value();
  ASSERT_EQ(events.size(), 2 * (4 + 2));
  EXPECT_EQ(events[0]["args"]["name"], "rank 0 on n\"1");
  EXPECT_EQ(events[4]["name"], "forward layer 0");
  EXPECT_EQ(events[4]["dur"], 2.5);
  EXPECT_EQ(events[6]["pid"], 1);
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "trace-rank0.json"));
}

}  // namespace
}  // namespace th::train
