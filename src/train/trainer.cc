#include "train/trainer.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>

#include "base/env.h"
#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "model/bpe_trainer.h"
#include "train/bigram.h"
#include "train/checkpoint.h"
#include "train/dataset.h"
#include "train/ds_config.h"
#include "train/engine.h"
#include "train/export.h"
#include "train/init.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/store.h"
#include "train/trace.h"

namespace th::train {
namespace {

constexpr size_t kMaxTextBytes = size_t{4} << 30;
constexpr int64_t kBigramTokens = 1 << 24;
constexpr const char* kModelFolder = "model";

/// For people, on rank 0.
template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  fmt::print("{}\n", fmt::format(format, std::forward<Args>(args)...));
  std::fflush(stdout);
}

/// Rank 0 learns the tokenizer and writes it down; the others read it.
Result<model::Tokenizer> share_tokenizer(const Recipe& recipe, std::string_view text,
                                         collective::Group& group, const std::filesystem::path& file) {
  Result<model::Tokenizer> tokenizer = fail(Code::kUnavailable, "rank 0 could not make the tokenizer");
  if (group.rank() == 0) {
    tokenizer = model::train_bpe(text, {.vocab_size = recipe.data.vocab_size});
    std::error_code error;
    std::filesystem::create_directories(file.parent_path(), error);
    if (tokenizer && group.world_size() > 1) {
      if (Status written = write_file_durable(file, tokenizer->to_json()); !written)
        tokenizer = fail(written.error());
    }
  }
  float made[] = {tokenizer ? 1.f : 0.f};
  TH_RETURN_IF_ERROR(group.broadcast(made, 0));
  if (group.rank() != 0 && made[0] == 1.f) return model::Tokenizer::load(file);
  return tokenizer;
}

/// Numbers below 1e-38 become 0: a gradient that dies out would otherwise make arithmetic several times
/// slower. Threads started later inherit it.
void flush_denormals() {
#if defined(__SSE__)
  constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  _mm_setcsr(_mm_getcsr() | kFlushToZero | kDenormalsAreZero);
#endif
}

/// Adapters of another rank or other matrices are no adapters of this training.
std::string lora_text(const LoraOptions& lora) {
  return fmt::format("lora {} {} {}", lora.rank, lora.alpha, join(lora.targets, ","));
}

class Trainer {
 public:
  Trainer(const Recipe& recipe, collective::Group& group, const TrainOptions& options)
      : recipe_(recipe), group_(group), options_(options), metrics_(is_first() ? options.metrics_file : "") {}

  Result<TrainResult> run() {
    for (const std::string& note : recipe_.notes) {
      if (is_first()) say("{}", note);
    }
    TH_TRY(nodes_, node_names(group_));
    TH_RETURN_IF_ERROR(begin_trace());
    TH_RETURN_IF_ERROR(load_data());
    TH_RETURN_IF_ERROR(build_model());
    TH_RETURN_IF_ERROR(open_store());
    TH_RETURN_IF_ERROR(resume());
    const Status stepped = all_steps();
    if (!stepped && stepped.error().code == Code::kCancelled && store_) {
      if (Status stored = store_->finish(recipe_.checkpoint.store_wait_ns); !stored)
        log_error("{}", stored.error().message);
    }
    TH_RETURN_IF_ERROR(stepped);
    TH_RETURN_IF_ERROR(measure());
    TH_RETURN_IF_ERROR(write_model());
    if (store_) TH_RETURN_IF_ERROR(store_->finish(recipe_.checkpoint.store_wait_ns));
    TH_RETURN_IF_ERROR(end_trace());
    return result_;
  }

 private:
  bool is_first() const { return group_.rank() == 0; }
  DoneWith done_with() const {
    return [this](std::span<const float> part) { engine_->drop(part); };
  }
  int64_t rank_batch() const { return recipe_.batch * recipe_.micro_batches; }  // sequences of a step
  int64_t global_batch() const { return rank_batch() * group_.world_size(); }

  Status begin_trace() {
    if (recipe_.trace.empty()) return {};
    const int64_t second = Env::real().unix_ns() / kSecond;
    constexpr int64_t kLow = 1 << 16;  // halves that a float holds
    float halves[] = {static_cast<float>(second / kLow), static_cast<float>(second % kLow)};
    TH_RETURN_IF_ERROR(group_.broadcast(halves, 0));
    trace_ =
        std::make_unique<Trace>(recipe_.trace, group_.rank(), nodes_[static_cast<size_t>(group_.rank())],
                                static_cast<int64_t>(halves[0]) * kLow + static_cast<int64_t>(halves[1]));
    return {};
  }

