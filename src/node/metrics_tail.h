#pragma once
// The lines that a task appends to its metrics file, in order, until the controller has stored them.

#include <cstdint>
#include <deque>
#include <string>

#include "base/files.h"
#include "node/protocol.h"

namespace th::node {

/// Lines are numbered from 1 as the file has them from where it ended when the tail was made (earlier
/// attempts share it). One that is not a JSON object or is over kMaxMetricsLineBytes has a number but is left
/// out. What waits stays in the file: at most kMaxMetricsLines are held. Thread: one owner.
class MetricsTail {
 public:
  MetricsTail() = default;
  /// `file` is open for reading and appending; a torn last line, left by a killed writer, is ended.
  MetricsTail(UniqueFd file, TaskId task);

  /// Reads on while there is room. Cost: O(new bytes).
  void read_more();
  /// Lines that were not acked, oldest first.
  const std::deque<MetricsLine>& waiting() const { return waiting_; }
  /// The controller has stored the lines up to this one.
  void ack(int64_t line_no);
  /// Everything in the file is in waiting() or acked (after read_more()).
  bool at_end() const { return at_end_; }

 private:
  void take_line(std::string_view line);
  bool has_room() const;

  UniqueFd file_;
  TaskId task_;
  int64_t offset_ = 0;
  int64_t line_no_ = 0;
  bool at_end_ = true;
  bool skipping_ = false;  // inside a line that is too long
  std::string partial_;
  size_t waiting_bytes_ = 0;
  std::deque<MetricsLine> waiting_;
};

}  // namespace th::node
