#pragma once
// What keeps the jobs of different tenants apart on one machine: a user each, processes that others do not
// see, a network namespace each. All of it needs root, and the machine's consent. docs/node.md says what is
// not kept apart.

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "node/config.h"
#include "node/protocol.h"
#include "node/user.h"

namespace th::node {

inline constexpr const char* kAccountVariable = "TH_ACCOUNT";  // of a task: whose it is
inline constexpr const char* kSharedAccount = "default";       // of those who are no tenant: runs as `run_as`

/// Users of tenants are numbered from here on (docs.systemd.io, "Users, Groups, UIDs and GIDs on systemd
/// Systems": from 1879048192 on is no user of a system or of its containers).
inline constexpr uid_t kFirstTenantUid = 1'900'000'000;
inline constexpr int64_t kMaxTenants = 1'000'000;

/// The tenant of an account, or of a task's; empty: it is of none, or of a name that no folder could have.
std::string tenant_of(const std::string& account);
std::string tenant_of(const Task& task);
/// Whether the task runs in its tenant's own network. What serves a deployment does not: the gateway has to
/// reach it.
bool wants_private_network(const Task& task);

/// What this machine lets the node do. `problem`: why not all of it, for people.
struct Isolation {
  bool users = false, processes = false, network = false;
  std::string problem;
  std::string text() const;
};
/// Tries it in a child. Cost: some milliseconds.
Isolation probe_isolation(const std::optional<User>& run_as, const NodeConfig& config);

/// The user of a tenant, the same for every node with these folders and for all time: jobs_dir/.tenants has a
/// line "NUMBER NAME" for each. Errors: of the file; kResourceExhausted; kDataLoss (a line that is none).
/// Blocks while another process of this machine adds one; VMs that share the folder do not see its lock, so
/// the controller asks first.
Result<User> tenant_user(const std::filesystem::path& jobs_dir, const std::string& tenant);

/// Who a tenant's tasks run as (empty: of none): its user where ranks change their user (`run_as`) at all.
/// Errors: those of tenant_user.
Result<std::optional<User>> user_of(const std::string& tenant, const std::optional<User>& run_as,
                                    const std::filesystem::path& jobs_dir);

/// In a child before exec: a mount namespace in which /proc shows the user's own processes only. System calls
/// alone. False: errno says why.
bool hide_other_processes();

}  // namespace th::node
