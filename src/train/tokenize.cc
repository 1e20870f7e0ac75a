#include "train/tokenize.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/files.h"
#include "base/text.h"
#include "model/bpe_trainer.h"
#include "train/dataset.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSampleBytes = int64_t{32} << 20;
constexpr size_t kBatchBytes = size_t{4} << 20;
constexpr const char* kDescription = "dataset.json";

std::string skipped_text(const Source& source) {
  std::vector<std::string> parts;
  for (const auto& [why, count] : source.skipped) parts.push_back(fmt::format("{}: {}", why, count));
  return parts.empty() ? "" : "; skipped " + join(parts, ", ");
}

/// Takes each document with the same chance, so that the sample is of the whole source.
Result<model::Tokenizer> learn_tokenizer(const TokenizeOptions& options, Source source) {
  std::string sample;
  Prng prng(1);
  const double chance =
      static_cast<double>(kSampleBytes) / static_cast<double>(std::max<int64_t>(source.bytes, 1));
  DocumentSplit split(options.validation_share);
  TH_RETURN_IF_ERROR(read_documents(source, [&](std::string_view document, int64_t bytes) -> Status {
    const std::string_view part = split.split(document).train;
    if (prng.uniform() < chance && static_cast<int64_t>(sample.size() + part.size()) <= kSampleBytes)
      sample += part;
    if (options.progress) options.progress("learning the tokenizer", bytes, source.bytes);
    return {};
  }));
  if (sample.empty())
    return fail(Code::kInvalidArgument, fmt::format("{}: holds no document to learn from{}",
                                                    options.source.path.string(), skipped_text(source)));
  return model::train_bpe(sample, {.vocab_size = options.vocab_size});
}

/// Encodes documents on all threads and writes them in order.
class Pipeline {
 public:
  Pipeline(const model::Tokenizer& tokenizer, int32_t end, TokenWriter train, TokenWriter validation)
      : tokenizer_(tokenizer), end_(end), train_(std::move(train)), validation_(std::move(validation)) {}

  Status add(std::string_view text, bool is_validation) {
    if (text.empty()) return {};
    parts_.push_back({std::string(text), is_validation, {}});
    bytes_ += text.size();
    return bytes_ >= kBatchBytes ? flush() : Status();
  }

  Status flush() {
    const auto count = static_cast<int64_t>(parts_.size());
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i) parts_[i].tokens = tokenizer_.encode(parts_[i].text);
    for (Part& part : parts_) {
      part.tokens.insert(part.tokens.begin(), end_);
      TH_RETURN_IF_ERROR((part.is_validation ? validation_ : train_)
                             .add_document(part.tokens, static_cast<int64_t>(part.text.size())));
    }
    parts_.clear();
    bytes_ = 0;
    return {};
  }

  TokenWriter& train() { return train_; }
  TokenWriter& validation() { return validation_; }

 private:
  struct Part {
    std::string text;
    bool is_validation;
    std::vector<int32_t> tokens;
  };
  const model::Tokenizer& tokenizer_;
  int32_t end_;
  TokenWriter train_, validation_;
  std::vector<Part> parts_;
  size_t bytes_ = 0;
};

Json part_json(const TokenHeader& header) {
  return {{"documents", header.num_documents},
          {"tokens", header.num_tokens},
          {"text_bytes", header.text_bytes},
          {"sha256", header.sha256}};
}

Status make_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / kDescription, error))
    return fail(Code::kAlreadyExists,
                folder.string() + ": holds a data set already; remove it or name another");
  fs::create_directories(folder, error);
  if (error) return fail(errno_error(folder.string(), error.value()));
  return {};
}

}  // namespace

Result<Json> tokenize(const TokenizeOptions& options) {
  TH_TRY(Source source, find_source(options.source));
  TH_RETURN_IF_ERROR(make_folder(options.out));
  const bool is_learned = options.tokenizer.empty();
  TH_TRY(const model::Tokenizer tokenizer,
         is_learned ? learn_tokenizer(options, source) : model::Tokenizer::load(options.tokenizer));
  const auto end = tokenizer.end_of_text();
  if (!end)
    return fail(Code::kInvalidArgument,
                fmt::format("tokenizer {}: has neither <|endoftext|> nor </s> to part documents with",
                            options.tokenizer.string()));
  TH_TRY(TokenWriter train, TokenWriter::create(options.out / kTrainTokens, tokenizer.vocab_size()));
  TH_TRY(TokenWriter validation,
         TokenWriter::create(options.out / kValidationTokens, tokenizer.vocab_size()));
  Pipeline pipeline(tokenizer, *end, std::move(train), std::move(validation));
  DocumentSplit split(options.validation_share);
  TH_RETURN_IF_ERROR(read_documents(source, [&](std::string_view document, int64_t bytes) -> Status {
    const DocumentSplit::Parts parts = split.split(document);
    TH_RETURN_IF_ERROR(pipeline.add(parts.train, false));
    TH_RETURN_IF_ERROR(pipeline.add(parts.validation, true));
    if (options.progress) options.progress("tokenising", bytes, source.bytes);
    return {};
  }));
  TH_RETURN_IF_ERROR(pipeline.flush());
  TH_TRY(const TokenHeader train_header, pipeline.train().finish());
  TH_TRY(const TokenHeader validation_header, pipeline.validation().finish());
  for (const TokenHeader* header : {&train_header, &validation_header}) {
    if (header->num_documents > 0) continue;
    return fail(Code::kInvalidArgument,
                fmt::format("{}: gives {} documents to learn from and {} to measure on{}; want some of each: "
                            "raise the validation share, or bring more",
                            options.source.path.string(), train_header.num_documents,
                            validation_header.num_documents, skipped_text(source)));
  }
  const model::TokenizerFile file = tokenizer.file();
  TH_RETURN_IF_ERROR(write_file_durable(options.out / file.name, file.content));
  Json description = {{"format", 1},
                      {"files", source.files.size()},
                      {"skipped", source.skipped},
                      {"vocab_size", tokenizer.vocab_size()},
                      {"tokenizer", file.name},
                      {"tokenizer_sha256", sha256_hex(file.content)},
                      {"learned", is_learned},
                      {"validation_share", options.validation_share},
                      {"train", part_json(train_header)},
                      {"validation", part_json(validation_header)}};
  TH_RETURN_IF_ERROR(write_file_durable(options.out / kDescription, description.dump(2) + "\n"));
  return description;
}

}  // namespace th::train
