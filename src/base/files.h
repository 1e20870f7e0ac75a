#pragma once
// Files with the guarantees that state needs. All functions: thread-safe, blocking.

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th {

/// Errors: kNotFound, kInvalidArgument (over `max_bytes`; names the limit), kPermissionDenied.
Result<std::string> read_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

/// Whole or not at all, also over a crash: temporary file, fsync, rename, fsync of the folder. `mode`:
/// permission bits. Errors: kNoSpace, kPermissionDenied, kInternal; the old file is then intact.
Status write_file_durable(const std::filesystem::path& path, std::string_view content, int mode = 0644);

/// Makes what was created, renamed or removed in `folder` survive a crash of the machine. Errors: as above.
Status sync_folder(const std::filesystem::path& folder);

/// Whether `path` is `folder` or below it, by their names: no link is followed.
bool lies_in(const std::filesystem::path& path, const std::filesystem::path& folder);

/// Of the running program, where its siblings lie.
std::filesystem::path program_folder();

/// An advisory lock (flock) on `path`, held until destroyed. A second holder gets kAlreadyExists with the pid
/// of the first.
class FileLock {
 public:
  static Result<FileLock> acquire(const std::filesystem::path& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

/// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();
  int get() const { return fd_; }
  int release();
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace th
