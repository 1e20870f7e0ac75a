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
  float grad_scale;

  explicit AdamWStep(const AdamWOptions& o)
      : beta1(o.beta1),
        beta2(o.beta2),
        one_minus_beta1(1.0f - o.beta1),
        one_minus_beta2(1.0f - o.beta2),
        m_correction(correction(o.beta1, o.step)),
        v_correction(correction(o.beta2, o.step)),
        epsilon(o.epsilon),
        learning_rate(o.learning_rate),
        keep(1.0f - o.learning_rate * o.weight_decay),
        grad_scale(o.grad_scale) {
    TH_CHECK(o.step >= 1);
  }
  static float correction(float beta, int64_t step) {
    return static_cast<float>(1.0 / (1.0 - std::pow(double{beta}, static_cast<double>(step))));
  }
  [[gnu::always_inline]] float update(float param, float grad, float& m, float& v) const {
    const float g = grad * grad_scale;
    m = beta1 * m + one_minus_beta1 * g;
    v = beta2 * v + one_minus_beta2 * (g * g);
    return param * keep - learning_rate * (m * m_correction / (std::sqrt(v * v_correction) + epsilon));
  }
};

TH_KERNEL void adamw_range(float* params, const float* grads, float* m, float* v, const AdamWStep& s,
                           int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) params[i] = s.update(params[i], grads[i], m[i], v[i]);
}

struct AdamWBf16 {
  Bf16* params;
  float* master;
  const Bf16* grads;
  float *m, *v;
};
TH_KERNEL void adamw_bf16_range(const AdamWBf16& a, const AdamWStep& s, int64_t begin, int64_t end) {
  Bf16* params = a.params;
  float *master = a.master, *m = a.m, *v = a.v;
  const Bf16* grads = a.grads;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    master[i] = s.update(master[i], to_float(grads[i]), m[i], v[i]);
    params[i] = to_bf16(master[i]);
  }
}

TH_KERNEL double sum_of_squares_range(const float* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

TH_KERNEL double sum_of_squares_range_bf16(const Bf16* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double value = to_float(x[i]);
    sum += value * value;
  }
  return sum;
}

TH_KERNEL void add_range(float* into, const float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) into[i] += x[i];
}

TH_KERNEL void add_range_bf16(Bf16* into, const Bf16* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) into[i] = to_bf16(to_float(into[i]) + to_float(x[i]));
}
TH_KERNEL void add_range_narrow(Bf16* into, const float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) into[i] = to_bf16(to_float(into[i]) + x[i]);
}
TH_KERNEL void widen_range(float* into, const Bf16* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) into[i] = to_float(x[i]);
}
TH_KERNEL void narrow_range(Bf16* into, const float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) into[i] = to_bf16(x[i]);
}

template <class T>
int64_t size_of(std::span<T> values) {
  return static_cast<int64_t>(values.size());
}

template <class T>
double chunked_sum(std::span<const T> values, double (*sum_range)(const T*, int64_t)) {
  constexpr int64_t kChunk = 1 << 16;
  const int64_t chunks = (size_of(values) + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<size_t>(chunks));
  parallel_ranges(chunks, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t n = std::min(kChunk, size_of(values) - c * kChunk);
      sums[static_cast<size_t>(c)] = sum_range(values.data() + c * kChunk, n);
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

template <class To, class From>
void elementwise(std::span<To> into, std::span<const From> values, void (*range)(To*, const From*, int64_t)) {
  TH_CHECK(into.size() == values.size());
  parallel_ranges(size_of(into), 1, [&](int64_t begin, int64_t end) {
    range(into.data() + begin, values.data() + begin, end - begin);
  });
}

}  // namespace

void adamw_update(std::span<float> params, std::span<const float> grads, AdamWState state,
                  const AdamWOptions& options) {
  TH_CHECK(grads.size() == params.size() && state.m.size() == params.size() &&
           state.v.size() == params.size());
  const AdamWStep s(options);
  parallel_ranges(size_of(params), 1, [&](int64_t begin, int64_t end) {
    adamw_range(params.data() + begin, grads.data() + begin, state.m.data() + begin, state.v.data() + begin,
                s, end - begin);
  });
}

void adamw_update(std::span<Bf16> params, std::span<float> master, std::span<const Bf16> grads,
                  AdamWState state, const AdamWOptions& options) {
  TH_CHECK(grads.size() == params.size() && master.size() == params.size() &&
           state.m.size() == params.size() && state.v.size() == params.size());
  const AdamWStep s(options);
  const AdamWBf16 args{params.data(), master.data(), grads.data(), state.m.data(), state.v.data()};
  parallel_ranges(size_of(params), 1,
                  [&](int64_t begin, int64_t end) { adamw_bf16_range(args, s, begin, end); });
}

double sum_of_squares(std::span<const float> values) { return chunked_sum(values, sum_of_squares_range); }
double sum_of_squares(std::span<const Bf16> values) { return chunked_sum(values, sum_of_squares_range_bf16); }

void add(std::span<float> into, std::span<const float> values) { elementwise(into, values, add_range); }
void add(std::span<Bf16> into, std::span<const Bf16> values) { elementwise(into, values, add_range_bf16); }
void add(std::span<Bf16> into, std::span<const float> values) { elementwise(into, values, add_range_narrow); }
void convert(std::span<float> into, std::span<const float> values) {
  TH_CHECK(into.size() == values.size());
  std::ranges::copy(values, into.begin());
}
void convert(std::span<float> into, std::span<const Bf16> values) { elementwise(into, values, widen_range); }
void convert(std::span<Bf16> into, std::span<const float> values) { elementwise(into, values, narrow_range); }

}  // namespace th::tensor
