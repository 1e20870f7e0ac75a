#pragma once
// Where the ranks of a gang get their shared memory from: rank 0 hands its file descriptor out over a Unix
// socket in the abstract namespace. Neither memory nor socket has a name in a file system, so nothing is left
// however they end.

#include <string>

#include "base/files.h"
#include "base/result.h"

namespace th::collective {

/// Listens as `name`. Errors: kAlreadyExists when another process of this host does.
Result<UniqueFd> open_meeting(const std::string& name);

/// Gives `fd` to everyone of our user who waits; returns after `timeout_ms` when nobody does.
void hand_out(const UniqueFd& meeting, int fd, int timeout_ms);

/// What the process that listens as `name` hands out; empty when there is none yet or it does not answer.
/// Errors: kPermissionDenied when it belongs to another user.
Result<UniqueFd> fetch(const std::string& name);

}  // namespace th::collective
