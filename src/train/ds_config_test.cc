#include "train/ds_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "train/test_gang.h"

namespace th::train {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string error_of(const std::string& text) {
  const auto config = parse_ds_config(text, "ds.json");
  EXPECT_FALSE(config.has_value()) << text;
  return config ? "" : config.error().message;
}

constexpr char kRecipe[] = R"(name: t
gpus: 2
train:
  deepspeed: ds.json
  model: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
  data: {text: data/t.txt, vocab_size: 300}
  steps: 100
)";

/// The recipe with the file beside it.
Result<Recipe> recipe_with(const std::string& ds_config, const std::string& more = "") {
  TemporaryFolder folder;
  std::ofstream(folder.path() / "ds.json") << ds_config;
  return parse_recipe(kRecipe + more, folder.path() / "r.yaml");
}

// The example of DeepSpeed's own documentation has these sections; the numbers are ours.
constexpr char kWhole[] = R"({
  "train_batch_size": 32,
  "train_micro_batch_size_per_gpu": 4,
  "gradient_accumulation_steps": 4,
  "optimizer": {"type": "AdamW", "params": {"lr": 0.0005, "betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 0.05}},
  "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_max_lr": 0.0005, "warmup_num_steps": 10,
                "warmup_type": "linear", "total_num_steps": 100}},
  "bf16": {"enabled": true},
  "gradient_clipping": 0.5,
  "zero_optimization": {"stage": 3, "overlap_comm": true, "reduce_bucket_size": 5e8,
      "offload_optimizer": {"device": "nvme", "nvme_path": "/fast", "pin_memory": true},
      "offload_param": {"device": "nvme", "nvme_path": "/fast"}},
  "activation_checkpointing": {"number_checkpoints": 4},
  "steps_per_print": 10,
  "tensorbord": {"enabled": true}
})";

TEST(DsConfig, IsReadAsItIs) {
  const auto read = recipe_with(kWhole);
  ASSERT_TRUE(read) << read.error().message;
  Recipe recipe = *read;
  EXPECT_EQ(recipe.zero_stage, 3);
  EXPECT_EQ(recipe.offload, "/fast");
  EXPECT_EQ(recipe.dtype, Dtype::kBf16);
  EXPECT_EQ(recipe.recompute, model::Recompute::kFull);
  const OptimizerOptions& o = recipe.optimizer;
  EXPECT_EQ(o.lr, 0.0005);
  EXPECT_EQ(o.beta1, 0.8);
  EXPECT_EQ(o.beta2, 0.99);
  EXPECT_EQ(o.epsilon, 1e-7);
  EXPECT_EQ(o.weight_decay, 0.05);
  EXPECT_EQ(o.clip, 0.5);
  // WarmupDecayLR by hand: straight up to step 10, straight down to nothing at step 100.
  EXPECT_DOUBLE_EQ(learning_rate(o, 5, 100), 0.00025);
  EXPECT_DOUBLE_EQ(learning_rate(o, 55, 100), 0.00025);
  EXPECT_DOUBLE_EQ(learning_rate(o, 100, 100), 0);
  ASSERT_TRUE(fit_batch(recipe, 2));  // 4 · 4 · 2 = 32
  EXPECT_EQ(recipe.batch, 4);
  EXPECT_EQ(recipe.micro_batches, 4);
}

TEST(DsConfig, EveryKeyThatIsNotHonouredIsNamed) {
  EXPECT_THAT(
      recipe_with(kWhole)->notes,
      ElementsAre("ds.json: not honoured: zero_optimization.reduce_bucket_size (buckets are layers)",
                  HasSubstr("zero_optimization.offload_optimizer.pin_memory"),
                  HasSubstr("activation_checkpointing.number_checkpoints"), HasSubstr("steps_per_print"),
                  "ds.json: not honoured: tensorbord.enabled (not known here)"));
  EXPECT_THAT(
      parse_ds_config(R"({"zero_optimization": {"overlap_comm": false, "offload_param": {"device": "cpu"}}})",
                      "ds")
          ->not_honoured,
      ElementsAre(HasSubstr("offload_param.device (cpu"), HasSubstr("overlap_comm")));
  EXPECT_THAT(parse_ds_config(R"({"zero_optimization.stage": 3})", "ds")->not_honoured,
              ElementsAre(HasSubstr("\"zero_optimization.stage\"")));  // a name with a dot is no section
}

