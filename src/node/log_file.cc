#include "node/log_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/units.h"
#include "node/protocol.h"

namespace th::node {
namespace {

constexpr int64_t kKeepBytes = int64_t{8} << 20;

std::string over_limit_note() {
  return fmt::format("\n[th-node: more than {} of output; the rest is dropped]\n",
                     format_bytes(kMaxLogBytes));
}

}  // namespace

Result<LogFile> LogFile::make(std::filesystem::path path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return fail(errno_error(fmt::format("making {}", path.string()), errno));
  return LogFile(std::move(fd), std::move(path));
}

LogFile& LogFile::operator=(LogFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(offset_, other.offset_);
  std::swap(released_, other.released_);
  std::swap(gave_up_, other.gave_up_);
  return *this;
}

LogFile::~LogFile() {
  if (fd_) unlink(path_.c_str());
}

int64_t LogFile::size() const {
  struct stat info {};
  return fd_ && fstat(fd_.get(), &info) == 0 ? info.st_size : 0;
}

std::string LogFile::next_piece() const {
  std::string note = over_limit_note();
  int64_t end = kMaxLogBytes + static_cast<int64_t>(note.size());
  if (gave_up_ || !fd_ || offset_ >= end) return {};
  if (offset_ >= kMaxLogBytes) return size() > kMaxLogBytes ? note.substr(offset_ - kMaxLogBytes) : "";
  std::string piece(std::min<int64_t>(kMaxLogChunkBytes, kMaxLogBytes - offset_), '\0');
  ssize_t n = pread(fd_.get(), piece.data(), piece.size(), offset_);
  piece.resize(std::max<ssize_t>(n, 0));
  return piece;
}

void LogFile::sent_to(int64_t offset) {
  offset_ = std::max(offset, released_);
  if (offset_ - kKeepBytes > released_ + kKeepBytes) release(offset_ - kKeepBytes);
}

void LogFile::trim() {
  if (offset_ >= kMaxLogBytes && size() > offset_) release(size());
}

void LogFile::release(int64_t until) {
  int64_t page_end = until & ~int64_t{4095};
  fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, released_, page_end - released_);
  released_ = std::min(page_end, offset_);
}

void LogFile::give_up() { gave_up_ = true; }

void LogFile::note(std::string_view text) {
  if (fd_ && write(fd_.get(), text.data(), text.size()) < 0) gave_up_ = gave_up_ || errno == EBADF;
}

}  // namespace th::node
