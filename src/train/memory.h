#pragma once
// Large arrays of numbers: in memory, or in a file that is mapped and of which only what is being worked on
// stays in memory (ZeRO-Infinity's offload; Rajbhandari et al. 2021).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "base/result.h"

namespace th::train {

/// Zeros at first. Thread: one owner; disjoint parts from several.
class Memory {
 public:
  Memory() = default;
  /// Errors: kResourceExhausted.
  static Result<Memory> allocate(size_t bytes);
  /// The file has no name any more once it is open, so nothing is left behind however the process ends.
  /// Errors: kNoSpace (the whole size is taken from the disk at once), those of opening.
  static Result<Memory> in_file(size_t bytes, const std::filesystem::path& folder);
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  template <class T>
  std::span<T> as() const {
    return {static_cast<T*>(address_), bytes_ / sizeof(T)};
  }
  size_t bytes() const { return bytes_; }
  bool is_file() const { return is_file_; }

  /// The bytes at `part` will be read soon.
  void prefetch(std::span<const std::byte> part) const;
  /// They are not worked on now: they leave the process' memory, and go to the disk when the kernel likes.
  /// Does nothing to arrays in memory.
  void drop(std::span<const std::byte> part) const;

 private:
  Memory(void* address, size_t bytes, bool is_file) : address_(address), bytes_(bytes), is_file_(is_file) {}
  void advise(std::span<const std::byte> part, int advice) const;
  void* address_ = nullptr;
  size_t bytes_ = 0;
  bool is_file_ = false;
};

/// Bytes of this process in memory at most until now (VmHWM), files that it has mapped counted.
int64_t peak_resident_bytes();
/// Now (VmRSS).
int64_t resident_bytes();

}  // namespace th::train
