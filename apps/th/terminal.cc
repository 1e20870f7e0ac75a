#include "terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <thread>

#include "base/env.h"
#include "base/units.h"

namespace th::cli {
namespace {

volatile std::sig_atomic_t interrupts = 0;  // a signal handler can reach nothing else
int catchers = 0;

void on_signal(int) { interrupts = 1; }

size_t columns_of(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// Cut to what fits in one row of the terminal: a line that wraps cannot be overwritten.
std::string fit(std::string_view line) {
  winsize size{};
  size_t width = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
  std::string out;
  for (char c : line) {
    if ((c & 0xC0) != 0x80 && columns_of(out) == width) break;
    out.push_back(c);
  }
  return out;
}

}  // namespace

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - columns_of(row[i]) + 2, ' ');
    }
    while (line.ends_with(' ')) line.pop_back();
    out += line + "\n";
  }
  return out;
}

std::string bar(double part, double whole, int width) {
  double share = whole > 0 ? std::clamp(part / whole, 0.0, 1.0) : 0.0;
  int filled = static_cast<int>(share * width + 0.5);
  return "[" + std::string(size_t(filled), '#') + std::string(size_t(width - filled), '.') + "]";
}

std::string clock_time(int64_t unix_ns) {
  std::time_t seconds = unix_ns / kSecond;
  std::tm local{};
  localtime_r(&seconds, &local);
  char text[16];
  return std::string(text, std::strftime(text, sizeof text, "%H:%M:%S", &local));
}

LiveLine::LiveLine() : terminal_(::isatty(STDERR_FILENO) != 0) {}
LiveLine::~LiveLine() { clear(); }

void LiveLine::show(std::string_view line, std::string_view stage) {
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[K{}", fit(line));
    std::fflush(stderr);
    shown_ = true;
    return;
  }
  int64_t now = monotonic_now_ns();
  if (stage == stage_ && now - printed_ns_ < 10 * kSecond) return;
  stage_ = stage;
  printed_ns_ = now;
  fmt::print(stderr, "{}\n", line);
}

void LiveLine::clear() {
  if (!std::exchange(shown_, false)) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
}

CatchInterrupt::CatchInterrupt() {
  if (catchers++ > 0) return;
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGALRM, &action, nullptr);
}

CatchInterrupt::~CatchInterrupt() {
  if (--catchers > 0) return;
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGALRM, SIG_DFL);
}

bool interrupted() { return interrupts != 0; }

bool pause_ms(int64_t ms) {
  int64_t end = monotonic_now_ns() + ms * kMillisecond;
  while (!interrupted() && monotonic_now_ns() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min<int64_t>(ms, 50)));
  }
  return !interrupted();
}

int64_t monotonic_now_ns() { return Env::real().monotonic_ns(); }

}  // namespace th::cli