TEST(DsConfig, AutoAndWhatIsNotSaidIsTheRecipes) {
  const auto recipe = recipe_with(
      R"({"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "bf16": {"enabled": "auto"},
          "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "weight_decay": "auto"}},
          "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0.001, "warmup_max_lr": "auto", "warmup_num_steps": "auto"}},
          "zero_optimization": {"stage": "auto"}, "gradient_clipping": "auto"})",
      "  batch: 3\n  dtype: bfloat16\n  zero: {stage: 2}\n"
      "  optimizer: {lr: 0.01, beta1: 0.7, weight_decay: 0.2, warmup: 7, clip: 2}\n");
  ASSERT_TRUE(recipe) << recipe.error().message;
  EXPECT_EQ(recipe->batch, 3);
  EXPECT_EQ(recipe->train_batch, 0);
  EXPECT_EQ(recipe->dtype, Dtype::kBf16);
  EXPECT_EQ(recipe->zero_stage, 2);
  EXPECT_EQ(recipe->optimizer.beta1, 0.7);
  EXPECT_EQ(recipe->optimizer.clip, 2);
  // From 0.001 up as log(step + 1): at step 1 a third of the way to step 7, log 2 / log 8. Then it stays.
  EXPECT_NEAR(learning_rate(recipe->optimizer, 1, 100), 0.001 + 0.009 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(learning_rate(recipe->optimizer, 7, 100), 0.01);
  EXPECT_DOUBLE_EQ(learning_rate(recipe->optimizer, 100, 100), 0.01);
}

TEST(DsConfig, DefaultsOfASectionAreDeepSpeeds) {
  const auto recipe =
      recipe_with(R"({"optimizer": {"type": "Adam"}, "scheduler": {"type": "WarmupCosineLR"}})",
                  "  optimizer: {beta2: 0.9, warmup: 0}\n");
  ASSERT_TRUE(recipe) << recipe.error().message;
  EXPECT_EQ(recipe->optimizer.lr, 0.001);
  EXPECT_EQ(recipe->optimizer.beta1, 0.9);
  EXPECT_EQ(recipe->optimizer.beta2, 0.9);  // the recipe's word counts more than a default
  EXPECT_EQ(recipe->optimizer.weight_decay, 0);
  EXPECT_EQ(recipe->optimizer.min_lr_share, 0.0001);
  EXPECT_NEAR(learning_rate(recipe->optimizer, 50, 100), 0.001 * (0.0001 + 0.9999 / 2), 1e-12);
}

TEST(DsConfig, WhatTheRecipeSaysOtherwiseIsAnErrorThatNamesBoth) {
  const auto error = [](const std::string& ds_config, const std::string& more) {
    const auto recipe = recipe_with(ds_config, more);
    EXPECT_FALSE(recipe.has_value()) << more;
    return recipe ? "" : recipe.error().message;
  };
  const std::string lr = R"({"optimizer": {"params": {"lr": 0.001}}})";
  EXPECT_THAT(error(lr, "  optimizer: {lr: 0.002}\n"),
              testing::AllOf(HasSubstr("r.yaml:4"), HasSubstr("optimizer.lr is 0.002 in the recipe"),
                             HasSubstr("0.001 in ds.json")));
  EXPECT_TRUE(recipe_with(lr, "  optimizer: {lr: 0.001}\n"));
  // a key twice
  EXPECT_THAT(error(R"({"optimizer": {}, "bf16": {"enabled": false}})", "  dtype: bfloat16\n"),
              HasSubstr("train.dtype is bfloat16 in the recipe, and bf16.enabled's precision is float32"));
  EXPECT_THAT(
      error(R"({"optimizer": {}, "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 99}}})",
            ""),
      HasSubstr("train.steps is 100 in the recipe, and scheduler.params.total_num_steps is 99"));
  EXPECT_THAT(error(R"({"optimizer": {}, "zero_optimization": {"stage": 3}})", "  zero: {stage: 1}\n"),
              HasSubstr("zero.stage is 1"));
  EXPECT_THAT(error(R"({"zero_optimization": {"stage": 1}})", ""), HasSubstr("optimizer"));  // nobody says lr
}

