// What man sbatch and man squeue say of batch jobs, arrays, dependencies and steps is from
// https://slurm.schedmd.com.
#include "control/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "control/placing.h"
#include "control/test_world.h"
#include "request/sbatch.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;
using ledger::JobState;
using ledger::RankPlace;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class BatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "batch-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    w.emplace(dir_);
    w->ready_slice("demo", 8);  // four nodes of two GPUs
  }
  void TearDown() override {
    w.reset();
    fs::remove_all(dir_);
  }

  static request::JobSpec script(int64_t gpus) {
    request::JobSpec spec;
    spec.name = "train", spec.slice = "demo", spec.gpus = gpus, spec.batch = true, spec.retries = 0;
    EXPECT_TRUE(request::set_script(spec, "#!/bin/sh\n", {}));
    return spec;
  }
  std::string submit(const request::JobSpec& spec) {
    auto id = w->c->jobs.submit(spec, "batch");
    EXPECT_TRUE(id.has_value()) << (id ? "" : id.error().message);
    w->settle();
    return id.value_or("");
  }
  std::string refusal(const request::JobSpec& spec) {
    auto id = w->c->jobs.submit(spec, "batch");
    return id ? "none" : id.error().message;
  }
  /// Its ranks run, and end; nothing else moves.
  void end(const std::string& id, int exit_code) {
    w->report_job(id, node::TaskState::kRunning, {});
    w->report_job(id, node::TaskState::kExited, exit_code);
    w->settle();
  }
  JobState state(const std::string& id) { return w->job(id).state; }
  bool started(const std::string& id) { return w->job(id).attempt > 0; }
  std::string code(const std::string& id) {
    const Waiting* waiting = w->c->jobs.waiting(id);
    return waiting ? waiting->code : "";
  }
  void tick(int64_t ns) {
    w->pass(ns);
    w->settle();
  }

  fs::path dir_;
  std::optional<World> w;
};

TEST_F(BatchTest, AScriptRunsOnceAndHoldsItsOtherNodes) {
  const std::string id = submit(script(4));
  ASSERT_EQ(w->job(id).ranks.size(), 1u);
  EXPECT_EQ(w->job(id).ranks[0].place.gpus.size(), 2u);
  EXPECT_EQ(places_of(w->job(id)).size(), 2u);
  const std::string other = submit(script(6));
  EXPECT_FALSE(started(other)) << "two of four nodes are held, one of them without a rank";
  end(id, 0);
  EXPECT_EQ(state(id), JobState::kSucceeded);
  tick(kSecond);
  EXPECT_TRUE(started(other));
  end(other, 3);
  EXPECT_EQ(state(other), JobState::kFailed) << "a script that fails is not started again";
  EXPECT_EQ(w->job(other).attempt, 1);
}

TEST_F(BatchTest, ALostNodeOfItsStepsStartsItAgainUnlessItIsNotToBeRequeued) {
  request::JobSpec spec = script(4);
  const std::string again = submit(spec);
  spec.requeue = false;
  const std::string once = submit(spec);
  for (const std::string& id : {again, once}) {
    w->c->slices.node_down(w->job(id).reserved.at(0).vm, "process 1 is gone");
  }
  w->settle();
  for (const std::string& id : {again, once}) w->report_gone(id);
  w->settle();
  EXPECT_EQ(state(once), JobState::kFailed);
  EXPECT_EQ(w->job(once).cause, "node_fail");
  EXPECT_FALSE(w->job(again).ended());
  EXPECT_EQ(w->job(again).retries_used, 0);
}

TEST_F(BatchTest, AnArrayIsItsTasksAndKeepsToItsLimit) {
  request::JobSpec spec = script(1);
  spec.array = "3,5-7%2";
  const std::string first = submit(spec);
  std::vector<int64_t> indices;
  for (int i = 0; i < 4; ++i) {
    const auto& task = w->c->jobs.spec_of(w->job("job-" + std::to_string(1 + i)));
    EXPECT_EQ(task.array_job, first);
    indices.push_back(task.array_index);
  }
  EXPECT_THAT(indices, ElementsAre(3, 5, 6, 7));
  EXPECT_TRUE(started("job-1") && started("job-2"));
  EXPECT_FALSE(started("job-3") || started("job-4"));
  EXPECT_EQ(code("job-3"), "array_limit");
  end("job-2", 0);
  tick(kSecond);
  EXPECT_TRUE(started("job-3"));
  EXPECT_FALSE(started("job-4"));

  spec = script(1);
  spec.dependency = "afterany:1";
  const std::string all = submit(spec);
  spec.dependency = "afterany:1_5";
  const std::string one = submit(spec);
  EXPECT_EQ(code(all), "dependency") << "the array's number means all of its tasks";
  EXPECT_TRUE(started(one)) << "1_5 is job-2, which has ended";
}

