#include "launch/frameworks.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace th::launch {
namespace {

FrameworkOptions options(Framework framework, int64_t nodes, int64_t gpus) {
  FrameworkOptions out;
  out.framework = framework;
  out.arguments = {"train.py", "--lr", "1"};
  out.num_nodes = nodes, out.gpus_per_node = gpus;
  return out;
}

std::string line(const FrameworkLaunch& launch) { return launch.command.at(2); }

TEST(Frameworks, AreKnownByName) {
  for (const char* name : {"torchrun", "mpirun", "deepspeed", "megatron"}) {
    EXPECT_EQ(framework_name(*parse_framework(name)), name);
  }
  EXPECT_EQ(parse_framework("horovod").error().message,
            "'horovod' is no framework that th can launch: want torchrun, mpirun, deepspeed or megatron");
}

TEST(Frameworks, TorchrunMeetsWhereTheGangDoes) {
  auto launch = launch_of(options(Framework::kTorchrun, 2, 8), "");
  ASSERT_TRUE(launch);
  EXPECT_EQ(line(*launch),
            "exec torchrun --nnodes 2 --nproc_per_node 8 --node_rank \"$GROUP_RANK\" --master_addr "
            "\"$MASTER_ADDR\" "
            "--master_port \"$MASTER_PORT\" \"$@\"");
  EXPECT_EQ(launch->command.back(), "1");
  EXPECT_TRUE(launch->rank_per_node && launch->tried);
}

TEST(Frameworks, MpirunTakesItsScriptAlong) {
  auto launch = launch_of(options(Framework::kMpirun, 2, 8), "text");
  ASSERT_TRUE(launch);
  EXPECT_EQ(launch->files.at("gang.py"), "text");
  EXPECT_FALSE(launch->rank_per_node);
}

TEST(Frameworks, DeepspeedsBatchIsTheProductOfItsParts) {
  auto asked = options(Framework::kDeepspeed, 2, 8);
  asked.hosts = {"a", "b"}, asked.micro_batch = 4, asked.global_batch = 256, asked.zero_stage = 3;
  auto launch = launch_of(asked, "");
  ASSERT_TRUE(launch) << launch.error().message;
  EXPECT_EQ(launch->files.at("hostfile"), "a slots=8\nb slots=8\n");
  const Json config = Json::parse(launch->files.at("ds_config.json"));
  EXPECT_EQ(config["train_batch_size"], 256);
  EXPECT_EQ(config["gradient_accumulation_steps"], 4);  // 256 / (4 x 16)
  EXPECT_EQ(config["zero_optimization"]["stage"], 3);
  EXPECT_FALSE(launch->tried);
  asked.global_batch = 200;
  EXPECT_EQ(
      launch_of(asked, "").error().message,
      "--global-batch 200: want a multiple of 64 (micro batch 4 x 16 data-parallel ranks), such as 192");
  asked.global_batch = 0, asked.zero_stage = 4;
  EXPECT_EQ(launch_of(asked, "").error().message, "--zero-stage 4: want 0, 1, 2 or 3");
}

TEST(Frameworks, MegatronsLayoutFitsTheSlice) {
  auto asked = options(Framework::kMegatron, 4, 8);
  asked.pipeline_parallel = 2, asked.global_batch = 16;
  auto launch = launch_of(asked, "");
  ASSERT_TRUE(launch) << launch.error().message;
  EXPECT_EQ(launch->layout, "tensor 8 x pipeline 2 x data 2, batch 16 = 1 x 8 micro-batches x 2");
  EXPECT_NE(line(*launch).find("--tensor-model-parallel-size 8 --pipeline-model-parallel-size 2 "
                               "--micro-batch-size 1 --global-batch-size 16 --sequence-parallel"),
            std::string::npos);
  asked.tensor_parallel = 16;
  EXPECT_NE(launch_of(asked, "").error().message.find("want a divisor of the 8 GPUs"), std::string::npos);
  asked.tensor_parallel = 8, asked.pipeline_parallel = 3;
  EXPECT_NE(launch_of(asked, "").error().message.find("does not divide the 32 GPUs (4 nodes x 8)"),
            std::string::npos);
  auto six = options(Framework::kMegatron, 1, 6);  // a node of 6: as they are in Summit
  EXPECT_EQ(launch_of(six, "")->layout, "tensor 6 x pipeline 1 x data 1, batch 1 = 1 x 1 micro-batches x 1");
}

TEST(Frameworks, RefuseWhatCannotBe) {
  auto asked = options(Framework::kTorchrun, 0, 8);
  EXPECT_FALSE(launch_of(asked, ""));
  asked.num_nodes = 1, asked.arguments.clear();
  EXPECT_EQ(launch_of(asked, "").error().message,
            "torchrun: its arguments are missing: th launch torchrun ... -- SCRIPT ARGUMENTS");
}

}  // namespace
}  // namespace th::launch
