#pragma once
// Collectives between nodes over TCP (Gloo), inside of a node by the group that it is given. See
// docs/collectives.md.

#include <memory>

#include "base/result.h"
#include "collective/collective.h"
#include "collective/gloo/meeting.h"

namespace th::collective {

/// `local` joins the ranks that share our memory, in the order of their ranks; alone in it: Group(). Keeps a
/// copy of the data of an operation where more than one rank shares memory. Errors: kUnavailable, naming the
/// rank that cannot be reached.
Result<Group> connect_gloo(std::unique_ptr<Meeting> meeting, Group local);

}  // namespace th::collective