  /// A trace that cannot be written costs nothing but a warning.
  Status end_trace() {
    if (!trace_) return {};
    Status ended = trace_->close();
    if (!ended) log_warn("trace: {}", ended.error().message);
    TH_RETURN_IF_ERROR(group_.barrier());
    if (!is_first()) return {};
    ended = merge_traces(recipe_.trace, group_.world_size());
    if (!ended) log_warn("trace: {}; the files of the ranks can be opened one by one", ended.error().message);
    if (ended) say("trace: written to {}; open it at ui.perfetto.dev", recipe_.trace.string());
    return {};
  }

  Status load_data() {
    if (!recipe_.data.set.empty()) return load_data_set();
    TH_TRY(std::filesystem::path path, find_text(recipe_));
    TH_TRY(std::string text, read_file(path, kMaxTextBytes));
    const SplitText split = split_text(text, recipe_.data.validation_share);
    if (recipe_.from.empty()) {
      TH_TRY(tokenizer_, share_tokenizer(recipe_, split.train, group_,
                                         options_.job_folder / "checkpoints" / "tokenizer.json"));
    } else {
      TH_TRY(const std::filesystem::path folder, find_model(recipe_));
      TH_TRY(tokenizer_, model::Tokenizer::load(folder));
    }
    TH_TRY(data_, make_dataset(split, *tokenizer_, recipe_.seq));
    if (is_first()) {
      say("data: {} ({}), {} tokens to learn from, {} to measure on, vocabulary {}", path.string(),
          format_bytes(static_cast<int64_t>(text.size())), data_.train.size(), data_.validation.size(),
          tokenizer_->vocab_size());
    }
    return {};
  }

  Status load_data_set() {
    TH_TRY(const std::filesystem::path folder, find_data_set(recipe_));
    TH_TRY(tokenizer_, model::Tokenizer::load(folder));
    TH_TRY(data_, open_dataset(folder, *tokenizer_, recipe_.seq));
    if (is_first()) {
      say("data: set {}, {} tokens to learn from, {} to measure on, vocabulary {}", recipe_.data.set,
          data_.train.size(), data_.validation.size(), tokenizer_->vocab_size());
    }
    return {};
  }

  Status build_model() {
    TH_TRY(const model::ModelConfig config, shape());
    TH_TRY(engine_,
           make_engine(group_, config,
                       {.dtype = recipe_.dtype,
                        .batch = recipe_.batch,
                        .time = recipe_.seq,
                        .micro_batches = recipe_.micro_batches,
                        .recompute = recipe_.recompute,
                        .zero = {recipe_.zero_stage, recipe_.optimizer, recipe_.offload, trace_.get()},
                        .memory_limit_bytes = recipe_.memory_limit_bytes,
                        .lora = recipe_.lora,
                        .seed = recipe_.seed}));
    checkpoints_.emplace(options_.job_folder / "checkpoints", recipe_.checkpoint.keep, group_,
                         engine_->state_layout());
    if (!recipe_.from.empty()) {
      TH_TRY(const std::filesystem::path folder, find_model(recipe_));
      TH_RETURN_IF_ERROR(init_from_folder(*engine_, folder));
      if (is_first()) say("model: goes on from {}", folder.string());
    }
    engine_->on_update([this](int unit) { checkpoints_->wait_part(unit); });
    fingerprint_ = sha256_hex(model::model_config_json(config) + tokenizer_->file().content +
                              (recipe_.lora.rank > 0 ? lora_text(recipe_.lora) : ""));
    if (is_first()) {
      say("model: {} parameters in {}; {} ranks, ZeRO stage {}, {} tokens a step", engine_->layout().size,
          dtype_name(recipe_.dtype), group_.world_size(), recipe_.zero_stage, global_batch() * recipe_.seq);
    }
    return {};
  }

  Result<model::ModelConfig> shape() {
    if (recipe_.from.empty()) {
      model::ModelConfig config = recipe_.model;
      TH_TRY(config.vocab_size, fit_vocabulary(recipe_.vocab_size, *tokenizer_));
      config.bos_token_id = config.eos_token_id = tokenizer_->end_of_text().value();
      return config;
    }
    TH_TRY(const std::filesystem::path folder, find_model(recipe_));
    TH_TRY(const model::ModelConfig config, read_model_config(folder));
    if (!recipe_.data.set.empty()) {  // a text was read with the model's own
      TH_TRY(const model::Tokenizer own, model::Tokenizer::load(folder));
      if (own.file().content != tokenizer_->file().content)
        return fail(
            Code::kInvalidArgument,
            fmt::format("train.data.set: {} was made with another tokenizer ({} tokens) than the model in "
                        "{} has ({}); make it again with th data add --tokenizer",
                        recipe_.data.set, tokenizer_->vocab_size(), folder.string(), own.vocab_size()));
    }
    TH_RETURN_IF_ERROR(fit_vocabulary(static_cast<int32_t>(config.vocab_size), *tokenizer_));
    return config;
  }

