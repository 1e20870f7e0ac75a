#include "train/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/env.h"

namespace th::train {
namespace {

constexpr size_t kBlockBytes = 64 << 10;

/// The end of the line that `at` lies in.
size_t line_end(std::string_view text, size_t at) {
  if (at >= text.size()) return text.size();
  const size_t newline = text.find('\n', at);
  return newline == std::string_view::npos ? text.size() : newline + 1;
}

}  // namespace

SplitText split_text(std::string_view text, double validation_share) {
  SplitText split;
  for (size_t begin = 0; begin < text.size();) {
    const size_t size = std::min(kBlockBytes, text.size() - begin);
    const auto train_bytes = static_cast<size_t>(static_cast<double>(size) * (1 - validation_share));
    const size_t cut = line_end(text, begin + train_bytes);
    const size_t end = std::max(cut, line_end(text, begin + size));
    split.train += text.substr(begin, cut - begin);
    split.validation += text.substr(cut, end - cut);
    begin = end;
  }
  return split;
}

Result<Dataset> make_dataset(const SplitText& text, const model::Tokenizer& tokenizer, int64_t seq) {
  Dataset data;
  data.train = tokenizer.encode(text.train);
  data.validation = tokenizer.encode(text.validation);
  data.validation.insert(data.validation.begin(), tokenizer.special_id(model::kEndOfText).value());
  data.validation_bytes = static_cast<int64_t>(text.validation.size());
  for (const auto* part : {&data.train, &data.validation}) {
    if (static_cast<int64_t>(part->size()) > seq) continue;
    return fail(
        Code::kInvalidArgument,
        fmt::format("the text gives {} tokens for training and {} for validation; train.seq {} needs more",
                    data.train.size(), data.validation.size(), seq));
  }
  return data;
}

SequenceOrder::SequenceOrder(int64_t num_tokens, int64_t seq, uint64_t seed) : seq_(seq), seed_(seed) {
  TH_CHECK(num_tokens > seq);
  per_epoch_ = (num_tokens - 1) / seq;
  slack_ = (num_tokens - 1) % seq;
}

void SequenceOrder::shuffle(int64_t epoch) {
  Prng prng(seed_ * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(epoch));
  order_.resize(per_epoch_);
  std::iota(order_.begin(), order_.end(), 0);
  for (int64_t i = per_epoch_ - 1; i > 0; --i) std::swap(order_[i], order_[prng.below(i + 1)]);
  phase_ = static_cast<int64_t>(prng.below(slack_ + 1));
  epoch_ = epoch;
}

int64_t SequenceOrder::start_of(int64_t index) {
  if (index / per_epoch_ != epoch_) shuffle(index / per_epoch_);
  return phase_ + order_[index % per_epoch_] * seq_;
}

}  // namespace th::train
