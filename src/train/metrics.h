#pragma once
// The lines of $TH_METRICS (docs/protocols.md) and what a person reads on the terminal.

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/result.h"

namespace th::train {

/// Appends whole lines, one write each, so that a reader or a second writer never sees half of one mixed with
/// another. A line that cannot be written is dropped with one warning: training is worth more than its log.
/// Thread: one owner.
class Metrics {
 public:
  /// `path` empty: nothing is written.
  explicit Metrics(const std::string& path);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void write(const Json& line);

 private:
  void warn(int errno_value);
  std::string path_;
  int fd_ = -1;
  bool warned_ = false;
};

}  // namespace th::train
