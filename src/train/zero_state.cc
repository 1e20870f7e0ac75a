// What of Zero looks at the state as a whole: checkpoints, export, numbers that are not finite.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "tensor/cpu/optimizer.h"
#include "train/zero.h"

namespace th::train {

/// A weight before any gradient: one of them makes every gradient so.
template <class T>
std::string Zero<T>::not_finite(int64_t* offset) const {
  for (const char* kind : {"weight", "gradient"}) {
    for (int i = 0; i < num_units(); ++i) {
      const std::span<T> grads = own_gradients(i);
      const std::span<float> weights = own_master(i);
      for (size_t k = 0; k < grads.size(); ++k) {
        if (std::isfinite(*kind == 'w' ? weights[k] : to_float(grads[k]))) continue;
        *offset = owned(i).begin + static_cast<int64_t>(k);
        return kind;
      }
    }
  }
  return "";
}

/// The same message on all ranks: of the first rank whose loss is not finite, and of the first such tensor.
template <class T>
Result<std::string> Zero<T>::tell_not_finite(float loss, double grad_norm, int64_t step) {
  const auto world = static_cast<size_t>(group_.world_size());
  const auto rank = static_cast<size_t>(group_.rank());
  constexpr float kExact = 1 << 20;  // of float32's 2^24: offsets travel in two parts
  std::vector<float> found(world * 4, 0.f);
  const std::span<float> mine = std::span(found).subspan(4 * rank, 4);
  int64_t offset = 0;
  const std::string kind = not_finite(&offset);
  mine[0] = std::isfinite(loss) ? 0.f : 1.f;
  mine[1] = kind.empty() ? 0.f : kind == "weight" ? 2.f : 1.f;
  mine[2] = std::floor(static_cast<float>(offset / (1 << 20)));
  mine[3] = static_cast<float>(offset % static_cast<int64_t>(kExact));
  TH_RETURN_IF_ERROR(group_.all_gather(std::span<float>(found)));
  std::string text = fmt::format("step {}: the gradient's norm is {}", step, grad_norm);
  for (size_t r = 0; r < world; ++r) {
    if (found[4 * r] == 0.f) continue;
    text = fmt::format("step {}: the loss of rank {} is not finite", step, r);
    break;
  }
  float worst = 0;  // 2: a weight
  for (size_t r = 0; r < world; ++r) worst = std::max(worst, found[4 * r + 1]);
  for (size_t r = 0; r < world; ++r) {
    if (worst == 0.f || found[4 * r + 1] < worst) continue;
    const auto at =
        static_cast<int64_t>(found[4 * r + 2]) * (1 << 20) + static_cast<int64_t>(found[4 * r + 3]);
    text += fmt::format("; first in the {} of {} (rank {})", worst == 2.f ? "weights" : "gradient",
                        layout_.at(at).name, r);
    break;
  }
  return text + "; lower optimizer.lr, or go on from a checkpoint with another seed";
}

template <class T>
std::vector<StatePart> Zero<T>::state() {
  std::vector<StatePart> parts;
  for (int i = 0; i < num_units(); ++i) {
    parts.push_back({owned(i).begin, own_master(i), m_.as<float>().subspan(owned(i).at, owned(i).size()),
                     v_.as<float>().subspan(owned(i).at, owned(i).size())});
  }
  return parts;
}

template <class T>
std::vector<StatePart> Zero<T>::share() {
  std::vector<StatePart> parts = state();
  if (options_.stage > 0) return parts;
  const std::vector<Owned> cut = owned_parts(layout_, group_.rank(), group_.world_size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto from = static_cast<size_t>(cut[i].begin - parts[i].begin);
    const auto take = [&](std::span<float> all) { return all.subspan(from, cut[i].size()); };
    parts[i] = {cut[i].begin, take(parts[i].weights), take(parts[i].m), take(parts[i].v)};
  }
  return parts;
}

template <class T>
void Zero<T>::drop(std::span<const float> part) const {
  const std::span<const std::byte> bytes = std::as_bytes(part);
  for (const Memory* memory : {&weights_, &master_, &m_, &v_}) {
    const std::span<const std::byte> all = memory->as<const std::byte>();
    if (!bytes.empty() && bytes.data() >= all.data() && bytes.data() < all.data() + all.size())
      memory->drop(bytes);
  }
}

template <class T>
Status Zero<T>::reload() {
  for (int i = 0; i < num_units(); ++i) {
    if constexpr (!std::is_same_v<T, float>)
      tensor::convert(own_weights(i), std::span<const float>(own_master(i)));
    gather_updated(i);
  }
  return queue_.wait_all();
}

template <class T>
Result<std::vector<float>> Zero<T>::gather_weights() {
  std::vector<float> all(static_cast<size_t>(layout_.size));
  for (int i = 0; i < num_units(); ++i) {
    const std::span<float> into =
        std::span(all).subspan(static_cast<size_t>(unit(i).offset), static_cast<size_t>(unit(i).size));
    std::ranges::copy(own_master(i), into.begin() + (owned(i).begin - unit(i).offset));
    if (options_.stage == 0) continue;
    TH_RETURN_IF_ERROR(queue_.wait(queue_.submit("all-gather", i, [&] { return group_.all_gather(into); })));
  }
  return all;
}

template <class T>
int64_t Zero<T>::model_state_bytes() const {
  return static_cast<int64_t>(weights_.bytes() + gradients_.bytes() + master_.bytes() + m_.bytes() +
                              v_.bytes());
}

template <class T>
int64_t Zero<T>::working_bytes() const {
  size_t bytes = 0;
  for (const auto* slots : {&weight_slots_, &gradient_slots_}) {
    for (const Slot& slot : *slots) bytes += slot.memory.bytes();
  }
  for (const Memory* memory : {&weights_, &gradients_, &master_, &m_, &v_}) {
    bytes += memory->is_file() ? kWindow * sizeof(float) : memory->bytes();
  }
  return static_cast<int64_t>(bytes);
}

#define TH_INSTANTIATE(T)                                                        \
  template std::string Zero<T>::not_finite(int64_t*) const;                      \
  template Result<std::string> Zero<T>::tell_not_finite(float, double, int64_t); \
  template std::vector<StatePart> Zero<T>::state();                              \
  template std::vector<StatePart> Zero<T>::share();                              \
  template void Zero<T>::drop(std::span<const float>) const;                     \
  template Status Zero<T>::reload();                                             \
  template Result<std::vector<float>> Zero<T>::gather_weights();                 \
  template int64_t Zero<T>::model_state_bytes() const;                           \
  template int64_t Zero<T>::working_bytes() const;

TH_INSTANTIATE(float)
TH_INSTANTIATE(Bf16)

}  // namespace th::train