TEST_F(BatchTest, DependenciesAreWaitedForOrNeverMet) {
  const std::string good = submit(script(1)), bad = submit(script(1));
  std::map<std::string, std::string> ids;
  for (const char* text : {"afterok:1", "afternotok:1", "afterany:1:2", "after:1", "after:1+10", "afterok:2",
                           "afterok:2?afterok:1", "afternotok:2", "singleton"}) {
    request::JobSpec spec = script(1);
    if (text == std::string("singleton")) spec.name = "other";
    spec.dependency = text;
    ids[text] = submit(spec);
  }
  EXPECT_TRUE(started(ids["after:1"])) << "it waits for the start only";
  EXPECT_TRUE(started(ids["singleton"])) << "nobody else has its name";
  for (const char* text : {"afterok:1", "afternotok:1", "afterany:1:2", "after:1+10", "afterok:2"}) {
    EXPECT_EQ(code(ids[text]), "dependency") << text;
  }
  EXPECT_THAT(w->c->jobs.waiting(ids["afterok:1"])->text, HasSubstr("waits for job-1 to end"));
  end(good, 0);
  end(bad, 1);
  tick(kSecond);
  for (const char* text : {"afterok:1", "afterany:1:2", "afterok:2?afterok:1", "afternotok:2"}) {
    EXPECT_TRUE(started(ids[text])) << text;
  }
  for (const char* text : {"afternotok:1", "afterok:2"}) {
    EXPECT_EQ(code(ids[text]), "dependency_never_satisfied") << text;
    EXPECT_EQ(state(ids[text]), JobState::kPending) << "as in Slurm it stays";
  }
  EXPECT_EQ(code(ids["after:1+10"]), "dependency");
  tick(10 * kMinute);
  EXPECT_TRUE(started(ids["after:1+10"]));

  request::JobSpec spec = script(1);
  spec.dependency = "afterok:99";
  EXPECT_THAT(refusal(spec), HasSubstr("job 'job-99' does not exist"));
}

TEST_F(BatchTest, SingletonsRunOneAfterTheOther) {
  request::JobSpec spec = script(1);
  spec.dependency = "singleton";
  const std::string first = submit(spec), second = submit(spec);
  EXPECT_TRUE(started(first));
  EXPECT_EQ(code(second), "dependency");
  end(first, 1);
  tick(kSecond);
  EXPECT_TRUE(started(second)) << "however the first one ended";
}

TEST_F(BatchTest, BeginAndDeadline) {
  request::JobSpec spec = script(1);
  spec.begin_ns = w->env.now_ns + 5 * kSecond;
  const std::string later = submit(spec);
  EXPECT_EQ(code(later), "begin_time");
  EXPECT_EQ(w->c->jobs.waiting(later)->estimated_start_ns, spec.begin_ns);
  tick(5 * kSecond);
  EXPECT_TRUE(started(later));

  spec = script(8);
  spec.deadline_ns = w->env.now_ns + kMinute, spec.duration_ns = 40 * kSecond;
  const std::string late = submit(spec);
  EXPECT_FALSE(started(late)) << "a GPU is in use";
  tick(19 * kSecond);
  EXPECT_FALSE(w->job(late).ended());
  tick(2 * kSecond);
  EXPECT_EQ(state(late), JobState::kFailed);
  EXPECT_EQ(w->job(late).cause, "deadline");
  spec.deadline_ns = w->env.now_ns + 39 * kSecond;
  EXPECT_THAT(refusal(spec), HasSubstr("it cannot end by then"));
}

