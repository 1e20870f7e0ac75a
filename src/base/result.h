#pragma once
// What can go wrong, as a value. Exceptions of libraries are caught at the one boundary function of a module.

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace th {

/// A code exists only where a caller can react to it. http::status_of maps each to a status.
enum class Code {
  kInvalidArgument,     // the input is wrong and will stay wrong
  kNotFound,            // the named thing does not exist
  kAlreadyExists,       // the name is taken
  kFailedPrecondition,  // right input, wrong moment or state
  kUnsatisfiable,       // can never be done on this fleet
  kResourceExhausted,   // a quota, a budget, a rate or a queue is at its limit: later, or with more
  kNoCapacity,          // the cloud has none left now: another series, zone or region, or later
  kUnauthenticated,     // no key, or a wrong one
  kPermissionDenied,    // the key may not do this
  kUnavailable,         // a peer is gone or not up yet: retry
  kDeadlineExceeded,    // gave up waiting
  kCancelled,           // somebody asked for it to stop
  kDataLoss,            // stored data are damaged (checksum, truncated)
  kNoSpace,             // the disk is full
  kInternal,            // a defect here or in a library
};

/// `failed_precondition`, ... as used in JSON and logs.
std::string_view code_name(Code code);
/// The other way; kInternal for a name that is not in the table.
Code code_from_name(std::string_view name);

/// `message` names the thing, what is wrong with it, and what to do.
struct Error {
  Code code = Code::kInternal;
  std::string message;

  bool operator==(const Error&) const = default;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> fail(Code code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

/// An Error of errno: kNoSpace for ENOSPC and EDQUOT, kNotFound for ENOENT, kPermissionDenied for EACCES and
/// EPERM, kAlreadyExists for EEXIST, else kInternal. The message is "what: strerror".
Error errno_error(std::string_view what, int errno_value);

[[noreturn]] void check_failed(const char* file, int line, const char* expression);

}  // namespace th

/// A bug, not an error: aborts, in release builds too.
#define TH_CHECK(expression) \
  ((expression) ? static_cast<void>(0) : ::th::check_failed(__FILE__, __LINE__, #expression))

#define TH_CONCAT_INNER(a, b) a##b
#define TH_CONCAT(a, b) TH_CONCAT_INNER(a, b)

/// TH_TRY(auto x, f()): x is f()'s value, or the function returns f()'s error.
#define TH_TRY(declaration, expression) TH_TRY_INNER(TH_CONCAT(th_try_, __LINE__), declaration, expression)
#define TH_TRY_INNER(temporary, declaration, expression)           \
  auto temporary = (expression);                                   \
  if (!temporary) return ::th::fail(std::move(temporary).error()); \
  declaration = *std::move(temporary)

/// TH_RETURN_IF_ERROR(f()): the function returns f()'s error, if there is one.
#define TH_RETURN_IF_ERROR(expression)                                                              \
  do {                                                                                              \
    if (auto th_status = (expression); !th_status) return ::th::fail(std::move(th_status).error()); \
  } while (false)
