#include "tensor/cpu/layers.h"

#include <cmath>

#include "base/result.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

bool valid(const RowDims& dims) { return dims.rows >= 0 && dims.width > 0; }

struct RmsNormArgs {
  const float* inp;
  const float* weight;
  int64_t width;
  float eps;
};

TH_KERNEL void rmsnorm_rows(float* out, float* rstd, const RmsNormArgs& args, int64_t begin, int64_t end) {
  const int64_t width = args.width;
  const float* weight = args.weight;
  for (int64_t r = begin; r < end; ++r) {
    const float* x = args.inp + r * width;
    float* y = out + r * width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float s = 1.0f / std::sqrt(sum / static_cast<float>(width) + args.eps);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) y[i] = x[i] * s * weight[i];
    if (rstd != nullptr) rstd[r] = s;
  }
}

struct RmsNormSaved {
  const float* dout;
  const float* inp;
  const float* weight;
  const float* rstd;
  RowDims dims;
};

// With g = dout·weight: dinp = rstd·g - inp · rstd³ · mean(g·inp).
TH_KERNEL void rmsnorm_input_rows(float* dinp, const RmsNormSaved& saved, int64_t begin, int64_t end) {
  const int64_t width = saved.dims.width;
  const float* weight = saved.weight;
  for (int64_t r = begin; r < end; ++r) {
    const float* x = saved.inp + r * width;
    const float* dy = saved.dout + r * width;
    float* dx = dinp + r * width;
    const float s = saved.rstd[r];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i) dot += dy[i] * weight[i] * x[i];
    const float back = s * s * s * dot / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) dx[i] += s * dy[i] * weight[i] - back * x[i];
  }
}

// Columns [begin, end) of dweight, rows in order: the same bits at any number of threads.
TH_KERNEL void rmsnorm_weight_columns(float* dweight, const RmsNormSaved& saved, int64_t begin, int64_t end) {
  const int64_t width = saved.dims.width;
  for (int64_t r = 0; r < saved.dims.rows; ++r) {
    const float* x = saved.inp + r * width;
    const float* dy = saved.dout + r * width;
    const float s = saved.rstd[r];
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dweight[i] += dy[i] * x[i] * s;
  }
}

struct RopeArgs {
  const RopeTable* table;
  const int32_t* positions;
  RopeDims dims;
  float direction;  // +1 turns, -1 turns back
};

TH_KERNEL void rope_rows(float* x, const RopeArgs& args, int64_t begin, int64_t end) {
  const int64_t half = args.table->head_dim() / 2;
  for (int64_t r = begin; r < end; ++r) {
    const float* cos = args.table->cos(args.positions[r]);
    const float* sin = args.table->sin(args.positions[r]);
    for (int64_t h = 0; h < args.dims.heads; ++h) {
      float* low = x + r * args.dims.stride + h * 2 * half;
      float* high = low + half;
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const float a = low[i], b = high[i];
        const float c = cos[i], s = args.direction * sin[i];
        low[i] = a * c - b * s;
        high[i] = b * c + a * s;
      }
    }
  }
}

void rope(float* x, const RopeTable& table, std::span<const int32_t> positions, RopeDims dims,
          float direction) {
  TH_CHECK(dims.heads > 0 && dims.stride >= dims.heads * table.head_dim());
  for (const int32_t position : positions) TH_CHECK(position >= 0 && position < table.max_positions());
  const RopeArgs args{&table, positions.data(), dims, direction};
  const auto rows = static_cast<int64_t>(positions.size());
  parallel_ranges(rows, dims.heads * table.head_dim(),
                  [&](int64_t begin, int64_t end) { rope_rows(x, args, begin, end); });
}

TH_KERNEL void swiglu_forward_rows(float* out, const float* gate_up, int64_t width, int64_t begin,
                                   int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* gate = gate_up + r * 2 * width;
    const float* up = gate + width;
    float* y = out + r * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) y[i] = gate[i] / (1.0f + fast_exp(-gate[i])) * up[i];
  }
}

TH_KERNEL void swiglu_backward_rows(float* dgate_up, const float* dout, const float* gate_up, int64_t width,
                                    int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* gate = gate_up + r * 2 * width;
    const float* up = gate + width;
    float* dgate = dgate_up + r * 2 * width;
    float* dup = dgate + width;
    const float* dy = dout + r * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      const float g = gate[i];
      const float sigmoid = 1.0f / (1.0f + fast_exp(-g));
      const float slope = sigmoid * (1.0f + g * (1.0f - sigmoid));
      dgate[i] = dy[i] * up[i] * slope;
      dup[i] = dy[i] * g * sigmoid;
    }
  }
}

TH_KERNEL void add_wide_row(float* into, const Bf16* row, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) into[i] += to_float(row[i]);
}

