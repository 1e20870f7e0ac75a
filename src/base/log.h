#pragma once
// One line a message: time level [program] text. Never log a key, a token or a prompt.

#include <fmt/format.h>

#include <string_view>

namespace th {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

/// To stderr; call once at start. `program` stands in each line. Level from TH_LOG=debug|info|warn|error,
/// else info.
void init_log(std::string_view program);
void log_line(LogLevel level, std::string_view text);
bool log_enabled(LogLevel level);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kDebug))
    log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kInfo))
    log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kWarn))
    log_line(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace th
