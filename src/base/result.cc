#include "base/result.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace th {
namespace {

constexpr std::array<std::string_view, 15> kNames = {
    "invalid_argument",  "not_found",          "already_exists",    "failed_precondition",
    "unsatisfiable",     "resource_exhausted", "no_capacity",       "unauthenticated",
    "permission_denied", "unavailable",        "deadline_exceeded", "cancelled",
    "data_loss",         "no_space",           "internal",
};

Code code_of_errno(int value) {
  switch (value) {
    case ENOSPC:
    case EDQUOT:
      return Code::kNoSpace;
    case ENOENT:
      return Code::kNotFound;
    case EACCES:
    case EPERM:
      return Code::kPermissionDenied;
    case EEXIST:
      return Code::kAlreadyExists;
    default:
      return Code::kInternal;
  }
}

}  // namespace

std::string_view code_name(Code code) { return kNames.at(static_cast<size_t>(code)); }

Code code_from_name(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Code>(i);
  }
  return Code::kInternal;
}

Error errno_error(std::string_view what, int errno_value) {
  return {code_of_errno(errno_value), std::string(what) + ": " + std::strerror(errno_value)};
}

void check_failed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, expression);
  std::abort();
}

}  // namespace th
