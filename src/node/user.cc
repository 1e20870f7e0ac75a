#include "node/user.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/files.h"

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

namespace {

/// Of this thread alone: glibc's would be of all threads.
void set_groups(const std::vector<gid_t>& groups) {
  if (syscall(SYS_setgroups, groups.size(), groups.data()) != 0) abort();  // it would open as the wrong user
}

}  // namespace

bool can_reach(const User& user, const std::filesystem::path& folder) {
  const OpensAs as(user);
  return static_cast<bool>(UniqueFd(open((folder / ".").c_str(), O_PATH | O_CLOEXEC)));
}

OpensAs::OpensAs(const std::optional<User>& user) {
  if (!user) return;
  own_groups_.emplace(static_cast<size_t>(getgroups(0, nullptr)));
  if (getgroups(static_cast<int>(own_groups_->size()), own_groups_->data()) < 0) abort();
  set_groups(user->groups);
  setfsgid(user->gid);
  setfsuid(user->uid);  // takes the right to pass over modes along (capabilities(7))
  if (setfsuid(static_cast<uid_t>(-1)) != static_cast<int>(user->uid)) abort();
}

OpensAs::~OpensAs() {
  if (!own_groups_) return;
  setfsuid(geteuid());
  setfsgid(getegid());
  set_groups(*own_groups_);
}

}  // namespace th::node
