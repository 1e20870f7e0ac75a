#pragma once
// Integer units: time in nanoseconds, money in micro-dollars, memory in bytes. Text forms are read and
// written here.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th {

inline constexpr int64_t kMicrosecond = 1'000;
inline constexpr int64_t kMillisecond = 1'000'000;
inline constexpr int64_t kSecond = 1'000'000'000;
inline constexpr int64_t kMinute = 60 * kSecond;
inline constexpr int64_t kHour = 60 * kMinute;
inline constexpr int64_t kDay = 24 * kHour;

/// "90s", "1h30m", "2d", "250ms", and Slurm's "MM", "MM:SS", "HH:MM:SS", "D-HH", "D-HH:MM", "D-HH:MM:SS".
/// Errors: kInvalidArgument with what is accepted. Never negative, at most 100 years.
Result<int64_t> parse_duration_ns(std::string_view text);
/// "3GiB", "512MiB", "2GB", "1048576". Errors: kInvalidArgument.
Result<int64_t> parse_bytes(std::string_view text);
/// "1.25" or "$1.25" → 1250000 micro-dollars; at most six places. Errors: kInvalidArgument.
Result<int64_t> parse_money_microusd(std::string_view text);

std::string format_duration(int64_t ns);     // "1h30m", "2.5s", "340ms"
std::string format_bytes(int64_t bytes);     // "1.5 GiB"
std::string format_money(int64_t microusd);  // "$1.250000": exact to the micro-dollar
/// RFC 3339 in UTC, "2026-11-22T00:11:05.123Z". `unix_ns`: nanoseconds since 1970.
std::string format_time(int64_t unix_ns);

/// What `gpus` GPUs cost over `duration_ns` at a price for one GPU-hour; rounded half up to the micro-dollar,
/// exact (128-bit) inside.
int64_t cost_microusd(int64_t gpus, int64_t duration_ns, int64_t microusd_per_gpu_hour);

}  // namespace th
