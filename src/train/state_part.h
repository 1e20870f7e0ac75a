#pragma once
// What of a model's state belongs to which rank.

#include <cstdint>
#include <span>
#include <vector>

#include "model/layout.h"

namespace th::train {

/// What a rank owns of a unit: elements [begin, end) of the flat buffer, and where they begin in its arrays.
struct Owned {
  int64_t begin = 0, end = 0;
  size_t at = 0;
  size_t size() const { return static_cast<size_t>(end - begin); }
};

/// The cut of a layout: each unit over all ranks.
std::vector<Owned> owned_parts(const model::ParameterLayout& layout, int rank, int world_size);

/// A stretch of the flat buffer from `begin` on, with its weights in float32 whatever they are trained in.
struct StatePart {
  int64_t begin = 0;
  std::span<float> weights, m, v;
};

}  // namespace th::train
