#include "base/units.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <charconv>
#include <ctime>
#include <optional>
#include <vector>

#include "base/text.h"

namespace th {
namespace {

constexpr int64_t kLongest = 100 * 365 * kDay;

std::optional<double> to_number(std::string_view text) {
  double value = 0;
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::optional<int64_t> to_digits(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < 0)
    return std::nullopt;
  return value;
}

std::optional<int64_t> unit_ns(std::string_view unit) {
  constexpr std::pair<std::string_view, int64_t> kUnits[] = {
      {"ms", kMillisecond}, {"us", kMicrosecond}, {"ns", 1},  {"s", kSecond},
      {"m", kMinute},       {"h", kHour},         {"d", kDay}};
  for (const auto& [name, ns] : kUnits) {
    if (unit == name) return ns;
  }
  return std::nullopt;
}

/// "1h30m": numbers with units, one after another.
std::optional<double> parse_with_units(std::string_view text) {
  double total = 0;
  while (!text.empty()) {
    size_t digits = 0;
    while (digits < text.size() &&
           (std::isdigit(static_cast<unsigned char>(text[digits])) || text[digits] == '.')) {
      ++digits;
    }
    size_t end = digits;
    while (end < text.size() && std::isalpha(static_cast<unsigned char>(text[end]))) ++end;
    auto number = to_number(text.substr(0, digits));
    auto unit = unit_ns(text.substr(digits, end - digits));
    if (!number || !unit) return std::nullopt;
    total += *number * static_cast<double>(*unit);
    text.remove_prefix(end);
  }
  return total;
}

/// Slurm's forms: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.
std::optional<double> parse_slurm(std::string_view text) {
  int64_t days = 0;
  bool has_days = false;
  if (size_t dash = text.find('-'); dash != std::string_view::npos) {
    auto value = to_digits(text.substr(0, dash));
    if (!value) return std::nullopt;
    days = *value;
    has_days = true;
    text.remove_prefix(dash + 1);
  }
  std::vector<std::string> parts = split(text, ':');
  if (parts.size() > 3) return std::nullopt;
  std::array<int64_t, 3> v{};
  for (size_t i = 0; i < parts.size(); ++i) {
    auto value = to_digits(parts[i]);
    if (!value) return std::nullopt;
    v[i] = *value;
  }
  constexpr double kS = kSecond, kM = kMinute, kH = kHour, kD = kDay;
  if (has_days) return static_cast<double>(days) * kD + v[0] * kH + v[1] * kM + v[2] * kS;
  if (parts.size() == 1) return v[0] * kM;
  if (parts.size() == 2) return v[0] * kM + v[1] * kS;
  return v[0] * kH + v[1] * kM + v[2] * kS;
}

}  // namespace

Result<int64_t> parse_duration_ns(std::string_view text) {
  std::optional<double> ns;
  if (!text.empty() && std::isalpha(static_cast<unsigned char>(text.back()))) {
    ns = parse_with_units(text);
  } else if (!text.empty()) {
    ns = parse_slurm(text);
  }
  if (!ns) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("'{}' is not a duration: write 90s, 1h30m, 2d, or Slurm's MM, HH:MM:SS, D-HH:MM", text));
  }
  if (*ns > static_cast<double>(kLongest)) {
    return fail(Code::kInvalidArgument, fmt::format("duration '{}' is longer than 100 years", text));
  }
  return static_cast<int64_t>(*ns);
}

Result<int64_t> parse_bytes(std::string_view text) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
      {"KB", 1e3},     {"MB", 1e6},        {"GB", 1e9},           {"TB", 1e12},
      {"B", 1.0},      {"", 1.0}};
  size_t digits = 0;
  while (digits < text.size() &&
         (std::isdigit(static_cast<unsigned char>(text[digits])) || text[digits] == '.')) {
    ++digits;
  }
  auto number = to_number(text.substr(0, digits));
  std::string_view unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const auto& [name, factor] : kUnits) {
    if (number && unit == name && *number * factor < 9e18) return static_cast<int64_t>(*number * factor);
  }
  return fail(Code::kInvalidArgument,
              fmt::format("'{}' is not a size: write 512MiB, 3GiB, 2GB or bytes", text));
}

Result<int64_t> parse_money_microusd(std::string_view text) {
  std::string_view rest = text;
  if (!rest.empty() && rest.front() == '$') rest.remove_prefix(1);
  size_t dot = rest.find('.');
  auto whole = to_digits(rest.substr(0, dot));
  std::string fraction = dot == std::string_view::npos ? "0" : std::string(rest.substr(dot + 1));
  auto shown = to_digits(fraction);
  if (!whole || !shown || fraction.size() > 6 || *whole > 1'000'000'000'000) {
    return fail(Code::kInvalidArgument, fmt::format("'{}' is not an amount of dollars: write 1.25 or $1.25, "
                                                    "with at most six places",
                                                    text));
  }
  fraction.resize(6, '0');
  return *whole * 1'000'000 + *to_digits(fraction);
}

std::string format_duration(int64_t ns) {
  if (ns < 0) return "-" + format_duration(-ns);
  if (ns < kMillisecond) return fmt::format("{}us", ns / kMicrosecond);
  if (ns < kSecond) return fmt::format("{}ms", ns / kMillisecond);
  if (ns < kMinute) {
    std::string text = fmt::format("{:.1f}", static_cast<double>(ns / (100 * kMillisecond)) / 10);
    return (text.ends_with(".0") ? text.substr(0, text.size() - 2) : text) + "s";
  }
  int64_t days = ns / kDay, hours = ns % kDay / kHour, minutes = ns % kHour / kMinute,
          seconds = ns % kMinute / kSecond;
  std::string text;
  if (days > 0) text += fmt::format("{}d", days);
  if (hours > 0) text += fmt::format("{}h", hours);
  if (minutes > 0) text += fmt::format("{}m", minutes);
  if (seconds > 0 && days == 0 && hours == 0) text += fmt::format("{}s", seconds);
  return text;
}

std::string format_bytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string format_money(int64_t microusd) {
  const char* sign = microusd < 0 ? "-" : "";
  uint64_t amount = microusd < 0 ? 0 - static_cast<uint64_t>(microusd) : static_cast<uint64_t>(microusd);
  return fmt::format("{}${}.{:06}", sign, amount / 1'000'000, amount % 1'000'000);
}

std::string format_time(int64_t unix_ns) {
  std::time_t seconds = static_cast<std::time_t>(unix_ns / kSecond);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     unix_ns % kSecond / kMillisecond);
}

int64_t cost_microusd(int64_t gpus, int64_t duration_ns, int64_t microusd_per_gpu_hour) {
  __extension__ using Wide = __int128;
  Wide product = static_cast<Wide>(gpus) * duration_ns * microusd_per_gpu_hour;
  return static_cast<int64_t>((product + kHour / 2) / kHour);
}

}  // namespace th
