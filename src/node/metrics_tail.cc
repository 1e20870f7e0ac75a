#include "node/metrics_tail.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

namespace th::node {
namespace {
constexpr size_t kMaxWaitingBytes = 256 << 10;
}

MetricsTail::MetricsTail(UniqueFd file, TaskId task) : file_(std::move(file)), task_(std::move(task)) {
  struct stat info {};
  char last = '\n';
  if (fstat(file_.get(), &info) != 0 || info.st_size == 0) return;
  offset_ = info.st_size;
  if (pread(file_.get(), &last, 1, offset_ - 1) == 1 && last != '\n' && write(file_.get(), "\n", 1) == 1)
    ++offset_;
}

bool MetricsTail::has_room() const {
  return waiting_.size() < kMaxMetricsLines && waiting_bytes_ < kMaxWaitingBytes;
}

void MetricsTail::read_more() {
  std::array<char, 16384> buffer;
  if (!file_) return;
  while (has_room()) {
    ssize_t n = pread(file_.get(), buffer.data(), buffer.size(), offset_);
    at_end_ = n <= 0;
    if (at_end_) return;
    std::string_view bytes(buffer.data(), n);
    while (has_room() && !bytes.empty()) {
      size_t end = bytes.find('\n');
      size_t taken = end == std::string_view::npos ? bytes.size() : end + 1;
      if (!skipping_) partial_.append(bytes.substr(0, std::min(end, bytes.size())));
      skipping_ = skipping_ || partial_.size() > kMaxMetricsLineBytes;
      if (end != std::string_view::npos) take_line(partial_);
      bytes.remove_prefix(taken);
      offset_ += static_cast<int64_t>(taken);
    }
  }
  at_end_ = false;
}

void MetricsTail::take_line(std::string_view line) {
  ++line_no_;
  if (!skipping_) {
    if (auto json = parse_json(line, "metrics line"); json && json->is_object()) {
      waiting_.push_back(MetricsLine{task_, line_no_, dump_json(*json)});
      waiting_bytes_ += waiting_.back().line.size();
    }
  }
  partial_.clear();
  skipping_ = false;
}

void MetricsTail::ack(int64_t line_no) {
  while (!waiting_.empty() && waiting_.front().line_no <= line_no) {
    waiting_bytes_ -= waiting_.front().line.size();
    waiting_.pop_front();
  }
}

}  // namespace th::node
