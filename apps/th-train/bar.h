#pragma once
// How far long work is, on stderr.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/env.h"
#include "base/units.h"

namespace th {

/// A bar on stderr: in its place on a terminal, elsewhere a line every 10 s.
class Bar {
 public:
  void show(std::string_view what, int64_t done, int64_t of) {
    const int64_t now_ns = Env::real().monotonic_ns();
    if (what != what_) {
      what_ = what;
      begin_ns_ = now_ns;
      if (!is_terminal_) next_ns_ = now_ns + kLineNs;
    }
    if (now_ns < next_ns_) return;
    const double share = of > 0 ? static_cast<double>(done) / static_cast<double>(of) : 0;
    const auto filled = static_cast<int>(share * kWidth);
    const double seconds = std::max(static_cast<double>(now_ns - begin_ns_) / kSecond, 1e-3);
    fmt::print(stderr, "{}{} [{:#<{}}{:.<{}}] {:.0f} % of {}, {}/s{}", is_terminal_ ? "\r\x1b[K" : "", what,
               "", filled, "", kWidth - filled, 100 * share, format_bytes(of),
               format_bytes(static_cast<int64_t>(static_cast<double>(done) / seconds)),
               is_terminal_ ? "" : "\n");
    next_ns_ = now_ns + (is_terminal_ ? kSecond / 10 : kLineNs);
  }
  ~Bar() {
    if (is_terminal_ && !what_.empty()) fmt::print(stderr, "\r\x1b[K");
  }

 private:
  static constexpr int kWidth = 30;
  static constexpr int64_t kLineNs = 10 * kSecond;
  const bool is_terminal_ = ::isatty(STDERR_FILENO) != 0;
  std::string what_;
  int64_t next_ns_ = 0, begin_ns_ = 0;
};

}  // namespace th
