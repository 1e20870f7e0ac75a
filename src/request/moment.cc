// Moments as sbatch's --begin and --deadline take them.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <optional>
#include <string>

#include "base/units.h"
#include "request/job_options.h"

namespace th::request {
namespace {

constexpr int64_t kMaxAheadNs = 100 * 365 * kDay;

struct Named {
  const char* name;
  int hour;
};
constexpr Named kTimesOfDay[] = {
    {"midnight", 0}, {"noon", 12}, {"elevenses", 11}, {"fika", 15}, {"teatime", 16}};

std::optional<int64_t> unit_ns(std::string_view unit) {
  struct Unit {
    std::string_view name;
    int64_t ns;
  };
  constexpr Unit kUnits[] = {
      {"seconds", kSecond}, {"minutes", kMinute}, {"hours", kHour}, {"days", kDay}, {"weeks", 7 * kDay}};
  if (unit.empty()) return kSecond;
  for (const Unit& known : kUnits) {
    if (unit == known.name || unit == known.name.substr(0, known.name.size() - 1)) return known.ns;
  }
  return std::nullopt;
}

/// Exactly so many digits at `at`, which moves behind them.
std::optional<int> digits(std::string_view text, size_t& at, size_t min, size_t max) {
  int value = 0;
  size_t begin = at;
  while (at < text.size() && at - begin < max && text[at] >= '0' && text[at] <= '9') {
    value = value * 10 + (text[at++] - '0');
  }
  if (at - begin < min) return std::nullopt;
  return value;
}

bool take(std::string_view text, size_t& at, char c) {
  if (at >= text.size() || text[at] != c) return false;
  ++at;
  return true;
}

/// "16:00", "16:00:30", "4:00PM" into the hour, minute and second of `day`.
bool read_clock(std::string_view text, std::tm& day) {
  size_t at = 0;
  auto hour = digits(text, at, 1, 2);
  if (!hour || !take(text, at, ':')) return false;
  auto minute = digits(text, at, 2, 2);
  std::optional<int> second = 0;
  if (minute && take(text, at, ':')) second = digits(text, at, 2, 2);
  if (!minute || !second) return false;
  take(text, at, ' ');
  std::string half(text.substr(at));
  std::ranges::transform(half, half.begin(), [](char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; });
  if (half == "AM" || half == "PM") {
    if (*hour < 1 || *hour > 12) return false;
    hour = *hour % 12 + (half == "PM" ? 12 : 0);
  } else if (!half.empty()) {
    return false;
  }
  if (*hour > 23 || *minute > 59 || *second > 59) return false;
  day.tm_hour = *hour, day.tm_min = *minute, day.tm_sec = *second;
  return true;
}

/// "2027-01-31" with or without "T08:00[:00]".
bool read_date(std::string_view text, std::tm& day) {
  size_t at = 0;
  auto year = digits(text, at, 4, 4);
  if (!year || !take(text, at, '-')) return false;
  auto month = digits(text, at, 2, 2);
  if (!month || !take(text, at, '-')) return false;
  auto date = digits(text, at, 2, 2);
  if (!date || *year < 1970 || *month < 1 || *month > 12 || *date < 1 || *date > 31) return false;
  day = {};
  day.tm_year = *year - 1900, day.tm_mon = *month - 1, day.tm_mday = *date;
  if (at == text.size()) return true;
  return take(text, at, 'T') && read_clock(text.substr(at), day);
}

std::optional<int64_t> unix_ns(std::tm day) {
  const int date = day.tm_mday;
  day.tm_isdst = -1;
  const std::time_t seconds = ::mktime(&day);
  // The 31st of a month of 30 days would become the 1st of the next one.
  if (seconds < 0 || seconds > kMaxAheadNs / kSecond * 2 || day.tm_mday != date) return std::nullopt;
  return static_cast<int64_t>(seconds) * kSecond;
}

std::optional<int64_t> read_now(std::string_view text, int64_t now_ns) {
  text.remove_prefix(3);
  if (text.empty()) return now_ns;
  if (text[0] != '+' && text[0] != '-') return std::nullopt;
  size_t at = 1;
  auto count = digits(text, at, 1, 8);
  if (!count) return std::nullopt;
  while (take(text, at, ' ')) {
  }
  auto unit = unit_ns(text.substr(at));
  if (!unit || *count > kMaxAheadNs / *unit) return std::nullopt;
  return std::max<int64_t>(0, now_ns + (text[0] == '-' ? -1 : 1) * *count * *unit);
}

}  // namespace

Result<int64_t> parse_moment(std::string_view text, int64_t now_ns) {
  std::optional<int64_t> out;
  const std::time_t now_s = now_ns / kSecond;
  std::tm day{};
  ::localtime_r(&now_s, &day);
  const auto* named =
      std::ranges::find(kTimesOfDay, text, [](const Named& n) { return std::string_view(n.name); });
  const bool named_time = named != std::end(kTimesOfDay);
  if (named_time) day.tm_hour = named->hour, day.tm_min = day.tm_sec = 0;
  if (text.starts_with("now")) {
    out = read_now(text, now_ns);
  } else if (text == "today") {
    out = now_ns;
  } else if (text == "tomorrow") {
    day.tm_hour = day.tm_min = day.tm_sec = 0;
    day.tm_mday += 1;
    day.tm_isdst = -1;
    out = static_cast<int64_t>(::mktime(&day)) * kSecond;
  } else if (named_time || (text.size() < 20 && read_clock(text, day))) {
    out = unix_ns(day);
    if (out && *out <= now_ns) {
      day.tm_mday += 1;
      day.tm_isdst = -1;
      out = static_cast<int64_t>(::mktime(&day)) * kSecond;
    }
  } else if (text.size() < 40 && read_date(text, day)) {
    out = unix_ns(day);
  }
  if (out) return *out;
  return fail(
      Code::kInvalidArgument,
      fmt::format("time '{}': want now+1hour, 16:00, noon, tomorrow, 2027-01-31 or 2027-01-31T08:00:00",
                  text.substr(0, 80)));
}

}  // namespace th::request
