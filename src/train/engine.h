#pragma once
// A model with what it is trained with, in either precision: what the trainer and the benchmarks drive.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "collective/collective.h"
#include "model/decoder.h"
#include "model/weights.h"
#include "train/zero.h"

namespace th::train {

/// Of weights and gradients; kBf16 with float32 master weights.
enum class Dtype { kFloat32, kBf16 };
/// "float32" or "fp32", "bfloat16" or "bf16". Errors: kInvalidArgument, naming them.
Result<Dtype> parse_dtype(std::string_view text);
std::string_view dtype_name(Dtype dtype);
/// "none", "selective", "full". Errors: kInvalidArgument, naming them.
Result<model::Recompute> parse_recompute(std::string_view text);

struct LoraOptions {
  int64_t rank = 0;  // 0: no adapters, all of the model is trained
  double alpha = 16;
  std::vector<std::string> targets = {};  // names of matrices; none: all of the layers
};

struct EngineOptions {
  Dtype dtype = Dtype::kFloat32;
  int64_t batch = 1;  // sequences of a rank and micro-batch
  int64_t time = 128;
  int64_t micro_batches = 1;
  model::Recompute recompute = model::Recompute::kNone;
  ZeroOptions zero;
  int64_t memory_limit_bytes = 0;  // of a rank, 0: none
  LoraOptions lora = {};
  uint64_t seed = 1;
};

/// Where the time of a step went, on this rank.
struct StepTimes {
  int64_t compute_ns = 0;     // forward and backward, waiting left out
  int64_t optimizer_ns = 0;   // waiting left out
  int64_t waited_ns = 0;      // for collectives
  int64_t collective_ns = 0;  // that collectives took, beside the computation or not
};

/// Thread: one owner. All ranks call the same operations in the same order, loss() too.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const model::ModelConfig& config() const = 0;
  virtual const model::ParameterLayout& layout() const = 0;
  /// Of what is trained, which state() cuts: the model, or its adapters.
  virtual const model::ParameterLayout& state_layout() const { return layout(); }
  /// Weights from elsewhere, before the first step.
  virtual Status load_weights(const model::ReadWeights& read) = 0;

  /// One update from batch · micro_batches sequences of this rank: tokens and targets in row order. Errors:
  /// those of Decoder::loss and Zero::update.
  struct Step {
    std::span<const int32_t> tokens, targets;
    double learning_rate = 0;
    int64_t number = 1;  // 1 at the first update
    bool wants_stop = false;
    int64_t data_ns = 0;  // that this rank took to get them: with the computation what stragglers are told by
  };
  virtual Result<StepStats> step(const Step& step) = 0;
  /// Mean loss over one batch of at most `batch` sequences of at most `time` tokens; nothing changes.
  virtual Result<float> loss(std::span<const int32_t> tokens, std::span<const int32_t> targets, int64_t batch,
                             int64_t time) = 0;

  /// No collective is under way after it; before anybody else uses the group. Errors: of the group.
  virtual Status sync() = 0;
  virtual std::vector<StatePart> state() = 0;
  virtual std::vector<StatePart> share() = 0;
  virtual void drop(std::span<const float> part) const = 0;  // of state() or share(); DoneWith
  virtual Status reload() = 0;
  virtual void on_update(std::function<void(int unit)> before) = 0;
  /// All weights of the model, adapters added, on every rank.
  virtual Result<std::vector<float>> gather_weights() = 0;

  virtual const StepTimes& times() const = 0;  // of the last step
  virtual int64_t model_state_bytes() const = 0;
  virtual int64_t activation_bytes() const = 0;
  virtual int64_t offload_bytes() const = 0;  // of the last step
};

/// `config` has passed check_model_config. Errors: those of Decoder::create and Zero::create;
/// kInvalidArgument when it cannot keep to the memory limit, with what it needs and what takes it.
Result<std::unique_ptr<Engine>> make_engine(collective::Group& group, const model::ModelConfig& config,
                                            const EngineOptions& options);

}  // namespace th::train
