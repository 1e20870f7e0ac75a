#include "train/engine.h"

#include <fmt/format.h>

#include "base/env.h"
#include "base/units.h"
#include "train/lora.h"

namespace th::train {
namespace {

/// Of the process itself: code, libraries, what oneDNN keeps, thread stacks.
constexpr int64_t kBaseBytes = int64_t{256} << 20;

template <class T>
class EngineOf final : public Engine {
 public:
  static Result<std::unique_ptr<Engine>> create(collective::Group& group, const model::ModelConfig& config,
                                                const EngineOptions& options) {
    TH_TRY(auto model, model::Decoder<T>::create(config, {.max_batch = options.batch,
                                                          .max_time = options.time,
                                                          .recompute = options.recompute}));
    std::unique_ptr<EngineOf> engine(new EngineOf(std::move(model), options));
    TH_TRY(engine->zero_, Zero<T>::create(group, engine->model_.layout(), options.zero, options.seed));
    TH_RETURN_IF_ERROR(engine->check_memory());
    return engine;
  }

  const model::ModelConfig& config() const override { return model_.config(); }
  const model::ParameterLayout& layout() const override { return model_.layout(); }

  Result<StepStats> step(const Step& step) override {
    const int64_t begin_ns = now_ns(), busy_ns = zero_->queue().busy_ns(), waited_ns = waited();
    const auto floats = static_cast<size_t>(options_.batch * options_.time);
    zero_->begin_step(options_.micro_batches);
    float loss = 0;
    for (int64_t i = 0; i < options_.micro_batches; ++i) {
      zero_->begin_micro_batch(i);
      const size_t at = static_cast<size_t>(i) * floats;
      TH_TRY(const float part,
             model_.loss_and_gradients(*zero_,
                                       {step.tokens.subspan(at, floats), step.targets.subspan(at, floats),
                                        options_.batch, options_.time},
                                       zero_->scale()));
      loss += part / static_cast<float>(options_.micro_batches);
    }
    const int64_t computed_ns = now_ns(), waited_before_ns = waited();
    const int64_t compute_ns = computed_ns - begin_ns - (waited_before_ns - waited_ns);
    TH_TRY(const StepStats stats, zero_->update(loss, step.learning_rate, step.number, step.wants_stop,
                                                static_cast<float>(step.data_ns + compute_ns) / kSecond));
    times_ = {.compute_ns = compute_ns,
              .optimizer_ns = now_ns() - computed_ns - (waited() - waited_before_ns),
              .waited_ns = waited() - waited_ns,
              .collective_ns = zero_->queue().busy_ns() - busy_ns};
    return stats;
  }

  Result<float> loss(std::span<const int32_t> tokens, std::span<const int32_t> targets, int64_t batch,
                     int64_t time) override {
    return model_.loss(*zero_, {tokens, targets, batch, time});
  }

  Status load_weights(const model::ReadWeights& read) override {
    for (const StatePart& part : zero_->state()) {
      TH_RETURN_IF_ERROR(read(part.begin, part.weights));
      drop(part.weights);
    }
    return zero_->reload();
  }

  Status sync() override { return zero_->queue().wait_all(); }
  std::vector<StatePart> state() override { return zero_->state(); }
  std::vector<StatePart> share() override { return zero_->share(); }
  void drop(std::span<const float> part) const override { zero_->drop(part); }
  Status reload() override { return zero_->reload(); }
  void on_update(std::function<void(int)> before) override { zero_->on_update(std::move(before)); }
  Result<std::vector<float>> gather_weights() override { return zero_->gather_weights(); }
  const StepTimes& times() const override { return times_; }
  int64_t model_state_bytes() const override { return zero_->model_state_bytes(); }
  int64_t activation_bytes() const override { return model_.activation_bytes(); }
  int64_t offload_bytes() const override { return zero_->offload_bytes(); }

 private:
  EngineOf(model::Decoder<T> model, const EngineOptions& options)
      : model_(std::move(model)), options_(options) {}

  static int64_t now_ns() { return Env::real().monotonic_ns(); }
  int64_t waited() const { return zero_->queue().waited_ns(); }

  Status check_memory() const {
    const int64_t limit = options_.memory_limit_bytes;
    const int64_t needs = kBaseBytes + zero_->working_bytes() + model_.activation_bytes();
    if (limit == 0 || needs <= limit) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("memory limit {}: a rank needs {}: {} for weights, gradients and moments, {} for "
                            "activations, {} for the process; {}",
                            format_bytes(limit), format_bytes(needs), format_bytes(zero_->working_bytes()),
                            format_bytes(model_.activation_bytes()), format_bytes(kBaseBytes),
                            options_.zero.stage < 3         ? "use ZeRO stage 3"
                            : options_.zero.offload.empty() ? "offload to files"
                                                            : "use a smaller batch, or a higher limit"));
  }

  model::Decoder<T> model_;
  const EngineOptions options_;
  std::unique_ptr<Zero<T>> zero_;
  StepTimes times_;
};

}  // namespace

Result<Dtype> parse_dtype(std::string_view text) {
  if (text == "float32" || text == "fp32") return Dtype::kFloat32;
  if (text == "bfloat16" || text == "bf16") return Dtype::kBf16;
  return fail(Code::kInvalidArgument, fmt::format("want 'float32' or 'bfloat16', got '{}'", text));
}

Result<model::Recompute> parse_recompute(std::string_view text) {
  if (text == "none") return model::Recompute::kNone;
  if (text == "selective") return model::Recompute::kSelective;
  if (text == "full") return model::Recompute::kFull;
  return fail(Code::kInvalidArgument, "want 'none', 'selective' or 'full'");
}

std::string_view dtype_name(Dtype dtype) { return dtype == Dtype::kBf16 ? "bfloat16" : "float32"; }

Result<std::unique_ptr<Engine>> make_engine(collective::Group& group, const model::ModelConfig& config,
                                            const EngineOptions& options) {
  if (options.lora.rank > 0) return make_lora_engine(group, config, options);
  if (options.dtype == Dtype::kBf16) return EngineOf<Bf16>::create(group, config, options);
  return EngineOf<float>::create(group, config, options);
}

}  // namespace th::train
