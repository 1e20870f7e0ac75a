#pragma once
// A view of numbers in memory, of one of the kinds that the collectives know.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bf16.h"

namespace th::collective {

enum class ElementKind : uint8_t { kFloat32 = 1, kBfloat16 };

constexpr size_t bytes_of(ElementKind kind) {
  return kind == ElementKind::kFloat32 ? sizeof(float) : sizeof(Bf16);
}

/// Made from a vector, array or span of float or Bf16. Views are not stored.
class Elements {
 public:
  template <class Range>
  requires std::constructible_from<std::span<float>, Range&> Elements(Range&& range)
      : Elements(std::span<float>(range)) {}
  template <class Range>
  requires std::constructible_from<std::span<Bf16>, Range&> Elements(Range&& range)
      : Elements(std::span<Bf16>(range)) {}
  Elements(std::span<float> data) : Elements(std::as_writable_bytes(data), ElementKind::kFloat32) {}
  Elements(std::span<Bf16> data) : Elements(std::as_writable_bytes(data), ElementKind::kBfloat16) {}
  /// As many as have room in `bytes`.
  Elements(std::span<std::byte> bytes, ElementKind kind)
      : data_(bytes.data()), size_(bytes.size() / bytes_of(kind)), kind_(kind) {}

  size_t size() const { return size_; }
  ElementKind kind() const { return kind_; }
  std::byte* data() const { return data_; }
  std::span<std::byte> bytes() const { return {data_, size_ * bytes_of(kind_)}; }
  Elements part(size_t begin, size_t size) const {
    return {bytes().subspan(begin * bytes_of(kind_), size * bytes_of(kind_)), kind_};
  }

 private:
  std::byte* data_;
  size_t size_;
  ElementKind kind_;
};

/// into = sum of the sources, each of the size of `into` and of the kind `of`: in float32, in their order,
/// rounded once. A source may be `into` itself when the kinds are the same. `into` of bfloat16 takes sources
/// of either kind, of float32 only float32.
void add_up(Elements into, std::span<const std::byte* const> sources, ElementKind of);

/// to = from, element by element; of the same size. A bfloat16 becomes a float32 or stays; never the other
/// way.
void copy_elements(Elements from, Elements to);

/// memcpy that keeps more of the memory's latency in flight: four streams, on pages of their own, with the
/// lines to be written fetched ahead or, where that is faster, written past the caches. Source: measured,
/// docs/collectives.md.
void copy_bytes(const std::byte* from, std::byte* to, size_t size);

}  // namespace th::collective
