#pragma once
// ZeRO: what a model is trained with, cut over the ranks. Rajbhandari et al. 2020, "ZeRO: Memory
// Optimizations Toward Training Trillion Parameter Models", Table 1, for n parameters in bfloat16 on w ranks:
//
//   stage  cut over the ranks               bytes a rank     wire a rank and step (bytes, w large)
//   0      nothing                          16 n             4 n   all-reduce of gradients
//   1      moments, master weights          (4 + 12/w) n     4 n   reduce-scatter, all-gather of weights
//   2      and gradients                    (2 + 14/w) n     4 n   the same
//   3      and weights                      16/w n           6 n   and weights gathered twice
//
// In float32 weights and gradients are 4 bytes each, there are no master weights, and the sum is 16 again.
// The bucket of all collectives is a unit of the model (a layer): its gradients are on their way while those
// of the next are computed, the weights of the next one are gathered while this one computes, and after an
// update while the rest is updated.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "collective/collective.h"
#include "model/decoder.h"
#include "train/comm_queue.h"
#include "train/memory.h"
#include "train/schedule.h"
#include "train/state_part.h"
#include "train/trace.h"

namespace th::train {

struct ZeroOptions {
  int stage = 1;
  OptimizerOptions optimizer;
  std::filesystem::path offload = {};  // folder of files for what is cut over the ranks; empty: in memory
  Trace* trace = nullptr;              // must outlive what is trained
};

struct StepStats {
  float loss = 0;                  // mean over ranks and micro-batches
  double grad_norm = 0;            // of the whole gradient, before clipping
  bool stop = false;               // some rank wants to stop after this step
  std::vector<float> busy_s = {};  // by rank: what each told update()
};
/// Told that a part of the state was read or written and is not needed now, so that what lies in files may
/// leave memory. Thread: any.
using DoneWith = std::function<void(std::span<const float>)>;

/// Weights T are float or Bf16. Thread: one owner; the group belongs to it.
template <class T>
class Zero final : public model::Parameters<T> {
 public:
  /// Weights are fresh, from `seed`. `group` and `layout` must outlive it. Errors: kResourceExhausted and
  /// kNoSpace, naming how much was wanted; kInvalidArgument (stage).
  static Result<std::unique_ptr<Zero>> create(collective::Group& group, const model::ParameterLayout& layout,
                                              const ZeroOptions& options, uint64_t seed);
  ~Zero() override;

  /// A step begins: `of` micro-batches follow, each a loss_and_gradients() with scale().
  void begin_step(int64_t of);
  void begin_micro_batch(int64_t index);
  float scale() const { return 1.0f / static_cast<float>(group_.world_size() * micro_batches_); }

  Result<const T*> acquire(int unit) override;
  void release(int unit) override;
  Result<typename model::Parameters<T>::Gradients> gradients(int unit) override;
  Status finish(int unit) override;

  /// Ends the step: AdamW on what this rank owns. Errors: those of the group; kInternal when a loss or a
  /// gradient is not finite, naming step, rank and tensor (weights are then unchanged).
  Result<StepStats> update(float loss, double learning_rate, int64_t step, bool wants_stop = false,
                           float busy_s = 0);

  /// All that this rank has, a part a unit; weights that were changed there are in use after reload().
  std::vector<StatePart> state();
  /// Of it what this rank is to keep in a checkpoint: together the ranks' are everything, once.
  std::vector<StatePart> share();
  void drop(std::span<const float> part) const;
  Status reload();
  /// Called before the owned part of a unit is updated: whoever reads the state may wait there.
  void on_update(std::function<void(int unit)> before) { before_update_ = std::move(before); }

  /// What a rank keeps between steps: weights, gradients, master weights, moments.
  int64_t model_state_bytes() const;
  /// In memory at most, offloaded arrays left out: what is being worked on.
  int64_t working_bytes() const;
  /// Of this step so far: written to and read from offload files, computed from what was touched.
  int64_t offload_bytes() const { return offload_bytes_; }
  CommQueue& queue() { return queue_; }
  /// All weights in one buffer on every rank, for export and measuring. Errors: of the group.
  Result<std::vector<float>> gather_weights();

 private:
  static constexpr size_t kWindow = size_t{1} << 22;  // elements that an update has in memory at a time
  struct Slot {                                       // a unit's weights or gradients as a whole, for a while
    Memory memory;
    int unit = -1;
    bool in_use = false;
    CommQueue::Ticket ready = CommQueue::kDone;
  };
  Zero(collective::Group& group, const model::ParameterLayout& layout, const ZeroOptions& options)
      : group_(group), layout_(layout), options_(options), spans_(options.trace), queue_(options.trace) {}
  Status allocate();
  void init(uint64_t seed);
  Result<Memory> array(size_t bytes, bool is_cut) const;
  int num_units() const { return static_cast<int>(layout_.units.size()); }
  const model::Unit& unit(int index) const { return layout_.units[static_cast<size_t>(index)]; }
  const Owned& owned(int index) const { return owned_[static_cast<size_t>(index)]; }
  std::span<T> whole(const Memory& memory, int index) const;  // of an array of everything
  std::span<T> own_gradients(int index) const;
  std::span<T> own_weights(int index) const;
  std::span<float> own_master(int index) const;
  Slot& weight_slot(int index);
  Slot& gradient_slot(int index);
  void fetch(int index);
  void gather_updated(int index);
  void update_unit(int index, double learning_rate, float grad_scale, int64_t step);
  Result<StepStats> agree_on_stats(double squares, float loss, bool wants_stop, float busy_s);
  Result<std::string> tell_not_finite(float loss, double grad_norm, int64_t step);
  std::string not_finite(int64_t* offset) const;

  collective::Group& group_;
  const model::ParameterLayout& layout_;
  const ZeroOptions options_;
  std::vector<Owned> owned_;
  size_t owned_size_ = 0;
  Memory weights_, gradients_;  // of everything, or of what is owned, by stage
  Memory master_, m_, v_;       // of what is owned; no master with float
  std::vector<Slot> weight_slots_, gradient_slots_;
  std::vector<CommQueue::Ticket> ready_;  // by unit: its weights are there (stages 1 and 2)
  std::function<void(int)> before_update_;
  int64_t micro_batches_ = 1, micro_batch_ = 0;
  int64_t offload_bytes_ = 0;
  int last_acquired_ = 0;
  PassSpans spans_;
  CommQueue queue_;  // last: ends before what it works on goes
};

extern template class Zero<float>;
extern template class Zero<Bf16>;

}  // namespace th::train
