#include "collective/elements.h"

#include <algorithm>
#include <cstring>

#include "base/result.h"

// AVX-512 or AVX2 where the processor has it; sanitizers run before the choice could be made.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define TH_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#else
#define TH_CLONES
#endif

namespace th::collective {
namespace {

constexpr size_t kBlock = 1024;  // sums that stay in the first cache

template <class T>
[[gnu::always_inline]] inline const T* at(const std::byte* source, size_t index) {
  return reinterpret_cast<const T*>(source) + index;
}

[[gnu::always_inline]] inline void round_to(float sum, float& into) { into = sum; }
[[gnu::always_inline]] inline void round_to(float sum, Bf16& into) { into = to_bf16(sum); }

/// Up to four sources at a time, so that sums are loaded and stored seldom.
template <class From, class To>
[[gnu::always_inline]] inline void add_blocks(std::byte* into, const std::byte* const* sources, size_t num,
                                              size_t size) {
  alignas(64) float sum[kBlock];
  for (size_t begin = 0; begin < size; begin += kBlock) {
    const size_t n = std::min(kBlock, size - begin);
    const From* first = at<From>(sources[0], begin);
    for (size_t i = 0; i < n; ++i) sum[i] = to_float(first[i]);
    size_t s = 1;
    for (; s + 3 <= num; s += 3) {
      const From *a = at<From>(sources[s], begin), *b = at<From>(sources[s + 1], begin),
                 *c = at<From>(sources[s + 2], begin);
      for (size_t i = 0; i < n; ++i) sum[i] = ((sum[i] + to_float(a[i])) + to_float(b[i])) + to_float(c[i]);
    }
    for (; s < num; ++s) {
      const From* a = at<From>(sources[s], begin);
      for (size_t i = 0; i < n; ++i) sum[i] += to_float(a[i]);
    }
    To* out = reinterpret_cast<To*>(into) + begin;
    for (size_t i = 0; i < n; ++i) round_to(sum[i], out[i]);
  }
}

TH_CLONES void add_float(std::byte* into, const std::byte* const* sources, size_t num, size_t size) {
  add_blocks<float, float>(into, sources, num, size);
}
TH_CLONES void add_bf16(std::byte* into, const std::byte* const* sources, size_t num, size_t size) {
  add_blocks<Bf16, Bf16>(into, sources, num, size);
}
TH_CLONES void add_float_to_bf16(std::byte* into, const std::byte* const* sources, size_t num, size_t size) {
  add_blocks<float, Bf16>(into, sources, num, size);
}

}  // namespace

void add_up(Elements into, std::span<const std::byte* const> sources, ElementKind of) {
  const bool narrow = into.kind() == ElementKind::kBfloat16;
  TH_CHECK(narrow || of == ElementKind::kFloat32);
  if (sources.empty()) return;
  const auto add = !narrow ? add_float : of == ElementKind::kBfloat16 ? add_bf16 : add_float_to_bf16;
  add(into.data(), sources.data(), sources.size(), into.size());
}

void copy_elements(Elements from, Elements to) {
  TH_CHECK(from.size() == to.size());
  if (from.size() == 0) return;
  if (from.kind() == to.kind()) {
    std::memcpy(to.data(), from.data(), from.bytes().size());
    return;
  }
  TH_CHECK(from.kind() == ElementKind::kBfloat16);
  const auto* in = reinterpret_cast<const Bf16*>(from.data());
  auto* out = reinterpret_cast<float*>(to.data());
  for (size_t i = 0; i < from.size(); ++i) out[i] = to_float(in[i]);
}

}  // namespace th::collective
