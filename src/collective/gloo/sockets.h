#pragma once
// The few socket calls that the meeting needs.

#include <sys/socket.h>

#include <string>

#include "base/files.h"

namespace th::collective {

/// Listens on `port` of every address of the family of `host`. Errors: kAlreadyExists (taken),
/// kInvalidArgument (no such host).
Result<UniqueFd> listen_on(const std::string& host, int port);

/// One try, of at most a second; empty when nobody answers. Errors: kInvalidArgument (no such host).
Result<UniqueFd> connect_to(const std::string& host, int port);

enum class End { kOurs, kTheirs };
/// The numeric address of one end of a connection.
std::string address_of(int socket, End end);
/// 127.0.0.0/8, ::1.
bool is_loopback(const std::string& address);
/// Whether the name stands for loopback addresses only.
bool resolves_to_loopback(const std::string& host);

}  // namespace th::collective
