#include "serve/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "base/result.h"

namespace th::serve {
namespace {

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

// How many sums fit into registers: rows and panels of a full tile.
template <int kRowsArg, int kPanelsArg>
struct Tile {
  static constexpr int kRows = kRowsArg, kPanels = kPanelsArg;
};

// A few rows alone wait for memory and for the latency of their sums: more panels at once.
constexpr int kPanelsAtOnce = 4;

template <class Full, int kPanels>
TH_INLINE void multiply_panels(const Product& p, const float* panel, int64_t column) {
  constexpr int kWide = std::min(kPanels, Full::kPanels), kPair = std::min(kPanels, 2);
  int64_t row = 0;
  for (; row + Full::kRows <= p.rows; row += Full::kRows) {
    for (int j = 0; j < kPanels; j += kWide) {
      multiply_tile<Full::kRows, kWide>(p, panel + j * p.in * kPanel, row, column + j * kPanel);
    }
  }
  for (; row + 4 <= p.rows; row += 4) {
    for (int j = 0; j < kPanels; j += kWide) {
      multiply_tile<4, kWide>(p, panel + j * p.in * kPanel, row, column + j * kPanel);
    }
  }
  for (; row + 2 <= p.rows; row += 2) {
    for (int j = 0; j < kPanels; j += kPair) {
      multiply_tile<2, kPair>(p, panel + j * p.in * kPanel, row, column + j * kPanel);
    }
  }
  if (row < p.rows) multiply_tile<1, kPanels>(p, panel, row, column);
}

template <class Full>
TH_INLINE void multiply_range(const Product& p, const float* data, int64_t first, int64_t last) {
  int64_t at = first;
  for (; at + kPanelsAtOnce <= last; at += kPanelsAtOnce) {
    multiply_panels<Full, kPanelsAtOnce>(p, data + at * p.in * kPanel, at * kPanel);
  }
  for (; at < last; ++at) multiply_panels<Full, 1>(p, data + at * p.in * kPanel, at * kPanel);
}

using MultiplyRange = void (*)(const Product&, const float*, int64_t, int64_t);

void multiply_baseline(const Product& p, const float* data, int64_t first, int64_t last) {
  multiply_range<Tile<4, 1>>(p, data, first, last);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void multiply_avx2(const Product& p, const float* data, int64_t first,
                                                       int64_t last) {
  multiply_range<Tile<6, 1>>(p, data, first, last);
}

__attribute__((target("avx512f,avx512vl,fma"))) void multiply_avx512(const Product& p, const float* data,
                                                                     int64_t first, int64_t last) {
  multiply_range<Tile<8, 2>>(p, data, first, last);
}
#endif

MultiplyRange best_for_this_cpu() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return multiply_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return multiply_avx2;
#endif
  return multiply_baseline;
}

constexpr int64_t kWorthThreads = int64_t{1} << 17;  // multiplications

int64_t panels_of(int64_t out) { return (out + kPanel - 1) / kPanel; }

}  // namespace

PackedMatrix::PackedMatrix(int64_t out, int64_t in, std::span<const float> weight)
    : out_(out), in_(in), data_(static_cast<size_t>(panels_of(out) * in * kPanel)) {
  TH_CHECK(out * in == static_cast<int64_t>(weight.size()));
  for (int64_t r = 0; r < out; ++r) {
    float* column = data_.data() + (r / kPanel) * in * kPanel + r % kPanel;
    const float* from = weight.data() + r * in;
    for (int64_t k = 0; k < in; ++k) column[k * kPanel] = from[k];
  }
}

void PackedMatrix::multiply(float* result, const float* input, int64_t rows, bool add) const {
  const Product product{result, input, rows, in_, out_, add};
  const int64_t groups = (panels_of(out_) + kPanelsAtOnce - 1) / kPanelsAtOnce;
  const int64_t panels = panels_of(out_);
  static const MultiplyRange multiply_range = best_for_this_cpu();
  // Waking another thread takes some microseconds.
  [[maybe_unused]] const bool worth_it = rows * in_ * out_ >= kWorthThreads;
#pragma omp parallel for schedule(static) if (worth_it)
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * kPanelsAtOnce;
    multiply_range(product, data_.data(), first, std::min(first + kPanelsAtOnce, panels));
  }
}

}  // namespace th::serve
