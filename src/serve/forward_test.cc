#include "serve/forward.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/env.h"
#include "serve/test_model.h"

namespace th::serve {
namespace {

std::vector<float> random_floats(size_t count, uint64_t seed) {
  Prng prng(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(prng.normal());
  return values;
}

std::vector<int32_t> random_tokens(size_t count, uint64_t seed) {
  Prng prng(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(prng.below(260));
  return tokens;
}

TEST(PackedMatrix, MultipliesAsTheDefinitionSays) {
  // Sizes around the panels of 16 and the groups of 4 panels, rows around the tiles of 6, 2 and 1.
  for (const int64_t out : {1, 15, 16, 17, 64, 100}) {
    for (const int64_t rows : {1, 2, 3, 6, 7, 13}) {
      const int64_t in = 37;
      const auto weight = random_floats(static_cast<size_t>(out * in), 1);
      const auto input = random_floats(static_cast<size_t>(rows * in), 2);
      const PackedMatrix matrix(out, in, weight);
      std::vector<float> result(static_cast<size_t>(rows * out), 1.0f);
      matrix.multiply(result.data(), input.data(), rows, true);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < out; ++o) {
          double want = 1;
          for (int64_t k = 0; k < in; ++k) {
            want += double{input[static_cast<size_t>(r * in + k)]} * weight[static_cast<size_t>(o * in + k)];
          }
          ASSERT_NEAR(result[static_cast<size_t>(r * out + o)], want, 1e-4) << out << "x" << rows;
        }
      }
    }
  }
}

TEST(PackedMatrix, ARowHasTheSameBitsAloneAndAmongOthers) {
  const int64_t out = 100, in = 300, rows = 29;
  const auto weight = random_floats(static_cast<size_t>(out * in), 3);
  const auto input = random_floats(static_cast<size_t>(rows * in), 4);
  const PackedMatrix matrix(out, in, weight);
  std::vector<float> together(static_cast<size_t>(rows * out)), alone(static_cast<size_t>(out));
  matrix.multiply(together.data(), input.data(), rows);
  for (int64_t r = 0; r < rows; ++r) {
    matrix.multiply(alone.data(), input.data() + r * in, 1);
    for (int64_t o = 0; o < out; ++o) {
      ASSERT_EQ(alone[static_cast<size_t>(o)], together[static_cast<size_t>(r * out + o)]) << r << "," << o;
    }
  }
}

// Logits of the last of `tokens`, fed in pieces of `piece`.
std::vector<float> last_logits(const TestModel& test, std::span<const int32_t> tokens, size_t piece) {
  KvCache cache(test.folder->weights.kv_shape(), 32);
  Forward forward(test.folder->weights, {64, 4, test.config.max_position_embeddings});
  BlockTable table;
  std::vector<float> out;
  for (size_t at = 0; at < tokens.size(); at += piece) {
    const size_t count = std::min(piece, tokens.size() - at);
    TH_CHECK(cache.grow(table, static_cast<int64_t>(at + count)));
    const SequencePiece part{tokens.subspan(at, count), static_cast<int64_t>(at), &table, true};
    const auto logits = forward.run({&part, 1}, cache);
    out.assign(logits.begin(), logits.end());
  }
  return out;
}

class Forwards : public testing::TestWithParam<model::Family> {
 protected:
  const TestModel test = make_test_model(256, GetParam());
};
INSTANTIATE_TEST_SUITE_P(Families, Forwards, testing::Values(model::Family::kLlama, model::Family::kGpt2),
                         [](const auto& info) {
                           return info.param == model::Family::kGpt2 ? "Gpt2" : "Llama";
                         });

TEST_P(Forwards, AgreeWithTheTrainingForward) {
  const auto tokens = random_tokens(50, 5);
  double loss = 0;  // of predicting token i + 1 from the tokens up to i
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const auto logits = last_logits(test, std::span(tokens).first(i + 1), 64);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit});
    loss += std::log(sum) - logits[static_cast<size_t>(tokens[i + 1])];
  }
  loss /= static_cast<double>(tokens.size() - 1);

  auto decoder = model::Decoder<float>::create(test.config, {1, 64});
  ASSERT_TRUE(decoder) << decoder.error().message;
  const std::span all(tokens);
  model::FlatParameters<float> weights(decoder->layout(), test.params);
  const auto want = decoder->loss(weights, {all.first(49), all.subspan(1), 1, 49});
  ASSERT_TRUE(want) << want.error().message;
  EXPECT_GT(loss, 1);
  EXPECT_NEAR(loss, *want, 1e-4);
}

TEST_P(Forwards, GiveTheSameBitsInPieces) {
  const auto tokens = random_tokens(60, 6);
  const auto whole = last_logits(test, tokens, 64);
  for (const size_t piece : {1, 7, 16, 33}) EXPECT_EQ(last_logits(test, tokens, piece), whole) << piece;
}

TEST_P(Forwards, GiveTheSameBitsWhateverElseIsInTheBatch) {
  const auto mine = random_tokens(20, 7), other = random_tokens(33, 8);
  KvCache cache(test.folder->weights.kv_shape(), 32);
  Forward forward(test.folder->weights, {64, 4, 256});
  BlockTable my_table, other_table;
  // Blocks of the two alternate.
  for (int64_t tokens = 16; tokens <= 48; tokens += 16) {
    ASSERT_TRUE(cache.grow(other_table, tokens));
    ASSERT_TRUE(cache.grow(my_table, std::min<int64_t>(tokens, 20)));
  }
  const SequencePiece pieces[] = {{other, 0, &other_table, false}, {mine, 0, &my_table, true}};
  const auto logits = forward.run(pieces, cache);
  EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), last_logits(test, mine, 64));
}

}  // namespace
}  // namespace th::serve
