#pragma once
// Small text helpers that several rooms need.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th {

/// The candidate nearest to `word` by edit distance, if it is near enough to be meant (at most a third of its
/// letters).
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);
/// ", did you mean 'x'?" or "".
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

/// Names of slices, jobs, models, deployments, hosts: 1–63 of a-z, A-Z, 0-9, '-', '_', '.', the first a
/// letter or digit. Errors: kInvalidArgument naming `what`.
Status check_name(std::string_view name, std::string_view what);

std::vector<std::string> split(std::string_view text, char separator);
std::string join(std::span<const std::string> parts, std::string_view separator);
/// "1 GPU", "2 GPUs".
std::string counted(int64_t n, std::string_view what);

std::string sha256_hex(std::string_view bytes);
/// 64 hex digits of 256 random bits from the operating system: keys and tokens.
std::string random_token();
/// Takes the same time whatever differs.
bool equal_secret(std::string_view a, std::string_view b);
/// A key as it may be shown: its first 6 characters and "…".
std::string redact(std::string_view secret);

}  // namespace th
