// Whole trainings: the same at any world size, to the bit on a rerun and over kills, and on a disk that fills
// up.

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <fstream>
#include <map>
#include <thread>

#include "base/files.h"
#include "model/safetensors.h"
#include "train/checkpoint.h"
#include "train/test_job.h"
#include "train/trainer.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;

TEST(TrainSlow, AnyNumberOfRanksLearnsTheSame) {
  std::map<int, Job> jobs;
  for (int world : {1, 2, 4}) ASSERT_TRUE(jobs.try_emplace(world, world).first->second.run());
  const auto plain =
      model::SafetensorsFile::open(jobs.at(1).folder() / "model" / "model.safetensors").value();
  for (int world : {2, 4}) {
    const auto other =
        model::SafetensorsFile::open(jobs.at(world).folder() / "model" / "model.safetensors").value();
    ASSERT_EQ(other.tensors().size(), plain.tensors().size());
    for (const model::SafeTensor& tensor : plain.tensors()) {
      const model::SafeTensor* same = other.find(tensor.name);
      ASSERT_TRUE(same != nullptr && same->shape == tensor.shape) << tensor.name;
      const auto *a = reinterpret_cast<const float*>(tensor.data.data()),
                 *b = reinterpret_cast<const float*>(same->data.data());
      float worst = 0;
      for (int64_t i = 0; i < tensor.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
      EXPECT_LT(worst, 2e-3) << tensor.name << ", " << world
                             << " ranks";  // a weight moves by up to 0.15 here
    }
  }
}

TEST(TrainSlow, EachZeroStageAndRecomputeGivesTheSameBits) {
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBf16}) {
    std::string want;
    for (int stage = 0; stage <= 3; ++stage) {
      Job job(2);
      job.recipe.dtype = dtype;
      job.recipe.optimizer.min_lr_share = 1;  // the same after 20 steps, whether of 20 or of 40
      job.recipe.zero_stage = stage;
      if (stage == 3) {
        job.recipe.offload = job.folder(), job.recipe.recompute = model::Recompute::kFull;
        job.recipe.checkpoint.every = 10;
        job.recipe.steps = 20;
        ASSERT_TRUE(job.run());  // and goes on from its checkpoint
        job.recipe.steps = 40;
      }
      ASSERT_TRUE(job.run());
      if (stage == 0) want = job.weights();
      EXPECT_TRUE(job.weights() == want) << stage;
    }
  }
}

double number_in(const std::string& metrics, const std::string& key) {
  return std::stod(metrics.substr(metrics.rfind("\"" + key + "\":") + key.size() + 3));
}
double first_loss_of(const Job& job) { return number_in(job.metrics(), "first_loss"); }
double last_loss_of(const Job& job) { return number_in(job.metrics(), "last_loss"); }

TEST(TrainSlow, MicroBatchesLearnAsOneBatch) {
  std::map<int64_t, double> losses;
  for (const int64_t micro : {1, 2, 4}) {
    Job job(1);
    job.recipe.micro_batches = micro;
    job.recipe.batch = 4 / micro;
    job.recipe.zero_stage = 2;
    ASSERT_TRUE(job.run());
    losses[micro] = last_loss_of(job);
  }
  EXPECT_NEAR(losses[2], losses[1], 2e-3);
  EXPECT_NEAR(losses[4], losses[1], 2e-3);
}

TEST(TrainSlow, GoesOnFromAModelWholeOrWithAdapters) {
  for (const model::Family family : {model::Family::kLlama, model::Family::kGpt2}) {
    Job base(1);
    base.recipe.model.family = family;
    if (family == model::Family::kGpt2) base.recipe.model.num_key_value_heads = 4;
    base.recipe.steps = 120;
    ASSERT_TRUE(base.run());
    for (const int64_t rank : {0, 4}) {
      Job tuned(2);
      tuned.recipe.from = base.folder() / "model";
      tuned.recipe.lora.rank = rank;
      tuned.recipe.steps = 20;
      ASSERT_TRUE(tuned.run());
      EXPECT_LT(first_loss_of(tuned), first_loss_of(base) - 1) << "it did not begin with what was learned";
      EXPECT_NE(tuned.weights(), base.weights());
      EXPECT_EQ(tuned.weights().size(), base.weights().size());
    }
  }
}

TEST(TrainSlow, ARerunGivesTheSameBits) {
  Job first(2), second(2);
  ASSERT_TRUE(first.run() && second.run());
  EXPECT_EQ(first.weights(), second.weights());
  Job other(2);
  other.recipe.seed = 2;
  ASSERT_TRUE(other.run());
  EXPECT_NE(first.weights(), other.weights());
}

