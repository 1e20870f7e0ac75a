#include "collective/collective.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <initializer_list>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace th::collective {
namespace {

TEST(Shard, PartsCoverAllInOrderAndDifferByAtMostOne) {
  EXPECT_EQ(shard_of(10, 0, 4).begin, 0u);  // 3, 3, 2, 2
  EXPECT_EQ(shard_of(10, 1, 4).begin, 3u);
  EXPECT_EQ(shard_of(10, 2, 4).begin, 6u);
  EXPECT_EQ(shard_of(10, 3, 4).begin, 8u);
  EXPECT_EQ(shard_of(10, 3, 4).end, 10u);
  EXPECT_EQ(shard_of(2, 3, 4).size(), 0u);
}

// Most of a large piece may go past the caches; its first and last bytes do not.
TEST(CopyBytes, CopiesAllAndNothingBesideAtAnyOffsetAndSize) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1023}, size_t{64 << 10}, (size_t{64} << 10) + 63,
                            (size_t{200} << 10) + 17}) {
    for (const size_t offset : {0, 1, 16, 63}) {
      std::vector<std::byte> from(size + 128), to(size + 128, std::byte{0xee});
      for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7 % 251);
      copy_bytes(from.data() + 3, to.data() + offset, size);
      for (size_t i = 0; i < to.size(); ++i) {
        const bool inside = i >= offset && i < offset + size;
        ASSERT_EQ(to[i], inside ? from[i - offset + 3] : std::byte{0xee}) << size << " at " << offset;
      }
    }
  }
}

class RendezvousTest : public testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    for (const char* name : {"RANK",
                             "WORLD_SIZE",
                             "LOCAL_WORLD_SIZE",
                             "MASTER_ADDR",
                             "MASTER_PORT",
                             "TH_JOB_ID",
                             "TH_ATTEMPT",
                             "SLURM_JOB_ID",
                             "SLURM_STEP_ID",
                             "SLURM_PROCID",
                             "SLURM_NTASKS",
                             "SLURM_NNODES",
                             "SLURM_STEP_NUM_NODES",
                             "SLURM_JOB_NODELIST",
                             "SLURM_STEP_NODELIST",
                             "SLURM_RESTART_COUNT",
                             "SLURMD_NODENAME",
                             "OMPI_COMM_WORLD_RANK",
                             "OMPI_COMM_WORLD_SIZE",
                             "OMPI_COMM_WORLD_LOCAL_SIZE",
                             "OMPI_MCA_ess_base_jobid"}) {
      unsetenv(name);
    }
  }
  static void set(std::initializer_list<std::pair<const char*, const char*>> variables) {
    for (auto [name, value] : variables) setenv(name, value, 1);
  }
  static std::string error() {
    auto rendezvous = rendezvous_from_env();
    return rendezvous ? "" : rendezvous.error().message;
  }
};

TEST_F(RendezvousTest, AloneWithoutALauncher) {
  EXPECT_EQ(rendezvous_from_env()->world_size, 1);
  EXPECT_EQ(rendezvous_from_env()->rank, 0);
}

TEST_F(RendezvousTest, ReadsWhatALauncherSets) {
  setenv("RANK", "2", 1);
  setenv("WORLD_SIZE", "4", 1);
  setenv("MASTER_ADDR", "127.0.0.2", 1);
  setenv("MASTER_PORT", "29500", 1);
  setenv("SLURM_JOB_ID", "77", 1);
  const Rendezvous r = rendezvous_from_env().value();
  EXPECT_EQ(std::tuple(r.rank, r.world_size, r.master_addr, r.master_port, r.job_id),
            std::tuple(2, 4, "127.0.0.2", 29500, "77"));
}

TEST_F(RendezvousTest, NamesTheVariableThatIsWrong) {
  setenv("RANK", "1", 1);
  EXPECT_NE(rendezvous_from_env().error().message.find("WORLD_SIZE is missing"), std::string::npos);
  setenv("WORLD_SIZE", "1", 1);
  EXPECT_EQ(rendezvous_from_env().error().message,
            "environment variable RANK: want an integer 0 … 0, got '1'");
  setenv("WORLD_SIZE", "two", 1);
  EXPECT_NE(rendezvous_from_env().error().message.find("WORLD_SIZE: want an integer"), std::string::npos);
}

