#include "train/memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <utility>

#include "base/files.h"
#include "base/units.h"

namespace th::train {
namespace {

constexpr uintptr_t kPage = 4096;

/// A line of /proc/self/status that is in KiB.
int64_t status_bytes(std::string_view key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kib = 0;
    if (word == key && status >> kib) return kib << 10;
  }
  return 0;
}

}  // namespace

Result<Memory> Memory::allocate(size_t bytes) {
  if (bytes == 0) return Memory();
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    return fail(Code::kResourceExhausted, fmt::format("no memory for {} of weights, gradients or moments",
                                                      format_bytes(static_cast<int64_t>(bytes))));
  }
  madvise(address, bytes, MADV_HUGEPAGE);
  return Memory(address, bytes, false);
}

Result<Memory> Memory::in_file(size_t bytes, const std::filesystem::path& folder) {
  if (bytes == 0) return Memory();
  std::string name = (folder / "offload-XXXXXX").string();
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return fail(errno_error(name, errno));
  unlink(name.c_str());
  const int full = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  void* address = full == 0 ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  const int problem = full != 0 ? full : errno;
  close(fd);
  if (address == MAP_FAILED) {
    return fail(errno_error(
        fmt::format("offload to {}, {}", folder.string(), format_bytes(static_cast<int64_t>(bytes))),
        problem));
  }
  return Memory(address, bytes, true);
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  std::swap(is_file_, other.is_file_);
  return *this;
}

Memory::~Memory() {
  if (address_ != nullptr) munmap(address_, bytes_);
}

void Memory::advise(std::span<const std::byte> part, int advice) const {
  if (!is_file_ || part.empty()) return;
  // Pages at the edges are somebody else's too; they come back when they are touched.
  const auto begin = reinterpret_cast<uintptr_t>(part.data()) / kPage * kPage;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size());
  madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

void Memory::prefetch(std::span<const std::byte> part) const { advise(part, MADV_WILLNEED); }
void Memory::drop(std::span<const std::byte> part) const { advise(part, MADV_DONTNEED); }

int64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }
int64_t resident_bytes() { return status_bytes("VmRSS:"); }

}  // namespace th::train