TEST(TrainSlow, KilledAndResumedEndsInTheSameBits) {
  Job straight(2), killed(2);
  straight.recipe.steps = killed.recipe.steps = 150;
  killed.recipe.checkpoint.every = 1;  // nearly always in the middle of one
  ASSERT_TRUE(straight.run());
  for (int kills = 0; kills < 4; ++kills) {
    const auto newest = list_checkpoints(killed.folder() / "checkpoints");
    const auto pids = killed.start();
    // At least a few steps further than the last time, then at any instant.
    const int64_t from = newest.empty() ? 0 : newest[0];
    for (int tries = 0; tries < 3000; ++tries) {
      const auto now = list_checkpoints(killed.folder() / "checkpoints");
      if (!now.empty() && now[0] > from + 3) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(1300 * kills));
    kill(pids[kills % 2], SIGKILL);
    EXPECT_FALSE(wait_gang(pids));  // the other one notices and ends by itself
  }
  ASSERT_TRUE(killed.run());
  EXPECT_EQ(killed.weights(), straight.weights());
  EXPECT_NE(killed.metrics().find("\"event\":\"resume\""), std::string::npos);
  auto result_of = [](const Job& job) {  // from first_loss up to tokens_per_s, which is another on every run
    const std::string all = job.metrics();
    const size_t begin = all.find("{\"event\":\"result\"");
    return all.substr(begin, all.find("\"tokens_per_s\"", begin) - begin);
  };
  EXPECT_EQ(result_of(killed), result_of(straight));
}

std::atomic<bool> told_to_stop{false};  // of one rank's process

TEST(TrainSlow, ToldToStopAllRanksSaveTheSameStepAndNothingIsLost) {
  Job straight(2), stopped(2);
  straight.recipe.steps = stopped.recipe.steps = 150;  // and no checkpoint of its own accord
  ASSERT_TRUE(straight.run());
  // As th-train does: taken by a thread of its own, blocked in those that compute.
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, nullptr);
  const auto run = [&](bool in_parts) {
    return start_gang(2, [&stopped, &term, in_parts](collective::Group& group) {
      std::thread([&term] {
        int number = 0;
        if (sigwait(&term, &number) == 0) told_to_stop = true;
      }).detach();
      const auto result = train(stopped.recipe, group,
                                {.job_folder = stopped.folder(),
                                 .metrics_file = stopped.folder() / "metrics.jsonl",
                                 .stop = &told_to_stop});
      return in_parts ? !result && result.error().code == Code::kCancelled : result.has_value();
    });
  };
  for (int stops = 0; stops < 2; ++stops) {
    const auto lines = [&] {
      const auto text = read_file(stopped.folder() / "metrics.jsonl");
      return text ? std::count(text->begin(), text->end(), '\n') : 0;
    };
    const auto before = lines();
    const auto pids = run(true);
    for (int tries = 0; tries < 3000 && lines() == before; ++tries)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    kill(pids[stops], SIGTERM);  // one of the two
    EXPECT_TRUE(wait_gang(pids));
    EXPECT_EQ(list_checkpoints(stopped.folder() / "checkpoints").size(), static_cast<size_t>(stops) + 1);
  }
  const bool ended = wait_gang(run(false));
  pthread_sigmask(SIG_UNBLOCK, &term, nullptr);
  ASSERT_TRUE(ended);
  EXPECT_EQ(stopped.weights(), straight.weights());
  const int64_t saved = list_checkpoints(stopped.folder() / "checkpoints").at(0);
  EXPECT_NE(stopped.metrics().find(R"({"event":"resume","step":)" + std::to_string(saved)), std::string::npos)
      << stopped.metrics();
}

TEST(TrainSlow, AFullDiskCostsCheckpointsButNotTheModel) {
  Job job(2);
  if (mount("tmpfs", job.folder().c_str(), "tmpfs", 0, "size=700k") != 0)
    GTEST_SKIP() << "mounting a tmpfs wants root";
  Job::write_text(job.folder());
  job.recipe.checkpoint.every = 10;  // about 330 KB each, beside 100 KB of text: one has room, two have not
  EXPECT_TRUE(job.run());
  EXPECT_EQ(list_checkpoints(job.folder() / "checkpoints").size(), 1u);
  EXPECT_TRUE(model::SafetensorsFile::open(job.folder() / "model" / "model.safetensors").has_value());
  std::ofstream(job.folder() / "fill") << std::string(800'000, 'x');
  fs::remove_all(job.folder() / "model");
  std::ofstream(job.folder() / "fill2") << std::string(200'000, 'x');
  EXPECT_FALSE(job.run()) << "a model that cannot be written is a failure";
  EXPECT_FALSE(fs::exists(job.folder() / "model"));
  umount2(job.folder().c_str(), MNT_DETACH);
}

}  // namespace
}  // namespace th::train
