#include <gtest/gtest.h>

#include <chrono>

#include "base/files.h"
#include "model/bpe_trainer.h"

namespace th::model {
namespace {

TEST(TokenizerSlow, FourMegabytesInThreeSecondsAndBack) {
  const std::string text = read_file(TH_SOURCE_DIR "/recipes/data/kjv.txt").value();
  const auto start = std::chrono::steady_clock::now();
  const Tokenizer tokenizer = train_bpe(text, {.vocab_size = 2048}).value();
  const std::chrono::duration<double> trained = std::chrono::steady_clock::now() - start;
  const std::vector<int32_t> ids = tokenizer.encode(text);
  const std::chrono::duration<double> encoded = std::chrono::steady_clock::now() - start - trained;
  EXPECT_EQ(tokenizer.vocab_size(), 2048);
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_LT(trained.count(), 3);
  std::printf("train %.2f s, encode %.2f s, %.2f bytes a token\n", trained.count(), encoded.count(),
              static_cast<double>(text.size()) / ids.size());
}

}  // namespace
}  // namespace th::model
