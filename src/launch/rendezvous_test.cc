#include "launch/rendezvous.h"

#include <gtest/gtest.h>

namespace th::launch {
namespace {

/// Three ranks: 0 and 2 on vm-a (node demo-0), 1 on vm-b (node demo-1).
GangSpec gang() {
  GangSpec gang;
  gang.job = "job-7";
  gang.name = "llama-small";
  gang.attempt = 2;
  gang.argv = {"th-train", "run", "recipe.yaml"};
  gang.env = {{"RANK", "99"}, {"SEED", "5"}};
  gang.master_port = 20'123;
  gang.omp_threads = 2;
  gang.memory_bytes = 1 << 30;
  gang.ready_url = "http://127.0.0.1:20124/health";
  for (const char* vm : {"vm-a", "vm-b", "vm-a"}) {
    RankPlace place;
    place.vm = vm;
    place.node = vm == std::string("vm-a") ? "demo-0" : "demo-1";
    place.address = vm == std::string("vm-a") ? "10.0.0.1" : "10.0.0.2";
    place.gpus = {static_cast<int>(gang.ranks.size())};
    gang.ranks.push_back(place);
  }
  gang.ranks[2].gpus = {0, 1};
  return gang;
}

// The names are those of docs/protocols.md; the values follow by hand from the placement above.
TEST(Rendezvous, EveryVariableOfARank) {
  std::map<std::string, std::string> want = {
      {"RANK", "2"},
      {"WORLD_SIZE", "3"},
      {"LOCAL_RANK", "1"},
      {"LOCAL_WORLD_SIZE", "2"},
      {"GROUP_RANK", "0"},
      {"MASTER_ADDR", "10.0.0.1"},
      {"MASTER_PORT", "20123"},
      {"SLURM_JOB_ID", "7"},
      {"SLURM_JOB_NAME", "llama-small"},
      {"SLURM_NTASKS", "3"},
      {"SLURM_NNODES", "2"},
      {"SLURM_NODEID", "0"},
      {"SLURM_PROCID", "2"},
      {"SLURM_LOCALID", "1"},
      {"SLURM_JOB_NODELIST", "demo-[0-1]"},
      {"SLURM_STEP_ID", "0"},
      {"TH_JOB_ID", "job-7"},
      {"TH_ATTEMPT", "2"},
      {"TH_NODE", "demo-0"},
      {"TH_GPUS", "0,1"},
      {"CUDA_VISIBLE_DEVICES", "0,1"},
      {"OMP_NUM_THREADS", "2"},
  };
  EXPECT_EQ(rendezvous_env(gang(), 2), want);
}

TEST(Rendezvous, TheSecondNode) {
  auto env = rendezvous_env(gang(), 1);
  EXPECT_EQ(env["RANK"], "1");
  EXPECT_EQ(env["LOCAL_RANK"], "0");
  EXPECT_EQ(env["LOCAL_WORLD_SIZE"], "1");
  EXPECT_EQ(env["GROUP_RANK"], "1");
  EXPECT_EQ(env["SLURM_NODEID"], "1");
  EXPECT_EQ(env["MASTER_ADDR"], "10.0.0.1");
}

TEST(Rendezvous, TheSubmitterCannotOverrideItButMayChooseThreads) {
  GangSpec spec = gang();
  EXPECT_EQ(gang_tasks(spec)[1].env["RANK"], "1");
  EXPECT_EQ(gang_tasks(spec)[1].env["SEED"], "5");
  EXPECT_EQ(gang_tasks(spec)[1].env["OMP_NUM_THREADS"], "2");
  spec.env["OMP_NUM_THREADS"] = "8";
  EXPECT_EQ(gang_tasks(spec)[1].env["OMP_NUM_THREADS"], "8");
}

TEST(Rendezvous, OnlyRankZeroHasMetricsAndReadiness) {
  auto tasks = gang_tasks(gang());
  ASSERT_EQ(tasks.size(), 3u);
  EXPECT_EQ(tasks[0].metrics_file, "metrics.jsonl");
  EXPECT_EQ(tasks[0].ready_url, "http://127.0.0.1:20124/health");
  EXPECT_FALSE(tasks[1].metrics_file || tasks[2].metrics_file || tasks[1].ready_url || tasks[2].ready_url);
  EXPECT_EQ(tasks[2].id.text(), "job-7.2.2");
  EXPECT_EQ(tasks[2].memory_bytes, 1 << 30);
}

TEST(CompressNodes, SlurmsShortForm) {
  EXPECT_EQ(compress_nodes({"demo-0"}), "demo-0");
  EXPECT_EQ(compress_nodes({"demo-0", "demo-1", "demo-2", "demo-5"}), "demo-[0-2,5]");
  EXPECT_EQ(compress_nodes({"demo-3", "demo-1"}), "demo-[3,1]");
  EXPECT_EQ(compress_nodes({"a0", "a1", "b7", "login"}), "a[0-1],b7,login");
  EXPECT_EQ(compress_nodes({"n01", "n02"}), "n01,n02");
  EXPECT_EQ(compress_nodes({}), "");
}

TEST(ChoosePort, StaysInItsRangeAndAvoidsTakenOnes) {
  std::set<int> taken;
  int first = choose_port("x/job-1.1/master", taken);
  EXPECT_EQ(choose_port("x/job-1.1/master", taken), first);
  for (int i = 0; i < 500; ++i) {
    int port = choose_port("x/job-1.1/master", taken);
    EXPECT_GE(port, 20'000);
    EXPECT_LT(port, 30'000);
    EXPECT_TRUE(taken.insert(port).second);
  }
  EXPECT_NE(choose_port("y/job-1.1/master", {}), first);
}

}  // namespace
}  // namespace th::launch
