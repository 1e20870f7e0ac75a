#include "tensor/cpu/optimizer.h"

#include <cmath>
#include <vector>

#include "base/result.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

// The update with everything that does not depend on the element worked out.
struct AdamWStep {
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float m_correction, v_correction;    // 1 / (1 - beta^step)
  float epsilon, learning_rate, keep;  // keep: 1 - learning_rate · weight_decay
};

TH_KERNEL void adamw_range(float* params, const float* grads, float* m, float* v, const AdamWStep& s,
                           int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = grads[i];
    const float mi = s.beta1 * m[i] + s.one_minus_beta1 * g;
    const float vi = s.beta2 * v[i] + s.one_minus_beta2 * (g * g);
    m[i] = mi;
    v[i] = vi;
    const float update = mi * s.m_correction / (std::sqrt(vi * s.v_correction) + s.epsilon);
    params[i] = params[i] * s.keep - s.learning_rate * update;
  }
}

TH_KERNEL double sum_of_squares_range(const float* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

TH_KERNEL void scale_range(float* x, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

TH_KERNEL void add_range(float* into, const float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) into[i] += x[i];
}

int64_t size_of(std::span<const float> values) { return static_cast<int64_t>(values.size()); }

}  // namespace

void adamw_update(std::span<float> params, std::span<const float> grads, AdamWState state,
                  const AdamWOptions& options) {
  TH_CHECK(grads.size() == params.size() && state.m.size() == params.size() &&
           state.v.size() == params.size());
  TH_CHECK(options.step >= 1);
  const auto step = static_cast<double>(options.step);
  const AdamWStep s{.beta1 = options.beta1,
                    .beta2 = options.beta2,
                    .one_minus_beta1 = 1.0f - options.beta1,
                    .one_minus_beta2 = 1.0f - options.beta2,
                    .m_correction = static_cast<float>(1.0 / (1.0 - std::pow(double{options.beta1}, step))),
                    .v_correction = static_cast<float>(1.0 / (1.0 - std::pow(double{options.beta2}, step))),
                    .epsilon = options.epsilon,
                    .learning_rate = options.learning_rate,
                    .keep = 1.0f - options.learning_rate * options.weight_decay};
  parallel_ranges(size_of(params), 1, [&](int64_t begin, int64_t end) {
    adamw_range(params.data() + begin, grads.data() + begin, state.m.data() + begin, state.v.data() + begin,
                s, end - begin);
  });
}

double sum_of_squares(std::span<const float> values) {
  constexpr int64_t kChunk = 1 << 16;
  const int64_t chunks = (size_of(values) + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<size_t>(chunks));
  parallel_ranges(chunks, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t n = std::min(kChunk, size_of(values) - c * kChunk);
      sums[static_cast<size_t>(c)] = sum_of_squares_range(values.data() + c * kChunk, n);
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void scale(std::span<float> values, float factor) {
  parallel_ranges(size_of(values), 1, [&](int64_t begin, int64_t end) {
    scale_range(values.data() + begin, factor, end - begin);
  });
}

void add(std::span<float> into, std::span<const float> values) {
  TH_CHECK(into.size() == values.size());
  parallel_ranges(size_of(into), 1, [&](int64_t begin, int64_t end) {
    add_range(into.data() + begin, values.data() + begin, end - begin);
  });
}

}  // namespace th::tensor
