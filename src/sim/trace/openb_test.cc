#include "sim/trace/openb.h"

#include <gtest/gtest.h>

namespace th::sim {
namespace {

constexpr std::string_view kNodes =
    "sn,cpu_milli,memory_mib,gpu,model\nn-1,64000,262144,2,P100\nn-0,96000,393216,8,G2\n";
constexpr std::string_view kPods =
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n"
    "p0,12000,16384,1,460,V100M32|T4|V100M32,LS\np1,4000,8192,0,0,,BE\np2,8000,8192,8,1000,,LS\n";

std::string node_error(std::string_view text) {
  Skipped skipped;
  auto nodes = read_openb_nodes(text, {.file = "n.csv"}, skipped);
  return nodes ? "" : nodes.error().message;
}

std::string pod_error(std::string_view text) {
  Skipped skipped;
  auto pods = read_openb_pods(text, {.file = "p.csv"}, 8, skipped);
  return pods ? "" : pods.error().message;
}

TEST(Openb, ReadsNodesByName) {
  Skipped skipped;
  auto nodes = read_openb_nodes(kNodes, {.file = "n.csv"}, skipped).value();
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0], (OpenbNode{"n-0", 96000, 393216, 8, "G2"}));
  EXPECT_EQ(nodes[1].model, "P100");
}

TEST(Openb, ReadsPodsWithAndWithoutAModel) {
  Skipped skipped;
  auto pods = read_openb_pods(kPods, {.file = "p.csv"}, 8, skipped).value();
  ASSERT_EQ(pods.size(), 3u);
  EXPECT_EQ(pods[0], (OpenbPod{12000, 16384, 1, 460, {"T4", "V100M32"}}));
  EXPECT_EQ(pods[1], (OpenbPod{4000, 8192, 0, 0, {}}));
  auto plain =
      read_openb_pods("cpu_milli,memory_mib,num_gpu,gpu_milli\n1,2,1,3\n", {.file = "p.csv"}, 8, skipped);
  EXPECT_EQ(plain.value()[0], (OpenbPod{1, 2, 1, 3, {}}));
}

TEST(Openb, NamesBadNodes) {
  EXPECT_EQ(node_error("sn,cpu_milli,memory_mib,gpu,model\na,1,1,9,T4\n"),
            "n.csv:2: gpu: want an integer from 1 to 8, got '9'");
  EXPECT_EQ(node_error("sn,cpu_milli,memory_mib,gpu,model\na,1,1,1,T4\na,1,1,1,T4\n"),
            "n.csv:3: sn: 'a' is there twice");
  EXPECT_EQ(node_error("sn,cpu_milli,memory_mib,gpu,model\na,1,1,1,\n"),
            "n.csv:2: model: the node's GPUs have no model");
  EXPECT_EQ(node_error("sn,cpu_milli,memory_mib,gpu,model\n"), "n.csv: there is no node");
  EXPECT_EQ(node_error("sn,cpu_milli,gpu,model\n").substr(0, 42),
            "n.csv: there is no column 'memory_mib'; it");
}

TEST(Openb, NamesBadPods) {
  const std::string header = "cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n";
  EXPECT_EQ(pod_error(header + "-5,1,1,1000,\n"),
            "p.csv:2: cpu_milli: want an integer from 0 to 1000000000, got '-5'");
  EXPECT_EQ(pod_error(header + "5,1,16,1000,\n"), "p.csv:2: num_gpu: want an integer from 0 to 8, got '16'");
  EXPECT_EQ(pod_error(header + "5,1,1,0,\n"), "p.csv:2: gpu_milli: want an integer from 1 to 1000, got '0'");
  EXPECT_EQ(pod_error(header + "5,1,0,500,\n"), "p.csv:2: gpu_milli: want an integer from 0 to 0, got '500'");
  EXPECT_EQ(pod_error(header + "5,1,1,500,T4||P100\n"),
            "p.csv:2: gpu_spec: want names joined by '|', got 'T4||P100'");
  EXPECT_EQ(pod_error(header + "5,1,0,0,\n"), "p.csv: no pod asks for a GPU");
}

TEST(Openb, SkipsWhenAsked) {
  Skipped skipped;
  auto pods = read_openb_pods("cpu_milli,memory_mib,num_gpu,gpu_milli\n1,2,4,1000\n1,2,1,1000\n",
                              {.file = "p.csv", .on_bad = OnBadLine::kSkip}, 2, skipped);
  EXPECT_EQ(pods.value().size(), 1u);
  EXPECT_EQ(skipped.lines, 1);
}

}  // namespace
}  // namespace th::sim