TH_KERNEL void add_row(Bf16* into, const float* row, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) into[i] = to_bf16(to_float(into[i]) + row[i]);
}

TH_KERNEL void add_row(float* into, const float* row, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) into[i] += row[i];
}

}  // namespace

void rmsnorm_forward(float* out, float* rstd, const float* inp, const float* weight, RowDims dims,
                     float eps) {
  TH_CHECK(valid(dims));
  const RmsNormArgs args{inp, weight, dims.width, eps};
  parallel_ranges(dims.rows, dims.width,
                  [&](int64_t begin, int64_t end) { rmsnorm_rows(out, rstd, args, begin, end); });
}

void rmsnorm_backward(float* dinp, float* dweight, const float* dout, const float* inp, const float* weight,
                      const float* rstd, RowDims dims) {
  TH_CHECK(valid(dims));
  const RmsNormSaved saved{dout, inp, weight, rstd, dims};
  parallel_ranges(dims.rows, dims.width,
                  [&](int64_t begin, int64_t end) { rmsnorm_input_rows(dinp, saved, begin, end); });
  parallel_ranges(dims.width, dims.rows,
                  [&](int64_t begin, int64_t end) { rmsnorm_weight_columns(dweight, saved, begin, end); });
}

RopeTable::RopeTable(const Options& options)
    : max_positions_(options.max_positions), half_(options.head_dim / 2) {
  TH_CHECK(options.max_positions > 0 && options.head_dim > 0 && options.head_dim % 2 == 0 &&
           options.theta > 0);
  cos_.resize(static_cast<size_t>(max_positions_ * half_));
  sin_.resize(cos_.size());
  for (int64_t i = 0; i < half_; ++i) {
    const double frequency =
        std::pow(options.theta, -2.0 * static_cast<double>(i) / static_cast<double>(options.head_dim));
    for (int64_t position = 0; position < max_positions_; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      cos_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(std::cos(angle));
      sin_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(std::sin(angle));
    }
  }
}

void rope_forward(float* x, const RopeTable& table, std::span<const int32_t> positions, RopeDims dims) {
  rope(x, table, positions, dims, 1.0f);
}

void rope_backward(float* dx, const RopeTable& table, std::span<const int32_t> positions, RopeDims dims) {
  rope(dx, table, positions, dims, -1.0f);
}

void swiglu_forward(float* out, const float* gate_up, RowDims dims) {
  TH_CHECK(valid(dims));
  parallel_ranges(dims.rows, dims.width * 4, [&](int64_t begin, int64_t end) {
    swiglu_forward_rows(out, gate_up, dims.width, begin, end);
  });
}

void swiglu_backward(float* dgate_up, const float* dout, const float* gate_up, RowDims dims) {
  TH_CHECK(valid(dims));
  parallel_ranges(dims.rows, dims.width * 4, [&](int64_t begin, int64_t end) {
    swiglu_backward_rows(dgate_up, dout, gate_up, dims.width, begin, end);
  });
}

void embedding_forward(float* out, std::span<const int32_t> tokens, const float* weight, int64_t width) {
  TH_CHECK(width > 0);
  for (size_t r = 0; r < tokens.size(); ++r) {
    std::copy_n(weight + tokens[r] * width, width, out + static_cast<int64_t>(r) * width);
  }
}

void embedding_backward(float* dweight, const float* dout, std::span<const int32_t> tokens, int64_t width) {
  TH_CHECK(width > 0);
  for (size_t r = 0; r < tokens.size(); ++r) {
    add_row(dweight + tokens[r] * width, dout + static_cast<int64_t>(r) * width, width);
  }
}

void embedding_forward(float* out, std::span<const int32_t> tokens, const Bf16* weight, int64_t width) {
  std::fill_n(out, static_cast<int64_t>(tokens.size()) * width, 0.0f);
  embedding_add(out, tokens, weight, width);
}

void embedding_add(float* out, std::span<const int32_t> tokens, const float* weight, int64_t width) {
  TH_CHECK(width > 0);
  for (size_t r = 0; r < tokens.size(); ++r)
    add_row(out + static_cast<int64_t>(r) * width, weight + tokens[r] * width, width);
}

void embedding_add(float* out, std::span<const int32_t> tokens, const Bf16* weight, int64_t width) {
  TH_CHECK(width > 0);
  for (size_t r = 0; r < tokens.size(); ++r)
    add_wide_row(out + static_cast<int64_t>(r) * width, weight + tokens[r] * width, width);
}

void embedding_backward(Bf16* dweight, const float* dout, std::span<const int32_t> tokens, int64_t width) {
  TH_CHECK(width > 0);
  for (size_t r = 0; r < tokens.size(); ++r)
    add_row(dweight + tokens[r] * width, dout + static_cast<int64_t>(r) * width, width);
}

}  // namespace th::tensor
