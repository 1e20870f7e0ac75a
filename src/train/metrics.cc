#include "train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/log.h"

namespace th::train {

Metrics::Metrics(const std::string& path) : path_(path) {
  if (path.empty()) return;
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) warn(errno);
}

Metrics::~Metrics() {
  if (fd_ >= 0) close(fd_);
}

void Metrics::write(const Json& line) {
  if (fd_ < 0) return;
  const std::string text = dump_json(line) + "\n";
  const ssize_t written = ::write(fd_, text.data(), text.size());
  if (written == static_cast<ssize_t>(text.size())) return;
  warn(written < 0 ? errno : ENOSPC);
  // The rest of a torn line would spoil the next one.
  if (written > 0 && ::write(fd_, "\n", 1) != 1) log_warn("{}: a line is torn", path_);
}

void Metrics::warn(int errno_value) {
  if (!warned_) log_warn("{}; its lines are dropped", errno_error(path_, errno_value).message);
  warned_ = true;
}

}  // namespace th::train
