#pragma once
// The user that ranks run as.

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

struct stat;

namespace th::node {

struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

/// The user to become: `run_as` when this process is root and it is set, else none (stay who we are).
/// Errors: kNotFound (no such user), kInvalidArgument (it is root).
Result<std::optional<User>> user_to_become(const std::optional<std::string>& run_as);

/// By the mode bits alone, as the kernel would for this user. `want`: 4 read, 1 search or execute.
bool may(const User& user, const struct stat& info, int want);

/// Whether the user can walk to this folder from the root. Needs root.
bool can_reach(const User& user, const std::filesystem::path& folder);

/// While it lives, the kernel judges what this thread opens as if the user opened it. None: nothing changes.
/// Needs root.
class OpensAs {
 public:
  explicit OpensAs(const std::optional<User>& user);
  ~OpensAs();
  OpensAs(const OpensAs&) = delete;
  OpensAs& operator=(const OpensAs&) = delete;

 private:
  std::optional<std::vector<gid_t>> own_groups_;
};

}  // namespace th::node