TEST_F(BatchTest, ATimeLimitIsACauseAndASignalComesBefore) {
  request::JobSpec spec = script(1);
  spec.duration_ns = kMinute, spec.signal = "B:USR1@20";
  const std::string id = submit(spec);
  const std::string vm = w->job(id).ranks[0].place.vm;
  tick(39 * kSecond);
  EXPECT_EQ(w->task(vm, id).signal, 0);
  tick(2 * kSecond);
  EXPECT_EQ(w->task(vm, id).signal, 10);
  EXPECT_TRUE(w->task(vm, id).signal_leader_only);
  w->report_job(id, node::TaskState::kRunning, {});
  tick(20 * kSecond);
  EXPECT_EQ(w->job(id).cause, "timeout");
}

TEST_F(BatchTest, StepsShareWhatTheirScriptHasAndEndWithIt) {
  const std::string id = submit(script(4));
  w->report_job(id, node::TaskState::kRunning, {});
  w->settle();
  request::JobSpec step;
  step.name = "step", step.command = {"true"}, step.gpus = 2, step.ntasks = 2;
  auto first = w->c->jobs.submit_step(id, step);
  auto second = w->c->jobs.submit_step(id, step);
  auto third = w->c->jobs.submit_step(id, step);
  ASSERT_TRUE(first && second && third);
  w->settle();
  EXPECT_EQ(w->job(*first).ranks.size(), 2u);
  EXPECT_TRUE(started(*second));
  EXPECT_FALSE(started(*third)) << "four GPUs are for two steps of two";
  EXPECT_NE(w->job(*first).ranks[0].place.vm, w->job(*second).ranks[0].place.vm);
  EXPECT_EQ(w->c->jobs.spec_of(w->job(*third)).array_index, 2);
  end(*first, 0);
  tick(kSecond);
  EXPECT_TRUE(started(*third));
  EXPECT_EQ(w->job(*first).cost_microusd, 0) << "the script pays";

  step.gpus = 5;
  EXPECT_THAT(w->c->jobs.submit_step(id, step).error().message, HasSubstr("asks for 5 GPUs"));
  end(id, 0);
  w->report_gone(*second);
  w->report_gone(*third);
  w->settle();
  EXPECT_EQ(state(*third), JobState::kCancelled);
  EXPECT_EQ(state(id), JobState::kSucceeded);
  EXPECT_FALSE(w->c->jobs.submit_step(id, step)) << "it runs no more";
}

TEST_F(BatchTest, PartsOfAGpuShareIt) {
  request::JobSpec half = script(1), third = script(1), whole = script(7);
  half.gpu_milli = 500, third.gpu_milli = 334;
  std::vector<std::string> ids;
  for (const auto* spec : {&half, &third, &whole, &third, &half}) ids.push_back(submit(*spec));
  tick(2 * kSecond);
  auto gpu = [&](size_t i) {
    const RankPlace& place = w->job(ids[i]).ranks.at(0).place;
    return place.vm + ":" + std::to_string(place.gpus.at(0));
  };
  EXPECT_EQ(gpu(0), gpu(1));
  EXPECT_TRUE(started(ids[2])) << "seven of eight GPUs are whole";
  EXPECT_FALSE(started(ids[3]) || started(ids[4])) << "166 thousandths are left";
  end(ids[0], 0);
  tick(2 * kSecond);
  EXPECT_EQ(gpu(3), gpu(1)) << "834 thousandths in use, on the first one's GPU";
  EXPECT_FALSE(started(ids[4]));
  end(ids[1], 0);
  tick(2 * kSecond);
  EXPECT_EQ(gpu(4), gpu(3));
}

TEST_F(BatchTest, NodesAreAsManyAsWereAskedFor) {
  request::JobSpec spec = script(2);
  spec.min_nodes = spec.max_nodes = 2;
  const std::string two = submit(spec);
  EXPECT_EQ(places_of(w->job(two)).size(), 2u) << "though one node has two GPUs";
  spec = script(1);
  spec.exclusive = true;
  const std::string alone = submit(spec);
  EXPECT_EQ(places_of(w->job(alone)).at(0).gpus.size(), 2u);
  spec = script(1);
  const std::string vm = w->job(two).ranks[0].place.vm;
  spec.nodelist = {vm};
  EXPECT_EQ(w->job(submit(spec)).ranks.at(0).place.vm, vm);
  const std::string full = submit(spec);
  EXPECT_FALSE(started(full)) << "elsewhere there is room";
}