TEST(DsConfig, ABatchTripleThatContradictsItselfShowsTheArithmetic) {
  const auto recipe = recipe_with(
      R"({"optimizer": {}, "train_batch_size": 30, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2})");
  EXPECT_THAT(recipe.error().message,
              HasSubstr("30 in ds.json is no multiple of 4 a micro-batch × 2 micro-batches = 8"));
  Recipe fits;
  fits.train_batch = 32, fits.batch = 4, fits.micro_batches = 2;
  EXPECT_TRUE(fit_batch(fits, 4));
  EXPECT_THAT(
      fit_batch(fits, 2).error().message,
      HasSubstr("train_micro_batch_size_per_gpu 4 × gradient_accumulation_steps 2 × 2 ranks = 16, and "
                "train_batch_size is 32"));
}

TEST(DsConfig, TwoOfTheTripleImplyTheThird) {
  const auto fitted = [](const std::string& keys, int64_t ranks) {
    Recipe recipe = recipe_with(R"({"optimizer": {}, )" + keys + "}").value();
    EXPECT_TRUE(fit_batch(recipe, ranks)) << keys;
    return std::pair(recipe.batch, recipe.micro_batches);
  };
  using Pair = std::pair<int64_t, int64_t>;
  EXPECT_EQ(fitted(R"("train_batch_size": 24, "train_micro_batch_size_per_gpu": 2)", 3), Pair(2, 4));
  EXPECT_EQ(fitted(R"("train_batch_size": 24, "gradient_accumulation_steps": 2)", 3), Pair(4, 2));
  EXPECT_EQ(fitted(R"("train_micro_batch_size_per_gpu": 5, "gradient_accumulation_steps": 2)", 3),
            Pair(5, 2));
  EXPECT_EQ(fitted(R"("train_batch_size": 24)", 3), Pair(8, 1));
  EXPECT_EQ(fitted(R"("train_micro_batch_size_per_gpu": 5)", 3), Pair(5, 1));
  Recipe recipe = recipe_with(R"({"optimizer": {}, "train_batch_size": 25})").value();
  EXPECT_THAT(fit_batch(recipe, 3).error().message,
              HasSubstr("25 is no multiple of gradient_accumulation_steps 1 × 3"));
}

TEST(DsConfig, NamesWhatIsWrong) {
  EXPECT_THAT(error_of(R"({"fp16": {"enabled": true}})"),
              HasSubstr("ds.json: fp16.enabled: there is no float16"));
  EXPECT_THAT(error_of(R"({"optimizer": {"type": "Lamb"}})"),
              HasSubstr("optimizer.type: want 'Adam' or 'AdamW', got 'Lamb'"));
  EXPECT_THAT(error_of(R"({"optimizer": {"params": {"betas": [0.9]}}})"),
              HasSubstr("betas: want two numbers"));
  EXPECT_THAT(error_of(R"({"optimizer": {"params": {"lr": -1}}})"), HasSubstr("lr: want a number from"));
  EXPECT_THAT(error_of(R"({"scheduler": {"type": "OneCycle"}})"), HasSubstr("got 'OneCycle'"));
  EXPECT_THAT(error_of(R"({"zero_optimization": true})"), HasSubstr("zero_optimization: want an object"));
  EXPECT_THAT(error_of(R"({"zero_optimization": {"stage": 4}})"),
              HasSubstr("stage: want a number from 0 to 3, got 4"));
  EXPECT_THAT(error_of(R"({"zero_optimization": {"stage": 1.5}})"), HasSubstr("whole number"));
  EXPECT_THAT(error_of(R"({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}})"),
              HasSubstr("nvme_path: is missing"));
  EXPECT_THAT(
      error_of(
          R"({"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "nvme", "nvme_path": "/a"}}})"),
      HasSubstr("want 1 to 3"));
  EXPECT_THAT(error_of("[]"), HasSubstr("want a JSON object"));
  EXPECT_THAT(error_of("{"), HasSubstr("ds.json"));
  EXPECT_THAT(parse_recipe(kRecipe, "none/r.yaml").error().message, HasSubstr("no file 'ds.json'"));
}

}  // namespace
}  // namespace th::train
