#pragma once
// Joins the ranks of a gang, wherever they are: shared memory inside of a node, TCP between nodes.

#include <string>

#include "base/result.h"
#include "base/units.h"
#include "collective/collective.h"

namespace th::collective {

struct ConnectOptions {
  int64_t connect_timeout_ns = 30 * kSecond;  // for all ranks to come
  int64_t silence_ns = 4 * kSecond;           // a peer without a sign of life for so long is dead
  // Ranks with the same one share memory. Empty: found out (the same boot of a kernel, network and pid
  // namespace).
  std::string memory = {};
};

/// Blocks until all ranks are there. By shared memory alone when the launcher says that all are on this node,
/// or when MASTER_ADDR is a loopback address; else rank 0 listens on MASTER_PORT of its node. Errors: those
/// of connect_shm, Meeting::join and connect_gloo. Ends SIGPIPE (see Mesh) where there are several nodes.
Result<Group> connect(const Rendezvous& rendezvous, const ConnectOptions& options);

}  // namespace th::collective
