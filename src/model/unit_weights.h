#pragma once
// For decoder.cc only: what Parameters hand out, tensor by tensor.

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

#include "model/decoder.h"
#include "tensor/cpu/optimizer.h"

namespace th::model {

/// A unit's weights or gradients by their offsets in the flat buffer. Matrices are T; the few vectors behind
/// them (norms, biases) are read, and their gradients summed up, in float32.
template <class T>
class UnitWeights {
 public:
  UnitWeights(const T* values, const Unit& unit) : values_(values), unit_(unit) {
    const T* vectors = values + unit.decayed_size;
    if constexpr (std::is_same_v<T, float>) {
      vectors_ = vectors;
    } else {
      wide_.resize(static_cast<size_t>(unit.size - unit.decayed_size));
      tensor::convert(std::span(wide_), std::span(vectors, wide_.size()));
      vectors_ = wide_.data();
    }
  }
  const T* matrix(int64_t offset) const { return values_ + offset - unit_.offset; }
  const float* vector(int64_t offset) const { return vectors_ + offset - unit_.offset - unit_.decayed_size; }

 private:
  const T* values_;
  const Unit& unit_;
  const float* vectors_;
  std::vector<float> wide_;
};

template <class T>
class UnitGradients {
 public:
  UnitGradients(typename Parameters<T>::Gradients to, const Unit& unit)
      : to_(to), unit_(unit), vectors_(static_cast<size_t>(unit.size - unit.decayed_size)) {}
  T* matrix(int64_t offset) const { return to_.values + offset - unit_.offset; }
  float* vector(int64_t offset) { return vectors_.data() + offset - unit_.offset - unit_.decayed_size; }
  tensor::Write write() const { return to_.write; }
  bool is_wanted() const { return to_.values != nullptr; }
  /// Once all of them are there.
  void end() {
    if (!is_wanted()) return;
    const std::span<T> into(to_.values + unit_.decayed_size, vectors_.size());
    const std::span<const float> from(vectors_);
    if (to_.write == tensor::Write::kAdd) {
      tensor::add(into, from);
    } else {
      tensor::convert(into, from);
    }
  }

 private:
  typename Parameters<T>::Gradients to_;
  const Unit& unit_;
  std::vector<float> vectors_;
};

}  // namespace th::model
