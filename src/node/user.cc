#include "node/user.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace th::node {

Result<std::optional<User>> user_to_become(const std::optional<std::string>& run_as) {
  if (!run_as || geteuid() != 0) return std::optional<User>();
  passwd entry{}, *found = nullptr;
  std::vector<char> buffer(16384);
  getpwnam_r(run_as->c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    return fail(Code::kNotFound,
                fmt::format("user '{}' (run_as) does not exist; make it, or name one that does", *run_as));
  }
  if (entry.pw_uid == 0) {
    return fail(Code::kInvalidArgument,
                fmt::format("user '{}' (run_as) is root; name an unprivileged user", *run_as));
  }
  User user{*run_as, entry.pw_uid, entry.pw_gid, std::vector<gid_t>(64)};
  int count = static_cast<int>(user.groups.size());
  if (getgrouplist(run_as->c_str(), entry.pw_gid, user.groups.data(), &count) < 0) count = 0;
  user.groups.resize(count);
  if (user.groups.empty()) user.groups = {entry.pw_gid};
  return std::optional<User>(std::move(user));
}

bool may(const User& user, const struct stat& info, int want) {
  if (info.st_uid == user.uid) return ((info.st_mode >> 6) & want) == static_cast<unsigned>(want);
  bool member = std::find(user.groups.begin(), user.groups.end(), info.st_gid) != user.groups.end();
  return ((info.st_mode >> (member ? 3 : 0)) & want) == static_cast<unsigned>(want);
}

bool can_reach(const User& user, const std::filesystem::path& folder) {
  std::filesystem::path walked;
  for (const auto& part : folder) {
    walked /= part;
    struct stat info {};
    if (stat(walked.c_str(), &info) != 0 || !may(user, info, 1)) return false;
  }
  return true;
}

}  // namespace th::node
