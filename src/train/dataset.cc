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

Status check_length(const Dataset& data, int64_t seq, std::string_view what) {
  const auto validation = static_cast<int64_t>(data.validation.size());
  if (data.train.size() > seq && validation > seq) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("{} gives {} tokens for training and {} for validation; train.seq {} needs more",
                          what, data.train.size(), validation, seq));
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

void TokenSource::append(int64_t begin, int64_t count, std::vector<int32_t>& out) const {
  if (file_) return file_->tokens(begin, count, out);
  TH_CHECK(begin >= 0 && count >= 0 && begin + count <= size());
  out.insert(out.end(), memory_.begin() + begin, memory_.begin() + begin + count);
}

std::vector<int32_t> TokenSource::first(int64_t count) const {
  std::vector<int32_t> out;
  append(0, std::min(count, size()), out);
  return out;
}

Result<Dataset> make_dataset(const SplitText& text, const model::Tokenizer& tokenizer, int64_t seq) {
  Dataset data;
  data.train = TokenSource(tokenizer.encode(text.train));
  data.validation = tokenizer.encode(text.validation);
  data.validation.insert(data.validation.begin(), tokenizer.end_of_text().value());
  data.validation_bytes = static_cast<int64_t>(text.validation.size());
  TH_RETURN_IF_ERROR(check_length(data, seq, "the text"));
  return data;
}

Result<Dataset> open_dataset(const std::filesystem::path& folder, const model::Tokenizer& tokenizer,
                             int64_t seq) {
  Dataset data;
  TH_TRY(TokenFile train, TokenFile::open(folder / kTrainTokens));
  TH_TRY(TokenFile validation, TokenFile::open(folder / kValidationTokens));
  for (const TokenFile* file : {&train, &validation}) {
    if (file->header().vocab_size == tokenizer.vocab_size()) continue;
    return fail(
        Code::kInvalidArgument,
        fmt::format("data set {}: its tokens are of a vocabulary of {}, its tokenizer's is {}; make it "
                    "again with th data add",
                    folder.string(), file->header().vocab_size, tokenizer.vocab_size()));
  }
  data.validation_bytes = validation.header().text_bytes;
  const int64_t count = std::min(validation.size(), kMaxValidationTokens);
  validation.tokens(0, count, data.validation);
  if (count < validation.size()) {
    data.validation_bytes = 0;
    for (const int32_t id : data.validation)
      data.validation_bytes += static_cast<int64_t>(tokenizer.token_bytes(id).size());
  }
  data.train = TokenSource(std::move(train));
  TH_RETURN_IF_ERROR(check_length(data, seq, "data set " + folder.string()));
  return data;
}

Result<int32_t> fit_vocabulary(int32_t wanted, const model::Tokenizer& tokenizer) {
  if (wanted == 0) return tokenizer.vocab_size();
  if (tokenizer.vocab_size() <= wanted) return wanted;
  return fail(
      Code::kInvalidArgument,
      fmt::format("train.model.vocab_size {} is smaller than the tokenizer's vocabulary of {}; leave it "
                  "out, or take another tokenizer",
                  wanted, tokenizer.vocab_size()));
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

SequenceStream::SequenceStream(const TokenSource& tokens, int64_t seq, uint64_t seed, int64_t position)
    : tokens_(tokens), seq_(seq), position_(position), order_(tokens.size(), seq, seed) {}

void SequenceStream::take(const Batch& batch, std::vector<int32_t>& inputs, std::vector<int32_t>& targets) {
  inputs.clear();
  targets.clear();
  for (int64_t b = 0; b < batch.sequences; ++b) {
    const int64_t start = order_.start_of(position_ + batch.rank * batch.sequences + b);
    tokens_.append(start, seq_, inputs);
    tokens_.append(start + 1, seq_, targets);
  }
  position_ += batch.world_size * batch.sequences;
}

}  // namespace th::train