  /// Rank 0 brings what the local folder lacks; the others wait for it.
  Status open_store() {
    if (recipe_.checkpoint.store.empty()) return {};
    const Status opened = is_first() ? fetch_from_store() : Status();
    float good[] = {opened ? 1.f : 0.f};
    TH_RETURN_IF_ERROR(group_.broadcast(good, 0));
    TH_RETURN_IF_ERROR(opened);
    if (good[0] == 0.f) return fail(Code::kUnavailable, "rank 0 could not use the checkpoint store");
    return {};
  }

  Status fetch_from_store() {
    TH_TRY(storage::Account account, storage::account_from_env());
    TH_TRY(storage::Place place, checkpoint_place(recipe_.checkpoint.store, fingerprint_));
    store_ = std::make_unique<CheckpointStore>(
        std::move(account), std::move(place),
        CheckpointStoreOptions{options_.job_folder / "checkpoints", recipe_.checkpoint.keep});
    return store_->fetch_newest();
  }

  Status resume() {
    const std::vector<StatePart> state = engine_->state();
    TH_TRY(std::optional<CheckpointMeta> meta, checkpoints_->load_newest(fingerprint_, state, done_with()));
    if (!meta) return {};
    TH_RETURN_IF_ERROR(engine_->reload());
    step_ = std::min(meta->step, recipe_.steps);
    sequences_ = meta->sequences;
    result_.first_loss = meta->first_loss;
    result_.last_loss = meta->last_loss;
    if (is_first()) {
      say("resume: from the checkpoint of step {}", step_);
      metrics_.write({{"event", "resume"}, {"step", step_}});
      if (store_) store_->upload_if_missing(meta->step);
    }
    return {};
  }

  Status all_steps() {
    SequenceStream stream(data_.train, recipe_.seq, recipe_.seed, sequences_);
    TH_TRY(const double peak_flop_per_s, measure_peak_flop_per_s(group_, recipe_.dtype));
    if (is_first())
      say("peak: {:.0f} GFLOP/s in matrix products on all ranks at once", peak_flop_per_s / 1e9);
    Progress progress({.steps = recipe_.steps,
                       .first_step = step_,
                       .tokens_per_step = global_batch() * recipe_.seq,
                       .flop_per_token = model::training_flop_per_token(engine_->config(), recipe_.seq),
                       .peak_flop_per_s = peak_flop_per_s,
                       .nodes = nodes_},
                      metrics_);
    while (step_ < recipe_.steps) {
      ++step_;
      TH_TRY(const Progress::Step step, one_step(stream));
      const StepStats& stats = step.stats;
      if (step_ == 1) result_.first_loss = stats.loss;
      result_.last_loss = stats.loss;
      if (is_first()) progress.add(step, stats.stop || step_ == recipe_.steps);
      result_.tokens_per_s = progress.tokens_per_s();
      if (checkpoints_->is_writing()) TH_RETURN_IF_ERROR(finish_checkpoint());
      const int64_t every = recipe_.checkpoint.every;
      const bool is_last = stats.stop || step_ == recipe_.steps;
      if (stats.stop || (every > 0 && step_ % every == 0)) TH_RETURN_IF_ERROR(begin_checkpoint());
      if (is_last && checkpoints_->is_writing()) TH_RETURN_IF_ERROR(finish_checkpoint());
      if (stats.stop && step_ < recipe_.steps)
        return fail(Code::kCancelled, fmt::format("stopped after step {}, as it was told to", step_));
    }
    result_.steps = recipe_.steps;
    return {};
  }

  Result<Progress::Step> one_step(SequenceStream& stream) {
    Progress::Step step = {.number = step_,
                           .learning_rate = learning_rate(recipe_.optimizer, step_, recipe_.steps)};
    const int64_t begin_ns = Env::real().monotonic_ns();
    stream.take({group_.rank(), group_.world_size(), rank_batch()}, tokens_, targets_);
    sequences_ = stream.position();
    step.data_ns = Env::real().monotonic_ns() - begin_ns;
    if (trace_) trace_->span(Trace::Track::kCompute, "data", begin_ns);
    TH_TRY(step.stats, engine_->step({.tokens = tokens_,
                                      .targets = targets_,
                                      .learning_rate = step.learning_rate,
                                      .number = step_,
                                      .wants_stop = options_.stop != nullptr && options_.stop->load(),
                                      .data_ns = step.data_ns}));
    step.times = engine_->times();
    if (trace_) trace_->span(Trace::Track::kCompute, fmt::format("step {}", step_), begin_ns);
    return step;
  }

  /// It is written while the next step computes, and counts once that has ended.
  Status begin_checkpoint() {
    TH_RETURN_IF_ERROR(engine_->sync());
    checkpoint_ns_ = Env::real().monotonic_ns();
    return warn_of_checkpoint(
        checkpoints_->begin({step_, sequences_, result_.first_loss, result_.last_loss, fingerprint_},
                            engine_->share(), done_with()));
  }