TEST_F(BatchTest, AnEstimateKeepsNothing) {
  const int64_t events = w->c->core.state().seq;
  auto now = w->c->jobs.estimate(script(4));
  ASSERT_TRUE(now && now->plan);
  EXPECT_EQ(now->plan->start_ns, w->env.now_ns);
  EXPECT_EQ(now->partition, "demo");
  EXPECT_EQ(w->c->core.state().seq, events);
  request::JobSpec long_one = script(8);
  long_one.duration_ns = 10 * kMinute;
  submit(long_one);
  request::JobSpec spec = script(2);
  spec.duration_ns = kMinute;
  auto later = w->c->jobs.estimate(spec);
  ASSERT_TRUE(later && later->plan);
  EXPECT_EQ(later->waiting.code, "busy");
  EXPECT_EQ(later->plan->start_ns, w->env.now_ns + 10 * kMinute);
  spec.dependency = "afterok:1";
  EXPECT_EQ(w->c->jobs.estimate(spec)->waiting.code, "dependency");
}

TEST(BatchLayout, TasksAreDealtOutOverNodesAndGpus) {
  const std::vector<RankPlace> places = {{"a", {0, 1, 2, 3}}, {"b", {4, 5, 6, 7}}};
  auto shape = [&](int64_t ntasks, int64_t per_node) {
    std::string out;
    const auto laid = lay_out(places, ntasks, per_node);
    for (const RankPlace& rank : *laid) {
      out += rank.vm + ":";
      for (int64_t gpu : rank.gpus) out += std::to_string(gpu);
      out += " ";
    }
    return out;
  };
  EXPECT_EQ(shape(2, 0), "a:0123 b:4567 ");
  EXPECT_EQ(shape(3, 0), "a:01 a:23 b:4567 ");
  EXPECT_EQ(shape(1, 0), "a:0123 ");
  EXPECT_EQ(shape(3, 2), "a:01 a:23 b:4567 ");
  EXPECT_EQ(shape(10, 0), "a:0 a:0 a:1 a:2 a:3 b:4 b:4 b:5 b:6 b:7 ");
  EXPECT_FALSE(lay_out(places, 5, 2));
}

TEST(BatchNaming, PatternsOfFiles) {
  ledger::Job job;
  job.submitted.job = "job-12", job.submitted.name = "train";
  request::JobSpec spec;
  EXPECT_EQ(expand_pattern("o-%j-%A_%a-%x-%N-%4j-%%-%q", job, spec, "n1"),
            "o-12-12_4294967294-train-n1-0012-%-%q");
  spec.array_job = "job-9", spec.array_index = 3;
  EXPECT_EQ(expand_pattern("%A_%2a.%t%n%s", job, spec, "n1"), "9_03.00batch");
  EXPECT_EQ(expand_pattern("\\%j", job, spec, "n1"), "%j") << "a backslash turns patterns off";
}

TEST_F(BatchTest, HostsAreChosenByNameAndFeature) {
  const fleet::Fleet& fleet = w->c->core.fleet();
  auto hosts = [&](const char* nodelist, const char* exclude, const char* constraint) {
    request::JobSpec spec;
    if (*nodelist) spec.nodelist = {nodelist};
    if (*exclude) spec.exclude = {exclude};
    spec.constraint = constraint;
    std::string out;
    for (int32_t host = 0; host < 4; ++host) {
      const std::string node = "demo-" + std::to_string(host);
      if (allows_host(fleet, spec, host, node)) out += fleet.host(host).id + " ";
    }
    return out;
  };
  EXPECT_EQ(hosts("l0r0h1", "", ""), "l0r0h1 ");
  EXPECT_EQ(hosts("demo-2", "", ""), "l1r0h0 ") << "a node is known by its VM too";
  EXPECT_EQ(hosts("", "l0r0h1", ""), "l0r0h0 l1r0h0 l1r0h1 ");
  EXPECT_EQ(hosts("", "", "local&l1"), "l1r0h0 l1r0h1 ") << "whatever the case";
  EXPECT_EQ(hosts("", "", "l0r0|l1r0"), "l0r0h0 l0r0h1 l1r0h0 l1r0h1 ");

  request::JobSpec spec = script(1);
  spec.exclude = {"l9"};
  EXPECT_THAT(refusal(spec), HasSubstr("node 'l9' does not exist"));
  spec.exclude.clear(), spec.constraint = "H100";
  EXPECT_THAT(refusal(spec), HasSubstr("feature 'H100' does not exist"));
}

}  // namespace
}  // namespace th::control
