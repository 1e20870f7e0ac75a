#include "serve/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "base/result.h"

namespace th::serve {
namespace {

// Compiled once for each vector width; the loader picks the widest that the CPU has.
#define TH_CPU_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define TH_INLINE inline __attribute__((always_inline))

typedef float Vector __attribute__((vector_size(kPanel * sizeof(float)), aligned(4), may_alias));

struct Product {
  float* result;
  const float* input;
  int64_t rows, in, out;
  bool add;
};

TH_INLINE void write_tile(const Product& p, const float* tile, int64_t row, int64_t column) {
  const int64_t width = std::min(kPanel, p.out - column);
  float* to = p.result + row * p.out + column;
  if (p.add) {
    for (int64_t i = 0; i < width; ++i) to[i] += tile[i];
  } else {
    std::memcpy(to, tile, static_cast<size_t>(width) * sizeof(float));
  }
}

// kRows rows of input times kPanels panels from `panel` on; the sums stay in registers.
template <int kRows, int kPanels>
TH_INLINE void multiply_tile(const Product& p, const float* panel, int64_t row, int64_t column) {
  Vector sums[kRows][kPanels] = {};
  const float* input = p.input + row * p.in;
  for (int64_t k = 0; k < p.in; ++k) {
    for (int j = 0; j < kPanels; ++j) {
      const Vector weight = *reinterpret_cast<const Vector*>(panel + (j * p.in + k) * kPanel);
      for (int i = 0; i < kRows; ++i) sums[i][j] += input[i * p.in + k] * weight;
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kPanels; ++j) {
      write_tile(p, reinterpret_cast<const float*>(&sums[i][j]), row + i, column + j * kPanel);
    }
  }
}

// One row alone waits for memory and for the latency of its sums: more panels at once. Many rows share a
// panel.
constexpr int kPanelsAtOnce = 4;
constexpr int kRowsAtOnce = 6;

template <int kPanels>
TH_INLINE void multiply_panels(const Product& p, const float* panel, int64_t column) {
  int64_t row = 0;
  for (; row + kRowsAtOnce <= p.rows; row += kRowsAtOnce) {
    for (int j = 0; j < kPanels; ++j) {
      multiply_tile<kRowsAtOnce, 1>(p, panel + j * p.in * kPanel, row, column + j * kPanel);
    }
  }
  for (; row + 2 <= p.rows; row += 2) {
    constexpr int kPair = std::min(kPanels, 2);
    for (int j = 0; j < kPanels; j += kPair) {
      multiply_tile<2, kPair>(p, panel + j * p.in * kPanel, row, column + j * kPanel);
    }
  }
  if (row < p.rows) multiply_tile<1, kPanels>(p, panel, row, column);
}

TH_CPU_CLONES void multiply_range(const Product& p, const float* data, int64_t first, int64_t last) {
  int64_t at = first;
  for (; at + kPanelsAtOnce <= last; at += kPanelsAtOnce) {
    multiply_panels<kPanelsAtOnce>(p, data + at * p.in * kPanel, at * kPanel);
  }
  for (; at < last; ++at) multiply_panels<1>(p, data + at * p.in * kPanel, at * kPanel);
}

int64_t panels_of(int64_t out) { return (out + kPanel - 1) / kPanel; }

}  // namespace

PackedMatrix::PackedMatrix(int64_t out, int64_t in)
    : out_(out), in_(in), data_(static_cast<size_t>(panels_of(out) * in * kPanel)) {}

void PackedMatrix::fill(int64_t first_row, std::span<const float> weight) {
  const int64_t rows = static_cast<int64_t>(weight.size()) / in_;
  TH_CHECK(rows * in_ == static_cast<int64_t>(weight.size()) && first_row + rows <= out_);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t to = first_row + r;
    float* column = data_.data() + (to / kPanel) * in_ * kPanel + to % kPanel;
    const float* from = weight.data() + r * in_;
    for (int64_t k = 0; k < in_; ++k) column[k * kPanel] = from[k];
  }
}

void PackedMatrix::multiply(float* result, const float* input, int64_t rows, bool add) const {
  const Product product{result, input, rows, in_, out_, add};
  const int64_t groups = (panels_of(out_) + kPanelsAtOnce - 1) / kPanelsAtOnce;
  const int64_t panels = panels_of(out_);
#pragma omp parallel for schedule(static)
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * kPanelsAtOnce;
    multiply_range(product, data_.data(), first, std::min(first + kPanelsAtOnce, panels));
  }
}

}  // namespace th::serve
