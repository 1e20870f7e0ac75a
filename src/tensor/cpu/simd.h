#pragma once
// For the kernels of this room only: functions compiled for several instruction sets, loops cut over threads,
// and an exp that vectorises. A loop that must run in vector registers carries `#pragma omp simd`.

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cstdint>

// The loader picks AVX-512, AVX2 or baseline code for a function marked so. It works by resolvers that run
// before the sanitizers are set up, hence not under them. Mark leaf functions: the body of a parallel region
// is not covered.
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define TH_KERNEL \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline)) static
#else
#define TH_KERNEL static
#endif

namespace th::tensor {

/// exp(x) within 2 units in the last place on [-87, 88]; beyond, the value at the border. NaN stays NaN.
[[gnu::always_inline]] inline float fast_exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest integer in the low bits
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;                                   // minimax polynomial of Cephes' expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound)) << 23;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
}

/// Cuts [0, count) in one contiguous range a thread and calls body(begin, end). Stays on the caller's thread
/// where count · cost_each (in floats touched, say) is too little to be worth waking others.
template <class Body>
void parallel_ranges(int64_t count, int64_t cost_each, const Body& body) {
  constexpr int64_t kWorthAThread = 1 << 15;
  const int64_t wanted = std::min<int64_t>(count, count * cost_each / kWorthAThread);
  const int threads = static_cast<int>(std::min<int64_t>(wanted, omp_get_max_threads()));
  if (threads <= 1 || omp_in_parallel()) {
    body(int64_t{0}, count);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t parts = omp_get_num_threads();
    const int64_t part = omp_get_thread_num();
    body(count * part / parts, count * (part + 1) / parts);
  }
}

}  // namespace th::tensor
