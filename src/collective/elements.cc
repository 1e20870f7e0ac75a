#include "collective/elements.h"

#include <algorithm>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

constexpr size_t kBlock = 256;  // sums that stay in the first cache

template <class T>
[[gnu::always_inline]] inline const T* at(const std::byte* source, size_t index) {
  return reinterpret_cast<const T*>(source) + index;
}

[[gnu::always_inline]] inline void prefetch(const void* begin, size_t size) {
  for (size_t line = 0; line < size; line += 64) __builtin_prefetch(static_cast<const char*>(begin) + line);
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
    for (size_t s = 0; s < num; ++s) prefetch(at<From>(sources[s], begin + kBlock), kBlock * sizeof(From));
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

constexpr size_t kStreams = 4;
constexpr size_t kStreamBytes = 16 << 10;
constexpr size_t kLines = 256;  // copied at a time
constexpr size_t kAhead = 256;

/// Without the compiler's leave: __builtin_prefetch reads where PREFETCHW is not told to be there. A
/// processor without it does nothing (Intel's manual, volume 2, PREFETCHW).
[[gnu::always_inline]] inline void prefetch_to_write(const std::byte* line) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*line));
#else
  __builtin_prefetch(line, 1);
#endif
}

/// kStreams parts of `part` bytes each, a multiple of kLines.
TH_CLONES void copy_streams(const std::byte* from, std::byte* to, size_t part) {
  for (size_t at = 0; at < part; at += kLines) {
    for (size_t stream = 0; stream < kStreams; ++stream) {
      const std::byte* in = from + stream * part + at;
      std::byte* out = to + stream * part + at;
      for (size_t line = 0; line < kLines; line += 64) {
        prefetch_to_write(out + kAhead + line);
        __builtin_prefetch(in + kAhead + line);
      }
      std::memcpy(out, in, kLines);
    }
  }
}

#if defined(__x86_64__)
/// On AMD's Zen 4 whole lines written past the caches are the fastest, and they alone do not slow down to a
/// quarter, for seconds at a time, where another core has read the lines; on Intel they are slower.
bool writes_past_caches() {
  static const bool is_faster =
      (__builtin_cpu_init(), __builtin_cpu_is("amd") != 0 && __builtin_cpu_supports("avx512f") != 0);
  return is_faster;
}

/// The same past the caches. `to` begins a line.
__attribute__((target("avx512f"))) void copy_streams_past_caches(const std::byte* from, std::byte* to,
                                                                 size_t part) {
  for (size_t at = 0; at < part; at += kLines) {
    for (size_t stream = 0; stream < kStreams; ++stream) {
      const std::byte* in = from + stream * part + at;
      std::byte* out = to + stream * part + at;
      for (size_t line = 0; line < kLines; line += 64) __builtin_prefetch(in + kAhead + line);
      for (size_t line = 0; line < kLines; line += 64)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(out + line), _mm512_loadu_si512(in + line));
    }
  }
  _mm_sfence();  // before the counts that tell others
}
#else
bool writes_past_caches() { return false; }
void copy_streams_past_caches(const std::byte*, std::byte*, size_t) {}
#endif

}  // namespace

void copy_bytes(const std::byte* from, std::byte* to, size_t size) {
  // Stores that cross lines cost more than loads that do.
  const size_t head = std::min(size, -reinterpret_cast<uintptr_t>(to) % 64);
  if (head != 0) std::memcpy(to, from, head);
  from += head;
  to += head;
  size -= head;
  // What is small stays in the caches.
  const bool past_caches = size >= kStreamBytes && writes_past_caches();
  while (size >= kStreams * kLines) {
    const size_t part = std::min(size / kStreams / kLines * kLines, kStreamBytes);
    (past_caches ? copy_streams_past_caches : copy_streams)(from, to, part);
    from += kStreams * part;
    to += kStreams * part;
    size -= kStreams * part;
  }
  if (size != 0) std::memcpy(to, from, size);
}

void add_up(Elements into, std::span<const std::byte* const> sources, ElementKind of) {
  const bool narrow = into.kind() == ElementKind::kBfloat16;
  TH_CHECK(narrow || of == ElementKind::kFloat32);
  if (sources.empty()) return;
  const auto add = !narrow ? add_float : of == ElementKind::kBfloat16 ? add_bf16 : add_float_to_bf16;
  add(into.data(), sources.data(), sources.size(), into.size());
}

void copy_elements(Elements from, Elements to) {
  TH_CHECK(from.size() == to.size());
  if (from.kind() == to.kind()) return copy_bytes(from.data(), to.data(), from.bytes().size());
  TH_CHECK(from.kind() == ElementKind::kBfloat16);
  const auto* in = reinterpret_cast<const Bf16*>(from.data());
  auto* out = reinterpret_cast<float*>(to.data());
  for (size_t i = 0; i < from.size(); ++i) out[i] = to_float(in[i]);
}

}  // namespace th::collective
