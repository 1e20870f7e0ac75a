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
  has(error_with("lr: 0.01", "lr: 0.01, schedule: step"), "want 'cosine'");
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
  const OptimizerOptions linear = {.lr = 1, .min_lr_share = 0, .schedule = Schedule::kLinear};
  EXPECT_DOUBLE_EQ(learning_rate(linear, 25, 100), 0.75);
  const OptimizerOptions wsd = {.lr = 1, .min_lr_share = 0.5, .schedule = Schedule::kWsd, .decay_share = 0.2};
  EXPECT_DOUBLE_EQ(learning_rate(wsd, 80, 100), 1);
  EXPECT_DOUBLE_EQ(learning_rate(wsd, 90, 100), 0.75);  // half way of the last fifth
  EXPECT_DOUBLE_EQ(learning_rate(wsd, 100, 100), 0.5);
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
std::vector<double> plain_adamw(std::vector<double> params, const std::vector<bool>& decays,
                                const OptimizerOptions& o, int steps) {
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
      params[i] -= o.lr * (update + (decays[i] ? o.weight_decay * params[i] : 0));
    }
  }
  return params;
}

const model::ModelConfig kTiny = {.vocab_size = 37,
                                  .hidden_size = 8,
                                  .intermediate_size = 12,
                                  .num_hidden_layers = 3,
                                  .num_attention_heads = 2,
                                  .num_key_value_heads = 1,
                                  .head_dim = 4,
                                  .max_position_embeddings = 16};

/// One step whose gradient are the weights themselves, of |weights|²/2.
template <class T>
Result<StepStats> step_downhill(Zero<T>& zero, const model::ParameterLayout& layout, double lr,
                                int64_t step) {
  zero.begin_step(1);
  zero.begin_micro_batch(0);
  for (int unit = static_cast<int>(layout.units.size()) - 1; unit >= 0; --unit) {
    TH_TRY(const T* weights, zero.acquire(unit));
    TH_TRY(auto gradients, zero.gradients(unit));
    for (int64_t i = 0; i < layout.units[static_cast<size_t>(unit)].size; ++i) {
      const float value = to_float(weights[i]) * zero.scale();
      if constexpr (std::is_same_v<T, float>) gradients.values[i] = value;
      if constexpr (std::is_same_v<T, Bf16>) gradients.values[i] = to_bf16(value);
    }
    zero.release(unit);
    TH_RETURN_IF_ERROR(zero.finish(unit));
  }
  return zero.update(1.f, lr, step);
}

/// Weights i ↦ (i mod 17 - 8)/8, which are exact in bfloat16 too.
float start_at(int64_t i) { return static_cast<float>(i % 17 - 8) / 8; }

template <class T>
Result<std::vector<float>> go_downhill(collective::Group& group, const ZeroOptions& options, int steps) {
  const model::ParameterLayout layout(kTiny);
  TH_TRY(auto zero, Zero<T>::create(group, layout, options, 1));
  for (const StatePart& part : zero->state()) {
    for (size_t i = 0; i < part.weights.size(); ++i)
      part.weights[i] = start_at(part.begin + static_cast<int64_t>(i));
  }
  TH_RETURN_IF_ERROR(zero->reload());
  for (int step = 1; step <= steps; ++step)
    TH_RETURN_IF_ERROR(step_downhill(*zero, layout, options.optimizer.lr, step));
  return zero->gather_weights();
}

TEST(Zero, IsPlainAdamWForAnyStageAndNumberOfRanks) {
  constexpr int kSteps = 20;
  const OptimizerOptions optimizer = {.lr = 0.01, .weight_decay = 0.1, .clip = 5};
  const model::ParameterLayout layout(kTiny);
  std::vector<double> start;
  for (int64_t i = 0; i < layout.size; ++i) start.push_back(start_at(i));
  std::vector<bool> decays;
  for (const model::Unit& unit : layout.units) {
    for (int64_t i = 0; i < unit.size; ++i) decays.push_back(i < unit.decayed_size);
  }
  const std::vector<double> expected = plain_adamw(start, decays, optimizer, kSteps);
  TemporaryFolder folder;
  for (int stage = 0; stage <= 3; ++stage) {
    for (int world : {1, 2, 3}) {
      for (bool offload : {false, true}) {
        EXPECT_TRUE(run_gang(world,
                             [&](collective::Group& group) {
                               const ZeroOptions options{stage, optimizer, offload ? folder.path() : ""};
                               const auto weights = go_downhill<float>(group, options, kSteps);
                               if (!weights) return false;
                               for (size_t i = 0; i < expected.size(); ++i) {
                                 if (std::abs((*weights)[i] - expected[i]) > 1e-5) return false;
                               }
                               return true;
                             }))
            << stage << " " << world << " " << offload;
      }
    }
  }
}

TEST(Zero, EachStageGivesTheSameInBf16) {
  const OptimizerOptions optimizer = {.lr = 0.01, .weight_decay = 0.1, .clip = 0};
  for (int world : {1, 2, 4}) {
    EXPECT_TRUE(run_gang(world, [&](collective::Group& group) {
      const auto first = go_downhill<Bf16>(group, {0, optimizer}, 10);
      for (int stage = 1; stage <= 3; ++stage) {
        const auto other = go_downhill<Bf16>(group, {stage, optimizer}, 10);
        if (!first || !other || *first != *other) return false;
      }
      return true;
    })) << world;
  }
}

// Table 1 of the paper, for n parameters on 3 ranks: 16 n, (4 + 12/3) n, (2 + 14/3) n, 16/3 n.
TEST(Zero, ModelStateIsThatOfThePaper) {
  EXPECT_TRUE(run_gang(3, [&](collective::Group& group) {
    const model::ParameterLayout layout(kTiny);
    const auto n = static_cast<double>(layout.size);
    const double want[] = {16 * n, 8 * n, (2 + 14.0 / 3) * n, 16.0 / 3 * n};
    for (int stage = 0; stage <= 3; ++stage) {
      auto zero = Zero<Bf16>::create(group, layout, {.stage = stage, .optimizer = {}}, 1);
      if (!zero || std::abs(static_cast<double>((*zero)->model_state_bytes()) / want[stage] - 1) > 0.05)
        return false;
    }
    return true;
  }));
}

TEST(Zero, ANumberThatIsNotFiniteIsNamedAndChangesNothing) {
  EXPECT_TRUE(run_gang(2, [](collective::Group& group) {
    const model::ParameterLayout layout(kTiny);
    auto zero = Zero<float>::create(group, layout, {.stage = 2, .optimizer = {}}, 1).value();
    const std::vector<float> before = zero->gather_weights().value();
    const int64_t bad = layout.layers[1].down + 95;  // the second rank's
    zero->begin_step(1);
    zero->begin_micro_batch(0);
    for (int unit = 3; unit >= 0; --unit) {
      const model::Unit& at = layout.units[static_cast<size_t>(unit)];
      auto gradients = zero->gradients(unit).value();
      std::fill_n(gradients.values, at.size, 0.f);
      if (group.rank() == 1 && bad >= at.offset && bad < at.offset + at.size)
        gradients.values[bad - at.offset] = NAN;
      if (!zero->finish(unit)) return false;
    }
    const auto stats = zero->update(1.f, 0.1, 7);
    return !stats && stats.error().code == Code::kInternal && stats.error().message.find("step 7: ") == 0 &&
           stats.error().message.find("gradient of model.layers.1.mlp.down_proj.weight (rank 1)") !=
               std::string::npos &&
           zero->gather_weights().value() == before;
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
