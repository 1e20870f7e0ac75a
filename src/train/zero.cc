#include "train/zero.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/units.h"
#include "tensor/cpu/optimizer.h"

namespace th::train {
namespace {

constexpr int kLayerSlots = 3;     // weights of the layer at hand, of the next, and of the one before
constexpr int kGradientSlots = 2;  // one is computed while the other is on its way

template <class T>
std::span<const std::byte> bytes_of(std::span<T> values) {
  return std::as_bytes(values);
}

int64_t signed_size(size_t size) { return static_cast<int64_t>(size); }

}  // namespace

std::vector<Owned> owned_parts(const model::ParameterLayout& layout, int rank, int world_size) {
  std::vector<Owned> parts;
  size_t at = 0;
  for (const model::Unit& unit : layout.units) {
    const collective::Shard shard = collective::shard_of(static_cast<size_t>(unit.size), rank, world_size);
    parts.push_back({unit.offset + signed_size(shard.begin), unit.offset + signed_size(shard.end), at});
    at += shard.size();
  }
  return parts;
}

template <class T>
Result<std::unique_ptr<Zero<T>>> Zero<T>::create(collective::Group& group,
                                                 const model::ParameterLayout& layout,
                                                 const ZeroOptions& options, uint64_t seed) {
  if (options.stage < 0 || options.stage > 3)
    return fail(Code::kInvalidArgument, fmt::format("zero: want stage 0 to 3, got {}", options.stage));
  std::unique_ptr<Zero> zero(new Zero(group, layout, options));
  TH_RETURN_IF_ERROR(zero->allocate());
  zero->init(seed);
  return zero;
}

template <class T>
Zero<T>::~Zero() = default;

template <class T>
Result<Memory> Zero<T>::array(size_t bytes, bool is_cut) const {
  if (is_cut && !options_.offload.empty()) return Memory::in_file(bytes, options_.offload);
  return Memory::allocate(bytes);
}

template <class T>
Status Zero<T>::allocate() {
  const int stage = options_.stage;
  owned_ = stage == 0 ? owned_parts(layout_, 0, 1) : owned_parts(layout_, group_.rank(), group_.world_size());
  owned_size_ = owned_.back().at + owned_.back().size();
  const auto all = static_cast<size_t>(layout_.size);
  TH_TRY(weights_, array((stage < 3 ? all : owned_size_) * sizeof(T), stage == 3));
  TH_TRY(gradients_, array((stage < 2 ? all : owned_size_) * sizeof(T), stage >= 2));
  if constexpr (!std::is_same_v<T, float>) {
    TH_TRY(master_, array(owned_size_ * sizeof(float), stage >= 1));
  }
  TH_TRY(m_, array(owned_size_ * sizeof(float), stage >= 1));
  TH_TRY(v_, array(owned_size_ * sizeof(float), stage >= 1));
  ready_.assign(layout_.units.size(), CommQueue::kDone);
  int64_t layer = 0;
  for (size_t i = 1; i < layout_.units.size(); ++i) layer = std::max(layer, layout_.units[i].size);
  const auto slots = [&](std::vector<Slot>& into, int layers) -> Status {
    into.resize(1 + static_cast<size_t>(std::min(layers, num_units() - 1)));
    for (size_t i = 0; i < into.size(); ++i) {
      const int64_t size = i == 0 ? layout_.units[0].size : layer;
      TH_TRY(into[i].memory, Memory::allocate(static_cast<size_t>(size) * sizeof(T)));
    }
    return {};
  };
  if (stage == 3) TH_RETURN_IF_ERROR(slots(weight_slots_, kLayerSlots));
  if (stage >= 2) TH_RETURN_IF_ERROR(slots(gradient_slots_, kGradientSlots));
  return {};
}

template <class T>
void Zero<T>::init(uint64_t seed) {
  std::vector<float> values;
  for (int i = 0; i < num_units(); ++i) {
    const bool whole_unit = options_.stage < 3;
    const int64_t begin = whole_unit ? unit(i).offset : owned(i).begin;
    values.resize(whole_unit ? static_cast<size_t>(unit(i).size) : owned(i).size());
    model::init_parameters(values, begin, layout_, seed);
    const std::span<T> weights = whole_unit ? whole(weights_, i) : own_weights(i);
    tensor::convert(weights, std::span<const float>(values));
    if constexpr (!std::is_same_v<T, float>) {
      std::copy_n(values.begin() + (owned(i).begin - begin), owned(i).size(), own_master(i).begin());
      master_.drop(bytes_of(own_master(i)));
    }
    if (options_.stage == 3) weights_.drop(bytes_of(own_weights(i)));
  }
}

template <class T>
std::span<T> Zero<T>::whole(const Memory& memory, int index) const {
  return memory.as<T>().subspan(static_cast<size_t>(unit(index).offset),
                                static_cast<size_t>(unit(index).size));
}

template <class T>
std::span<T> Zero<T>::own_gradients(int index) const {
  const size_t at = options_.stage < 2 ? static_cast<size_t>(owned(index).begin) : owned(index).at;
  return gradients_.as<T>().subspan(at, owned(index).size());
}

template <class T>
std::span<T> Zero<T>::own_weights(int index) const {
  const size_t at = options_.stage < 3 ? static_cast<size_t>(owned(index).begin) : owned(index).at;
  return weights_.as<T>().subspan(at, owned(index).size());
}

template <class T>
std::span<float> Zero<T>::own_master(int index) const {
  if constexpr (std::is_same_v<T, float>) {
    return own_weights(index);
  } else {
    return master_.as<float>().subspan(owned(index).at, owned(index).size());
  }
}

template <class T>
void Zero<T>::begin_step(int64_t of) {
  micro_batches_ = of;
  micro_batch_ = 0;
  offload_bytes_ = 0;
}

template <class T>
void Zero<T>::begin_micro_batch(int64_t index) {
  micro_batch_ = index;
}

template <class T>
typename Zero<T>::Slot& Zero<T>::weight_slot(int index) {
  if (index == 0) return weight_slots_[0];
  for (size_t i = 1; i < weight_slots_.size(); ++i) {
    if (weight_slots_[i].unit == index) return weight_slots_[i];
  }
  // Of those not in use the one whose unit is farthest: it was used last, or never.
  Slot* farthest = nullptr;
  for (size_t i = 1; i < weight_slots_.size(); ++i) {
    Slot& slot = weight_slots_[i];
    const auto distance = [&](const Slot& s) { return s.unit < 0 ? num_units() : std::abs(s.unit - index); };
    if (!slot.in_use && (farthest == nullptr || distance(slot) > distance(*farthest))) farthest = &slot;
  }
  TH_CHECK(farthest != nullptr);
  return *farthest;
}

/// Begins to bring a unit's weights together, unless that was done.
template <class T>
void Zero<T>::fetch(int index) {
  Slot& slot = weight_slot(index);
  if (slot.unit == index) return;
  slot.unit = index;
  const std::span<T> into = slot.memory.template as<T>().first(static_cast<size_t>(unit(index).size));
  const std::span<T> own = own_weights(index);
  weights_.prefetch(bytes_of(own));
  if (weights_.is_file()) offload_bytes_ += signed_size(own.size_bytes());
  slot.ready = queue_.submit("all-gather", index,
                             [this, into, own, first = owned(index).begin - unit(index).offset]() -> Status {
                               std::ranges::copy(own, into.begin() + first);
                               weights_.drop(bytes_of(own));
                               return group_.all_gather(into);
                             });
}

template <class T>
Result<const T*> Zero<T>::acquire(int index) {
  spans_.acquiring(index);
  if (options_.stage < 3) {
    TH_RETURN_IF_ERROR(queue_.wait(ready_[static_cast<size_t>(index)]));
    spans_.acquired(index);
    return whole(weights_, index).data();
  }
  fetch(index);
  Slot& slot = weight_slot(index);
  slot.in_use = true;
  const int next = index >= last_acquired_ ? index + 1 : index - 1;
  last_acquired_ = index;
  if (next > 0 && next < num_units() && weight_slots_.size() > 2) fetch(next);
  TH_RETURN_IF_ERROR(queue_.wait(slot.ready));
  spans_.acquired(index);
  return slot.memory.template as<T>().data();
}

template <class T>
void Zero<T>::release(int index) {
  spans_.released(index);
  if (options_.stage == 3) weight_slot(index).in_use = false;
}

template <class T>
typename Zero<T>::Slot& Zero<T>::gradient_slot(int index) {
  const int layers = static_cast<int>(gradient_slots_.size()) - 1;
  return gradient_slots_[index == 0 ? 0 : 1 + static_cast<size_t>((index - 1) % layers)];
}

template <class T>
Result<typename model::Parameters<T>::Gradients> Zero<T>::gradients(int index) {
  using To = typename model::Parameters<T>::Gradients;
  spans_.gradients_wanted();
  if (options_.stage < 2) {
    return To{whole(gradients_, index).data(),
              micro_batch_ == 0 ? tensor::Write::kReplace : tensor::Write::kAdd};
  }
  Slot& slot = gradient_slot(index);
  TH_RETURN_IF_ERROR(queue_.wait(slot.ready));
  spans_.gradients_ready();
  return To{slot.memory.template as<T>().data(), tensor::Write::kReplace};
}

template <class T>
Status Zero<T>::finish(int index) {
  if (options_.stage < 2) {
    if (micro_batch_ + 1 < micro_batches_) return {};
    const std::span<T> all = whole(gradients_, index);
    const bool is_whole = options_.stage == 0;
    queue_.submit(is_whole ? "all-reduce" : "reduce-scatter", index, [this, all, is_whole] {
      return is_whole ? group_.all_reduce(all) : group_.reduce_scatter(all);
    });
    return {};
  }
  Slot& slot = gradient_slot(index);
  const std::span<T> all = slot.memory.template as<T>().first(static_cast<size_t>(unit(index).size));
  const std::span<T> own = own_gradients(index);
  if (gradients_.is_file()) offload_bytes_ += signed_size(own.size_bytes()) * (micro_batch_ == 0 ? 1 : 2);
  slot.ready = queue_.submit(
      "reduce-scatter", index,
      [this, all, own, first = owned(index).begin - unit(index).offset, add = micro_batch_ > 0]() -> Status {
        TH_RETURN_IF_ERROR(group_.reduce_scatter(all));
        const std::span<const T> sum = all.subspan(static_cast<size_t>(first), own.size());
        if (add) {
          tensor::add(own, sum);
        } else {
          std::ranges::copy(sum, own.begin());
        }
        gradients_.drop(bytes_of(own));
        return {};
      });
  return {};
}

template <class T>
void Zero<T>::update_unit(int index, double learning_rate, float grad_scale, int64_t step) {
  const OptimizerOptions& o = options_.optimizer;
  tensor::AdamWOptions adamw{.learning_rate = static_cast<float>(learning_rate),
                             .beta1 = static_cast<float>(o.beta1),
                             .beta2 = static_cast<float>(o.beta2),
                             .epsilon = static_cast<float>(o.epsilon),
                             .step = step,
                             .grad_scale = grad_scale};
  const std::span<T> weights = own_weights(index), grads = own_gradients(index);
  const std::span<float> master = own_master(index);
  const std::span<float> m = m_.as<float>().subspan(owned(index).at, weights.size());
  const std::span<float> v = v_.as<float>().subspan(owned(index).at, weights.size());
  // Weight decay is for the matrices, which come first.
  const int64_t decayed_end = unit(index).offset + unit(index).decayed_size;
  const auto decayed =
      static_cast<size_t>(std::clamp(decayed_end, owned(index).begin, owned(index).end) - owned(index).begin);
  for (size_t begin = 0, end = 0; begin < weights.size(); begin = end) {
    end = std::min(begin + kWindow, begin < decayed ? decayed : weights.size());
    adamw.weight_decay = begin < decayed ? static_cast<float>(o.weight_decay) : 0;
    const auto part = [&](auto span) { return span.subspan(begin, end - begin); };
    const tensor::AdamWState state{.m = part(m), .v = part(v)};
    if constexpr (std::is_same_v<T, float>) {
      tensor::adamw_update(part(weights), part(grads), state, adamw);
    } else {
      tensor::adamw_update(part(weights), part(master), part(grads), state, adamw);
    }
    if (!m_.is_file()) continue;
    offload_bytes_ += 2 * signed_size((end - begin) * sizeof(float)) * (master_.bytes() > 0 ? 3 : 2);
    if (gradients_.is_file()) offload_bytes_ += signed_size((end - begin) * sizeof(T));
    if (weights_.is_file()) offload_bytes_ += signed_size((end - begin) * sizeof(T));
    m_.drop(bytes_of(state.m));
    v_.drop(bytes_of(state.v));
    master_.drop(bytes_of(part(master)));
    gradients_.drop(bytes_of(part(grads)));
    weights_.drop(bytes_of(part(weights)));
  }
}

/// Squares travel as two floats and are summed in double, so that the norm, and with it each weight, does not
/// depend on how the state is cut.
template <class T>
Result<StepStats> Zero<T>::agree_on_stats(double squares, float loss, bool wants_stop, float busy_s) {
  const auto world = static_cast<size_t>(group_.world_size());
  if (options_.stage == 0) squares /= static_cast<double>(world);
  constexpr size_t kEach = 5;
  std::vector<float> all(world * kEach);
  const std::span<float> mine = std::span(all).subspan(static_cast<size_t>(group_.rank()) * kEach, kEach);
  mine[0] = static_cast<float>(squares);
  mine[1] = static_cast<float>(squares - static_cast<double>(mine[0]));
  mine[2] = loss;
  mine[3] = wants_stop ? 1.f : 0.f;
  mine[4] = busy_s;
  TH_RETURN_IF_ERROR(spans_.in("wait for the norm", [&] {
    return queue_.wait(
        queue_.submit("all-gather of loss and norm", -1, [&] { return group_.all_gather(all); }));
  }));
  StepStats stats;
  double sum = 0, losses = 0;
  for (size_t r = 0; r < world; ++r) {
    const float* of = all.data() + r * kEach;
    sum += std::isfinite(of[0]) ? static_cast<double>(of[0]) + static_cast<double>(of[1]) : of[0];
    losses += of[2];
    stats.stop = stats.stop || of[3] > 0;
    stats.busy_s.push_back(of[4]);
  }
  stats.loss = static_cast<float>(losses / static_cast<double>(world));
  stats.grad_norm = static_cast<double>(static_cast<float>(std::sqrt(sum)));
  return stats;
}

template <class T>
Result<StepStats> Zero<T>::update(float loss, double learning_rate, int64_t step, bool wants_stop,
                                  float busy_s) {
  TH_RETURN_IF_ERROR(spans_.in("wait for gradients", [&] { return queue_.wait_all(); }));
  double squares = 0;
  for (int i = 0; i < num_units(); ++i) {
    squares += tensor::sum_of_squares(std::span<const T>(own_gradients(i)));
    gradients_.drop(bytes_of(own_gradients(i)));
    if (gradients_.is_file()) offload_bytes_ += signed_size(own_gradients(i).size_bytes());
  }
  TH_TRY(const StepStats stats, agree_on_stats(squares, loss, wants_stop, busy_s));
  if (!std::isfinite(stats.loss) || !std::isfinite(stats.grad_norm)) {
    Result<std::string> text = std::string();
    TH_RETURN_IF_ERROR(queue_.wait(queue_.submit("what is not finite", -1, [&]() -> Status {
      text = tell_not_finite(loss, stats.grad_norm, step);
      return text ? Status() : fail(text.error());
    })));
    return fail(Code::kInternal, *text);
  }
  const double clip = options_.optimizer.clip;
  const bool clips = clip > 0 && stats.grad_norm > clip;
  const float grad_scale = clips ? static_cast<float>(clip / stats.grad_norm) : 1.0f;
  for (int i = 0; i < num_units(); ++i) {
    if (before_update_) before_update_(i);
    spans_.in("optimizer", i, [&] { update_unit(i, learning_rate, grad_scale, step); });
    gather_updated(i);
  }
  return stats;
}

/// The owner's new weights go to everybody; in stage 3 when they are next wanted.
template <class T>
void Zero<T>::gather_updated(int index) {
  if (options_.stage == 3) {
    for (Slot& slot : weight_slots_) slot.unit = -1;
  } else if (options_.stage > 0) {
    const std::span<T> all = whole(weights_, index);
    ready_[static_cast<size_t>(index)] =
        queue_.submit("all-gather", index, [this, all] { return group_.all_gather(all); });
  }
}

template class Zero<float>;
template class Zero<Bf16>;

}  // namespace th::train
