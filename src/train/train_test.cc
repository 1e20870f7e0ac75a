#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "base/text.h"
#include "model/bpe_trainer.h"
#include "train/bigram.h"
#include "train/dataset.h"
#include "train/metrics.h"
#include "train/recipe.h"
#include "train/test_gang.h"
#include "train/zero.h"

namespace th::train {
namespace {

constexpr char kGood[] = R"(name: t
gpus: 2
train:
  model: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
  data: {text: data/t.txt, vocab_size: 300}
  optimizer: {lr: 0.01}
  steps: 5
)";

std::string error_with(std::string_view from, std::string_view to) {
  std::string text = kGood;
  const size_t at = text.find(from);
  TH_CHECK(at != std::string::npos);
  auto recipe = parse_recipe(text.replace(at, from.size(), to), "r.yaml");
  EXPECT_FALSE(recipe.has_value()) << text;
  return recipe ? "" : recipe.error().message;
}

TEST(Recipe, ReadsWhatIsGivenAndFillsInTheRest) {
  const Recipe recipe = parse_recipe(kGood, "dir/r.yaml").value();
  EXPECT_EQ(recipe.model.head_dim, 8);
  EXPECT_EQ(recipe.model.num_key_value_heads, 2);
  EXPECT_TRUE(recipe.model.tie_word_embeddings);
  EXPECT_EQ(recipe.optimizer.lr, 0.01);
  EXPECT_EQ(recipe.checkpoint.keep, 2);
  EXPECT_EQ(recipe.folder, "dir");
}

TEST(Recipe, LeavesTheOptionsOfTheJobToTheController) {
  const std::string text = std::string(kGood) + "can_rescale: true\nmin_gpus: 1\naccount: lab\n";
  EXPECT_TRUE(parse_recipe(text, "r.yaml").has_value());
}

TEST(Recipe, NamesWhatIsWrong) {
  auto has = [](const std::string& message, std::string_view part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  has(error_with("hidden_size", "hiden_size"), "did you mean 'hidden_size'");
  has(error_with("hidden_size: 16", "hidden_size: big"), "hidden_size");
  has(error_with("hidden_size: 16", "hidden_size: 17"), "num_attention_heads: does not divide hidden_size");
  has(error_with("lr: 0.01", "lr: -1"), "lr: want a number above 0");
  has(error_with("lr: 0.01", "lr: 0.01, schedule: linear"), "want 'cosine'");
  has(error_with("steps: 5", "steps: 0"), "steps");
  has(error_with("steps: 5", "stepz: 5"), "did you mean 'steps'");
  has(error_with("steps: 5", "steps: 5\n  dtype: float16"), "want 'float32'");
  has(error_with("vocab_size: 300", "vocab_size: 100"), "vocab_size");
  has(error_with("{text: data/t.txt, vocab_size: 300}", "{set: code, vocab_size: 300}"),
      "vocab_size: goes with 'text'");
  has(error_with("{text: data/t.txt, vocab_size: 300}", "{set: ../code}"), "data set");
}

TEST(Recipe, TheRecipesOfThisProjectAreGood) {
  for (const char* name : {"llama-small.yaml", "llama-tiny.yaml"}) {
    auto recipe = load_recipe(std::string(TH_SOURCE_DIR "/recipes/train/") + name);
    EXPECT_TRUE(recipe.has_value()) << recipe.error().message;
  }
}

TEST(Recipe, AMissingTextIsNamed) {
  Recipe recipe = parse_recipe(kGood, "r.yaml").value();
  EXPECT_NE(find_text(recipe).error().message.find("'data/t.txt'"), std::string::npos);
  recipe.stage = {{"data/t.txt", "nowhere.txt"}};
  EXPECT_NE(find_text(recipe).error().message.find("nowhere.txt"), std::string::npos);
}

TEST(Schedule, WarmsUpAndFollowsHalfACosine) {
  const OptimizerOptions options = {.lr = 1, .warmup = 10, .min_lr_share = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(options, 1, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 10, 110), 1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 60, 110), 0.55);  // half way: the mean of 1 and 0.1
  EXPECT_NEAR(learning_rate(options, 110, 110), 0.1, 1e-12);
  EXPECT_DOUBLE_EQ(learning_rate({.lr = 1, .min_lr_share = 1}, 1, 10), 1);  // no warm-up
}

TEST(Bigram, AgreesWithTheFormulaByHand) {
  // a b a b a c over {a=0,b=1,c=2,d=3}: c(ab)=2, c(ac)=1, c(ba)=2; c(a)=3, c(b)=2; three kinds,
  // N(·a)=N(·b)=N(·c)=1.
  const std::vector<int32_t> tokens = {0, 1, 0, 1, 0, 2};
  const Bigram bigram(tokens, 4);
  const double lower_b = 0.25 / 3 + 0.75 * 3 / 3 / 4;  // 0.2708…
  EXPECT_NEAR(bigram.probability(0, 1), 1.25 / 3 + 0.75 * 2 / 3 * lower_b, 1e-12);
  EXPECT_NEAR(bigram.probability(0, 3), 0.75 * 2 / 3 * (0.75 / 4), 1e-12);
  EXPECT_NEAR(bigram.probability(2, 1), lower_b, 1e-12);  // c starts nothing
  for (int32_t v = 0; v < 4; ++v) {
    double sum = 0;
    for (int32_t w = 0; w < 4; ++w) sum += bigram.probability(v, w);
    EXPECT_NEAR(sum, 1, 1e-12);
  }
  EXPECT_NEAR(bigram.bits(std::vector<int32_t>{0, 1, 0}),
              -std::log2(bigram.probability(0, 1)) - std::log2(bigram.probability(1, 0)), 1e-12);
}

TEST(Dataset, ValidationComesFromEverywhereAndNothingIsLost) {
  std::string text;
  for (int i = 0; text.size() < (200 << 10); ++i) text += "line " + std::to_string(i) + "\n";
  const SplitText parts = split_text(text, 0.1);
  EXPECT_EQ(parts.train.size() + parts.validation.size(), text.size());
  EXPECT_NEAR(static_cast<double>(parts.validation.size()) / static_cast<double>(text.size()), 0.1, 0.01);
  auto lines_of = [](const std::string& part) {
    const std::vector<std::string> lines = th::split(part, '\n');
    return std::set<std::string>(lines.begin(), lines.end());
  };
  std::set<std::string> lines = lines_of(parts.train);
  const size_t train_lines = lines.size();
  const std::set<std::string> validation = lines_of(parts.validation);
  lines.insert(validation.begin(), validation.end());
  EXPECT_EQ(lines, lines_of(text));  // no line is cut
  EXPECT_EQ(lines.size(), train_lines + validation.size() - 1)
      << "a line stands in both (only the empty one may)";
}

TEST(Dataset, TooShortATextIsRefused) {
  const model::Tokenizer tokenizer = model::train_bpe("abc abc", {.vocab_size = 270}).value();
  EXPECT_EQ(make_dataset({"abcd", "x"}, tokenizer, 8).error().code, Code::kInvalidArgument);
}

TEST(SequenceOrder, AnEpochVisitsEachStretchOnce) {
  SequenceOrder order(1005, 100, 3), again(1005, 100, 3), other(1005, 100, 4);
  std::vector<int64_t> starts, others;
  std::set<int64_t> stretches;
  for (int64_t i = 0; i < 10; ++i) {
    starts.push_back(order.start_of(i));
    others.push_back(other.start_of(i));
    stretches.insert(starts.back() / 100);
    EXPECT_LT(starts.back() + 100, 1005);
  }
  EXPECT_EQ(stretches.size(), 10u);
  EXPECT_NE(starts, others);
  again.start_of(25);  // the order does not depend on what was asked before
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(again.start_of(i), starts[i]);
}

// AdamW in double, from Loshchilov & Hutter 2019, algorithm 2, with clipping by the global norm.
std::vector<double> plain_adamw(std::vector<double> params, size_t decayed, const OptimizerOptions& o,
                                int steps) {
  const size_t n = params.size();
  std::vector<double> m(n), v(n);
  for (int t = 1; t <= steps; ++t) {
    double norm = 0;
    for (double p : params) norm += p * p;
    norm = std::sqrt(norm);
    for (size_t i = 0; i < n; ++i) {
      const double g = params[i] * std::min(1.0, o.clip / norm);  // gradient of |params|²/2
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
      const double update =
          m[i] / (1 - std::pow(o.beta1, t)) / (std::sqrt(v[i] / (1 - std::pow(o.beta2, t))) + 1e-8);
      params[i] -= o.lr * (update + (i < decayed ? o.weight_decay * params[i] : 0));
    }
  }
  return params;
}

TEST(Zero, IsPlainAdamWForAnyNumberOfRanks) {
  constexpr size_t kSize = 1003, kDecayed = 700;
  constexpr int kSteps = 20;
  const OptimizerOptions options = {.lr = 0.01, .weight_decay = 0.1, .clip = 5};
  std::vector<float> start(kSize);
  for (size_t i = 0; i < kSize; ++i) start[i] = static_cast<float>(static_cast<int>(i % 17) - 8) / 8;
  const std::vector<double> expected = plain_adamw({start.begin(), start.end()}, kDecayed, options, kSteps);
  for (int world : {1, 2, 4}) {
    EXPECT_TRUE(run_gang(world, [&](collective::Group& group) {
      std::vector<float> params = start;
      ZeroOptimizer optimizer(group, kSize, kDecayed, options);
      for (int step = 1; step <= kSteps; ++step) {
        std::vector<float> grads = params;
        for (float& g : grads) g /= static_cast<float>(world);
        if (!optimizer.update(params, grads, 1.f, options.lr, step)) return false;
      }
      for (size_t i = 0; i < kSize; ++i) {
        if (std::abs(params[i] - expected[i]) > 1e-5) return false;
      }
      return true;
    })) << world;
  }
}

TEST(Zero, AGradientThatIsNotFiniteIsAnErrorAndChangesNothing) {
  EXPECT_TRUE(run_gang(2, [](collective::Group& group) {
    ZeroOptimizer optimizer(group, 4, 4, {});
    std::vector<float> params = {1, 2, 3, 4}, grads = {0, 0, 0, group.rank() == 1 ? NAN : 0};
    auto stats = optimizer.update(params, grads, 1.f, 0.1, 1);
    return !stats && stats.error().code == Code::kInternal && params == std::vector<float>{1, 2, 3, 4};
  }));
}

TEST(Metrics, AppendsWholeLines) {
  TemporaryFolder folder;
  const std::string path = folder.path() / "m.jsonl";
  std::ofstream(path) << "{\"event\":\"old\"}\n";
  Metrics(path).write({{"event", "progress"}, {"step", 1}});
  EXPECT_EQ(read_file(path).value(), "{\"event\":\"old\"}\n{\"event\":\"progress\",\"step\":1}\n");
  Metrics("").write({{"event", "progress"}});
  Metrics("/dev/full").write({{"event", "progress"}});  // a warning, not a failure
}

}  // namespace
}  // namespace th::train
