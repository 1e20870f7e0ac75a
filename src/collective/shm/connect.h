#pragma once
// Collectives over shared memory: all ranks on one host. See docs/collectives.md.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "collective/collective.h"

namespace th::collective {

struct ShmOptions {
  int64_t connect_timeout_ns = 30 * kSecond;  // for all ranks to come
  int64_t silence_ns = 4 * kSecond;           // a peer without a heartbeat for so long is dead
  size_t slot_bytes = size_t{512} << 10;      // five of them a rank; larger data go in several rounds
  std::vector<std::string> names = {};        // of the ranks, for messages; empty: "rank 0" …
};

/// Blocks until all ranks of the rendezvous are attached. Nothing of it has a name in a file system, so
/// nothing is left behind however the ranks end. A world of one needs no memory. Errors: kDeadlineExceeded,
/// naming the ranks that did not come; kUnavailable, naming a rank that died meanwhile; kAlreadyExists,
/// kPermissionDenied (other processes meet at this address, job and attempt); kNoSpace (with the size it
/// needs); kInvalidArgument (the address is not this host).
Result<Group> connect_shm(const Rendezvous& rendezvous, const ShmOptions& options);

}  // namespace th::collective
