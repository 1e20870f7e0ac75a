#pragma once
// Text on a terminal: tables, bars, a line that changes, Ctrl-C.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace th::cli {

/// Columns that line up; the first row is the heading. Cells are UTF-8.
std::string table(const std::vector<std::vector<std::string>>& rows);

/// "[######....]" with `width` cells; `part` of `whole`, clamped.
std::string bar(double part, double whole, int width);

/// "14:03:22" in local time.
std::string clock_time(int64_t unix_ns);

/// One line on stderr that is overwritten; where stderr is no terminal, a new line when `stage` changes or 10
/// s passed.
class LiveLine {
 public:
  LiveLine();
  /// Removes what is shown, so that other text can follow.
  ~LiveLine();
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;
  void show(std::string_view line, std::string_view stage);
  void clear();

 private:
  const bool terminal_;
  bool shown_ = false;
  std::string stage_;
  int64_t printed_ns_ = 0;
};

/// While one lives, Ctrl-C, SIGTERM and SIGALRM do not end the program but make interrupted() true.
class CatchInterrupt {
 public:
  CatchInterrupt();
  ~CatchInterrupt();
  CatchInterrupt(const CatchInterrupt&) = delete;
  CatchInterrupt& operator=(const CatchInterrupt&) = delete;
};
bool interrupted();
/// Sleeps, but not on after an interrupt. Returns !interrupted().
bool pause_ms(int64_t ms);

int64_t monotonic_now_ns();

}  // namespace th::cli