// What srun sets: srun(1), OUTPUT ENVIRONMENT VARIABLES.
TEST_F(RendezvousTest, UnderSrun) {
  set({{"SLURM_JOB_ID", "77"},
       {"SLURM_STEP_ID", "0"},
       {"SLURM_PROCID", "3"},
       {"SLURM_NTASKS", "4"},
       {"SLURM_STEP_NUM_NODES", "2"},
       {"SLURM_JOB_NODELIST", "n[01-08]"},
       {"SLURM_STEP_NODELIST", "n[03-04]"},
       {"SLURM_RESTART_COUNT", "1"},
       {"SLURMD_NODENAME", "n04"}});
  const Rendezvous r = rendezvous_from_env().value();
  EXPECT_EQ(std::tuple(r.rank, r.world_size, r.local_world_size, r.node, r.master_addr, r.job_id, r.attempt),
            std::tuple(3, 4, 0, "n04", "n03", "77", 1));
  EXPECT_GE(r.master_port, 20'000);
  setenv("SLURM_PROCID", "0", 1);
  EXPECT_EQ(rendezvous_from_env()->master_port, r.master_port);
  setenv("SLURM_STEP_ID", "1", 1);
  EXPECT_NE(rendezvous_from_env()->master_port, r.master_port);
  setenv("MASTER_ADDR", "10.0.0.9", 1);
  EXPECT_EQ(rendezvous_from_env()->master_addr, "10.0.0.9");
}

TEST_F(RendezvousTest, ABatchScriptItselfIsNoRank) {
  set({{"SLURM_JOB_ID", "77"},
       {"SLURM_PROCID", "0"},
       {"SLURM_NTASKS", "4"},
       {"SLURM_JOB_NODELIST", "n[1-4]"}});
  EXPECT_EQ(rendezvous_from_env()->world_size, 1);
}

TEST_F(RendezvousTest, UnderMpirunAlsoBelowSlurm) {
  set({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}});
  EXPECT_EQ(rendezvous_from_env()->local_world_size, 4);
  EXPECT_EQ(rendezvous_from_env()->master_addr, "127.0.0.1");
  setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2", 1);
  EXPECT_NE(error().find("MASTER_ADDR is missing"), std::string::npos);
  set({{"SLURM_STEP_ID", "0"},
       {"SLURM_PROCID", "0"},
       {"SLURM_NTASKS", "2"},
       {"SLURM_JOB_NODELIST", "n[1-2]"}});
  const Rendezvous r = rendezvous_from_env().value();  // SLURM_* are those of mpirun's own step
  EXPECT_EQ(std::tuple(r.rank, r.world_size, r.master_addr), std::tuple(1, 4, "n1"));
}

TEST_F(RendezvousTest, NamesWhatALauncherDidNotSet) {
  set({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}});
  EXPECT_NE(error().find("SLURM_NTASKS is missing"), std::string::npos);
  setenv("SLURM_NTASKS", "2", 1);
  EXPECT_NE(error().find("SLURM_JOB_NODELIST is missing"), std::string::npos);
  clear();
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  EXPECT_NE(error().find("OMPI_COMM_WORLD_RANK is missing"), std::string::npos);
}

TEST(FirstHost, AsSlurmWritesLists) {
  EXPECT_EQ(first_host("n1"), "n1");
  EXPECT_EQ(first_host("n[01-04,7],c1"), "n01");
  EXPECT_EQ(first_host("b-7,a"), "b-7");
  EXPECT_EQ(first_host("rack[2-3]n[5,6]"), "rack2n5");
  for (const char* bad : {"", ",a", "n[", "n[]", "n[a-b]", "n]1", "a b"})
    EXPECT_FALSE(first_host(bad)) << bad;
}

TEST(Group, AWorldOfOneNeedsNobody) {
  Group group;
  std::vector<float> data = {1, 2};
  EXPECT_TRUE(group.all_reduce(data) && group.all_gather(data) && group.broadcast(data, 0) &&
              group.barrier());
  EXPECT_EQ(data, (std::vector<float>{1, 2}));
}

}  // namespace
}  // namespace th::collective
