#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace th {
namespace {

Status write_all(int fd, std::string_view content, const std::filesystem::path& path) {
  while (!content.empty()) {
    ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errno_error(fmt::format("writing {}", path.string()), errno));
    content.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status write_temporary(const std::filesystem::path& temporary, std::string_view content, int mode) {
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd) return fail(errno_error(fmt::format("opening {}", temporary.string()), errno));
  if (::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) {
    return fail(errno_error(fmt::format("chmod {}", temporary.string()), errno));
  }
  TH_RETURN_IF_ERROR(write_all(fd.get(), content, temporary));
  if (::fsync(fd.get()) != 0) return fail(errno_error(fmt::format("syncing {}", temporary.string()), errno));
  return {};
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path, size_t max_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail(errno_error(fmt::format("opening {}", path.string()), errno));
  std::string content;
  char buffer[65536];
  while (true) {
    ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errno_error(fmt::format("reading {}", path.string()), errno));
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > max_bytes) {
      return fail(Code::kInvalidArgument, fmt::format("{} is larger than the {} bytes that are accepted here",
                                                      path.string(), max_bytes));
    }
  }
}

Status sync_folder(const std::filesystem::path& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0)
    return fail(errno_error(fmt::format("syncing {}", folder.string()), errno));
  return {};
}

Status write_file_durable(const std::filesystem::path& path, std::string_view content, int mode) {
  std::filesystem::path temporary = path;
  temporary += fmt::format(".tmp-{}", ::getpid());
  Status status = write_temporary(temporary, content, mode);
  if (status && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = fail(errno_error(fmt::format("renaming to {}", path.string()), errno));
  }
  if (!status) {
    ::unlink(temporary.c_str());
    return status;
  }
  return sync_folder(path.has_parent_path() ? path.parent_path() : ".");
}

bool lies_in(const std::filesystem::path& path, const std::filesystem::path& folder) {
  const auto inside = path.lexically_normal().lexically_relative(folder);
  return !inside.empty() && *inside.begin() != "..";
}

std::filesystem::path program_folder() {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
}

Result<FileLock> FileLock::acquire(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd) return fail(errno_error(fmt::format("opening {}", path.string()), errno));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    std::string holder = read_file(path, 64).value_or("?");
    return fail(Code::kAlreadyExists,
                fmt::format("{} is held by process {}: stop it first, or use another state folder",
                            path.string(), holder.empty() ? "?" : holder));
  }
  std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd.get(), 0) != 0)
    return fail(errno_error(fmt::format("truncating {}", path.string()), errno));
  TH_RETURN_IF_ERROR(write_all(fd.get(), pid, path));
  return FileLock(fd.release());
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) ::close(fd_);
}

int UniqueFd::release() { return std::exchange(fd_, -1); }

}  // namespace th
