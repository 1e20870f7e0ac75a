#include "collective/collective.h"

#include <gtest/gtest.h>

#include <cstdlib>
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

class RendezvousTest : public testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    for (const char* name :
         {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TH_JOB_ID", "SLURM_JOB_ID", "TH_ATTEMPT"}) {
      unsetenv(name);
    }
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

TEST(Group, AWorldOfOneNeedsNobody) {
  Group group;
  std::vector<float> data = {1, 2};
  EXPECT_TRUE(group.all_reduce(data) && group.all_gather(data) && group.broadcast(data, 0) &&
              group.barrier());
  EXPECT_EQ(data, (std::vector<float>{1, 2}));
}

}  // namespace
}  // namespace th::collective
