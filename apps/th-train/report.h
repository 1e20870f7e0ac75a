#pragma once
// How the commands that make files from what people give them end.

#include "base/result.h"

namespace th {

inline constexpr int kFailed = 1, kBadInput = 2;

/// Tells the error, as JSON on standard output or as text on standard error. Returns: the exit status,
/// kBadInput unless the disk or this program was to blame.
int report(const Error& error, bool json);

}  // namespace th
