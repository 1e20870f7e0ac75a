#include "launch/slurm/conf.h"

#include <gtest/gtest.h>

namespace th::launch {
namespace {

SlurmHost host(const char* name, const char* leaf, const char* spine, const char* type = "h100",
               int64_t gpus = 8) {
  return {name, leaf, spine, type, gpus, 96, int64_t{1900} << 30};
}

std::string body(const std::string& text) { return text.substr(text.find('\n') + 1); }

TEST(SlurmConf, IsTheTreeOfTheFabric) {
  const SlurmConf conf = slurm_conf({host("a1", "leaf1", "spine1"), host("a2", "leaf1", "spine1"),
                                     host("b1", "leaf2", "spine1"), host("c1", "leaf3", "spine2")});
  EXPECT_EQ(body(conf.topology),
            "SwitchName=leaf1 Nodes=a[1-2]\nSwitchName=leaf2 Nodes=b1\nSwitchName=leaf3 Nodes=c1\n"
            "SwitchName=spine1 Switches=leaf[1-2]\nSwitchName=spine2 Switches=leaf3\n"
            "SwitchName=core Switches=spine[1-2]\n");
}

TEST(SlurmConf, NodesThatAreAlikeShareALine) {
  const SlurmConf conf =
      slurm_conf({host("a1", "leaf1", ""), host("d1", "leaf1", "", "local", 2), host("a2", "leaf1", "")});
  EXPECT_EQ(body(conf.gres),
            "NodeName=a[1-2] Name=gpu Type=h100 File=/dev/nvidia[0-7]\n"
            "NodeName=d1 Name=gpu Type=local Count=2 Flags=CountOnly\n");
  EXPECT_EQ(body(conf.nodes),
            "NodeName=a[1-2] CPUs=96 RealMemory=1945600 Gres=gpu:h100:8 State=CLOUD\n"
            "NodeName=d1 CPUs=96 RealMemory=1945600 Gres=gpu:local:2 State=CLOUD\n");
  EXPECT_EQ(body(conf.topology), "SwitchName=leaf1 Nodes=a1,d1,a2\n");  // one tree: no core
}

TEST(SlurmConf, TypesAreWordsOfTheAccelerator) {
  EXPECT_EQ(gpu_type_of("NVIDIA H100 SXM5 80 GB"), "h100");
  EXPECT_EQ(gpu_type_of("share of this machine's CPU"), "local");
}

}  // namespace
}  // namespace th::launch
