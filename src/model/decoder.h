#pragma once
// A decoder-only language model of the Llama or the GPT-2 family, forward and backward. Activations are
// float32; weights and gradients are T, float or Bf16 (matmul.h tells how those are multiplied), and belong
// to somebody else, who hands them out a unit at a time: a flat buffer, ZeRO, a file.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "base/result.h"
#include "model/layout.h"
#include "tensor/cpu/matmul.h"

namespace th::model {

/// Where a model finds its weights and leaves its gradients. Units are those of ParameterLayout. Unit 0 is
/// held from the begin to the end of a pass, of the others one at a time, in ascending order forward and
/// descending order backward. Thread: the model's.
template <class T>
class Parameters {
 public:
  virtual ~Parameters() = default;
  /// The unit's weights, until release(). Errors: of the ranks that are to bring them.
  virtual Result<const T*> acquire(int unit) = 0;
  virtual void release(int /*unit*/) {}
  /// Where the unit's gradients go until finish(), and whether what is there counts. Null: none are wanted.
  struct Gradients {
    T* values;
    tensor::Write write;
  };
  virtual Result<Gradients> gradients(int unit) = 0;
  /// They are whole; others may now take them.
  virtual Status finish(int unit) = 0;
};

/// All in two flat buffers of the caller, of layout.size each; gradients may be empty where none are wanted.
template <class T>
class FlatParameters final : public Parameters<T> {
 public:
  FlatParameters(const ParameterLayout& layout, std::span<const T> weights, std::span<T> gradients = {},
                 tensor::Write write = tensor::Write::kReplace)
      : layout_(layout), weights_(weights), gradients_(gradients), write_(write) {}
  Result<const T*> acquire(int unit) override { return weights_.data() + at(unit); }
  Result<typename Parameters<T>::Gradients> gradients(int unit) override {
    return typename Parameters<T>::Gradients{gradients_.data() + at(unit), write_};
  }
  Status finish(int) override { return {}; }

 private:
  int64_t at(int unit) const { return layout_.units[static_cast<size_t>(unit)].offset; }
  const ParameterLayout& layout_;
  std::span<const T> weights_;
  std::span<T> gradients_;
  tensor::Write write_;
};

/// What a backward makes again instead of keeping it. Selective: attention (its output; its scores are never
/// kept). Full: all of a layer but its input. Source: Korthikanti et al. 2022, "Reducing Activation
/// Recomputation in Large Transformer Models".
enum class Recompute { kNone, kSelective, kFull };

/// Owns the activations for at most max_batch sequences of max_time tokens. Thread: one owner; kernels inside
/// use OMP_NUM_THREADS. The same inputs and thread count give the same bits.
template <class T>
class Decoder {
 public:
  struct Limits {
    int64_t max_batch;
    int64_t max_time;                             // at most max_position_embeddings
    int64_t max_logit_floats = int64_t{1} << 24;  // logits are made so many at a time (64 MiB)
    Recompute recompute = Recompute::kNone;
  };
  /// `config` has passed check_model_config. Errors: kInvalidArgument (limits), kResourceExhausted (no
  /// memory; says how much it wanted).
  static Result<Decoder> create(const ModelConfig& config, const Limits& limits);
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) noexcept;
  ~Decoder();

  const ModelConfig& config() const;
  const ParameterLayout& layout() const;
  /// Bytes of activations and scratch.
  int64_t activation_bytes() const;

  /// A batch in row order: tokens and targets are (batch,time); a target of -1 takes no part in the loss.
  struct Batch {
    std::span<const int32_t> tokens;
    std::span<const int32_t> targets;
    int64_t batch;
    int64_t time;
  };
  /// Mean loss in nats over the targets that count (0 when none does). Errors: kInvalidArgument: batch or
  /// time beyond the limits, sizes that do not match, a token or target outside of the vocabulary (named with
  /// its place); those of `parameters`. A loss that is not finite is returned as it is.
  Result<float> loss(Parameters<T>& parameters, const Batch& batch);
  /// The same, and scale · d(mean loss)/d(weights). The logits' gradient is made where the logits are, so
  /// that neither is kept.
  Result<float> loss_and_gradients(Parameters<T>& parameters, const Batch& batch, float scale = 1);

 private:
  struct State;
  explicit Decoder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

extern template class Decoder<float>;
extern template class Decoder<Bf16>;

}  // namespace th::model