  Status finish_checkpoint() {
    TH_RETURN_IF_ERROR(engine_->sync());
    const int64_t step = checkpoints_->step();
    const Status finished = checkpoints_->finish();
    if (trace_)
      trace_->span(Trace::Track::kCheckpoints, fmt::format("checkpoint of step {}", step), checkpoint_ns_);
    if (finished && is_first()) metrics_.write({{"event", "checkpoint"}, {"step", step}});
    if (finished && store_) store_->upload(step);
    return warn_of_checkpoint(finished);
  }

  /// A training goes on without a checkpoint, but not without the others.
  Status warn_of_checkpoint(const Status& status) {
    if (status) return {};
    if (checkpoints_->is_group_error()) return status;
    log_warn("no checkpoint at step {}: {}", checkpoints_->step(), status.error().message);
    return {};
  }

  /// Bits per byte of the validation text: each of its tokens is told once, from those before it in its
  /// window.
  Status measure() {
    const std::vector<int32_t>& tokens = data_.validation;
    const auto last = static_cast<int64_t>(tokens.size()) - 1;
    std::vector<float> sums = {0, 0};  // nats of the model, bits of the bigram
    // As many rounds for every rank, since they may have to bring the weights together.
    const int64_t all_ranks = recipe_.seq * group_.world_size();
    for (int64_t first = 0; first < last; first += all_ranks) {
      const int64_t mine = first + group_.rank() * recipe_.seq, begin = mine < last ? mine : 0;
      const int64_t size = std::min(recipe_.seq, last - begin);
      const std::span<const int32_t> all(tokens);
      TH_TRY(float loss, engine_->loss(all.subspan(begin, size), all.subspan(begin + 1, size), 1, size));
      if (mine < last) sums[0] += loss * static_cast<float>(size);
    }
    TH_RETURN_IF_ERROR(engine_->sync());
    if (is_first())
      sums[1] =
          static_cast<float>(Bigram(data_.train.first(kBigramTokens), tokenizer_->vocab_size()).bits(tokens));
    TH_RETURN_IF_ERROR(group_.all_reduce(sums));
    const auto bytes = static_cast<double>(data_.validation_bytes);
    result_.val_bits_per_byte = sums[0] / std::numbers::ln2 / bytes;
    result_.bigram_bits_per_byte = sums[1] / bytes;
    return {};
  }

  Status write_model() {
    TH_TRY(const std::vector<float> weights, engine_->gather_weights());
    Status status;
    if (is_first()) {
      status = export_model(options_.job_folder / kModelFolder, engine_->config(), weights, *tokenizer_);
    }
    float failures[] = {status ? 0.f : 1.f};
    TH_RETURN_IF_ERROR(group_.all_reduce(failures));
    TH_RETURN_IF_ERROR(status);
    if (failures[0] > 0) return fail(Code::kUnavailable, "rank 0 could not write the model");
    if (!is_first()) return {};
    say("validation: {:.4f} bits per byte; a bigram model of the same text: {:.4f}",
        result_.val_bits_per_byte, result_.bigram_bits_per_byte);
    say("model: written to {}/", kModelFolder);
    metrics_.write({{"event", "result"},
                    {"first_loss", result_.first_loss},
                    {"last_loss", result_.last_loss},
                    {"val_bits_per_byte", result_.val_bits_per_byte},
                    {"bigram_bits_per_byte", result_.bigram_bits_per_byte},
                    {"tokens_per_s", std::round(result_.tokens_per_s)},
                    {"steps", result_.steps},
                    {"model_dir", kModelFolder}});
    return {};
  }

  const Recipe& recipe_;
  collective::Group& group_;
  const TrainOptions& options_;
  Metrics metrics_;
  std::vector<std::string> nodes_;          // by rank
  std::unique_ptr<Trace> trace_;            // outlives the engine
  std::unique_ptr<CheckpointStore> store_;  // rank 0, where the recipe names one
  std::optional<model::Tokenizer> tokenizer_;
  Dataset data_;
  std::unique_ptr<Engine> engine_;
  std::optional<Checkpoints> checkpoints_;
  std::string fingerprint_;
  std::vector<int32_t> tokens_, targets_;
  int64_t step_ = 0, sequences_ = 0, checkpoint_ns_ = 0;
  TrainResult result_;
};

}  // namespace

Result<TrainResult> train(const Recipe& recipe, collective::Group& group, const TrainOptions& options) {
  flush_denormals();
  Recipe fitted = recipe;
  TH_RETURN_IF_ERROR(fit_batch(fitted, group.world_size()));
  return Trainer(fitted, group, options).run();
}

}  // namespace th::train
