#include "node/job_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/files.h"
#include "base/text.h"
#include "node/tenant.h"

namespace th::node {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kCopyBytes = size_t{8} << 20;

Status give_to(int fd, const std::optional<User>& user, mode_t mode) {
  if (user && fchown(fd, user->uid, user->gid) != 0)
    return fail(errno_error("giving a file to the user", errno));
  if (fchmod(fd, mode) != 0) return fail(errno_error("setting the mode of a file", errno));
  return {};
}

tl::unexpected<Error> in_the_way(std::string_view path) {
  return fail(Code::kInvalidArgument,
              fmt::format("'{}' in the job's folder is a link or not a plain file; remove it", path));
}

/// Opens the folder `name` in `parent`, made if it is missing.
Result<UniqueFd> enter(int parent, const std::string& name, const std::optional<User>& user,
                       mode_t mode = 0755) {
  bool made = mkdirat(parent, name.c_str(), 0700) == 0;
  if (!made && errno != EEXIST) return fail(errno_error(fmt::format("making folder '{}'", name), errno));
  UniqueFd fd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return in_the_way(name);
  if (made) TH_RETURN_IF_ERROR(give_to(fd.get(), user, mode));
  return fd;
}

struct Place {
  UniqueFd folder;
  std::string name;
};

/// Walks to the folder that `path` lies in, link-free, and makes what is missing on the way.
Result<Place> walk(int root, const std::string& path, const std::optional<User>& user) {
  std::vector<std::string> parts = split(path, '/');
  Place place{UniqueFd(fcntl(root, F_DUPFD_CLOEXEC, 3)), parts.back()};
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    TH_TRY(place.folder, enter(place.folder.get(), parts[i], user));
  }
  return place;
}

/// A file that gets its name only once it is whole.
class NewFile {
 public:
  static Result<NewFile> make(Place place) {
    NewFile file;
    file.temporary_ = fmt::format(".staging-{}", random_token().substr(0, 16));
    file.fd_ = UniqueFd(openat(place.folder.get(), file.temporary_.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file.fd_) return fail(errno_error(fmt::format("making '{}'", place.name), errno));
    file.place_ = std::move(place);
    return file;
  }
  NewFile(NewFile&& other) noexcept = default;
  ~NewFile() {
    if (fd_) unlinkat(place_.folder.get(), temporary_.c_str(), 0);
  }
  int fd() const { return fd_.get(); }
  Status finish() {
    const char* to = place_.name.c_str();
    if (renameat(place_.folder.get(), temporary_.c_str(), place_.folder.get(), to) != 0) {
      return fail(errno_error(fmt::format("naming '{}'", place_.name), errno));
    }
    fd_ = UniqueFd();
    return {};
  }

 private:
  NewFile() = default;
  Place place_;
  std::string temporary_;
  UniqueFd fd_;
};

Status write_text(int root, const std::string& path, std::string_view text, const std::optional<User>& user) {
  TH_TRY(Place place, walk(root, path, user));
  TH_TRY(NewFile file, NewFile::make(std::move(place)));
  while (!text.empty()) {
    ssize_t n = write(file.fd(), text.data(), text.size());
    if (n < 0 && errno != EINTR) return fail(errno_error(fmt::format("writing '{}'", path), errno));
    if (n > 0) text.remove_prefix(n);
  }
  TH_RETURN_IF_ERROR(give_to(file.fd(), user, 0644));
  return file.finish();
}

Status copy_bytes(int from, int to, std::stop_token stop) {
  if (ioctl(to, FICLONE, from) == 0) return {};
  bool by_kernel = true;
  std::string buffer;
  while (!stop.stop_requested()) {
    ssize_t n = by_kernel ? copy_file_range(from, nullptr, to, nullptr, kCopyBytes, 0) : -1;
    if (by_kernel && n < 0 && errno != EINTR && errno != ENOSPC) by_kernel = false;  // across file systems
    if (!by_kernel) {
      buffer.resize(1 << 20);
      n = read(from, buffer.data(), buffer.size());
      for (ssize_t done = 0; n > 0 && done < n;) {
        ssize_t wrote = write(to, buffer.data() + done, n - done);
        if (wrote < 0 && errno != EINTR) return fail(errno_error("copying", errno));
        if (wrote > 0) done += wrote;
      }
    }
    if (n == 0) return {};
    if (n < 0 && errno != EINTR) return fail(errno_error("copying", errno));
  }
  return fail(Code::kCancelled, "staging was stopped");
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

/// Copies trees into the job's folder. The node may be root, so it looks at what it hands out (docs/node.md,
/// "Staging").
class Stager {
 public:
  Stager(int root, const Staging& staging, std::stop_token stop)
      : root_(root), user_(staging.user), staging_(staging), stop_(stop) {}

  Status copy_from(const std::string& from, const std::string& to) {
    by_mode_ = false, reader_ = {};
    const bool vouched = user_ && std::ranges::any_of(staging_.registry, [&](const auto& folder) {
                           return lies_in(from, folder);
                         });
    TH_TRY(UniqueFd source, open_source(AT_FDCWD, from, from, vouched ? O_NOFOLLOW : 0));
    if (user_ && !vouched) {
      by_mode_ = !is_controllers(source.get());
      if (!by_mode_) {
        reader_ = user_;
        TH_TRY(source, open_source(AT_FDCWD, from, from, 0));
      }
    }
    return copy(std::move(source), to, from, 0);
  }

 private:
  /// By its real place: links may lead there.
  bool is_controllers(int fd) const {
    std::error_code error;
    const auto place = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd), error);
    if (error) return true;
    const auto jobs = std::filesystem::canonical(staging_.jobs_dir, error);
    return error || lies_in(place, jobs.parent_path());
  }

  tl::unexpected<Error> may_not_read(const std::string& shown) const {
    return fail(Code::kPermissionDenied,
                fmt::format("staging {}: user '{}' may not read it; allow it by chmod", shown, user_->name));
  }

  Result<UniqueFd> open_source(int folder, const std::string& name, const std::string& shown,
                               int flags) const {
    const OpensAs as(reader_);
    UniqueFd fd(openat(folder, name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | flags));
    if (fd) return fd;
    if (errno == EACCES && reader_) return may_not_read(shown);
    return fail(errno_error(fmt::format("staging {}", shown), errno));
  }

  /// `shown` names the source in errors.
  Status copy(UniqueFd source, const std::string& to, const std::string& shown, int depth) {
    struct stat info {};
    if (fstat(source.get(), &info) != 0) return fail(errno_error(fmt::format("staging {}", shown), errno));
    bool folder = S_ISDIR(info.st_mode);
    if (!folder && !S_ISREG(info.st_mode)) {
      return fail(Code::kInvalidArgument,
                  fmt::format("staging {}: it is neither a file nor a folder", shown));
    }
    if (by_mode_ && !may(*user_, info, folder ? 5 : 4)) return may_not_read(shown);
    return folder ? copy_folder(std::move(source), to, shown, depth) : copy_file(source, info, to, shown);
  }

  Status copy_file(const UniqueFd& source, const struct stat& info, const std::string& to,
                   const std::string& shown) {
    TH_TRY(Place place, walk(root_, to, user_));
    struct stat have {};
    if (fstatat(place.folder.get(), place.name.c_str(), &have, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(have.st_mode) && same_file(have, info)) {
      return {};
    }
    TH_TRY(NewFile file, NewFile::make(std::move(place)));
    if (Status copied = copy_bytes(source.get(), file.fd(), stop_); !copied) {
      return fail(copied.error().code, fmt::format("staging {}: {}", shown, copied.error().message));
    }
    TH_RETURN_IF_ERROR(give_to(file.fd(), user_, 0644 | (info.st_mode & 0111)));
    timespec times[2] = {info.st_atim, info.st_mtim};
    futimens(file.fd(), times);
    return file.finish();
  }

  Status copy_folder(UniqueFd source, const std::string& to, const std::string& shown, int depth) {
    if (depth >= kMaxDepth) {
      return fail(Code::kInvalidArgument, fmt::format("staging {}: over {} folders deep", shown, kMaxDepth));
    }
    TH_TRY(Place place, walk(root_, to, user_));
    TH_TRY(UniqueFd made, enter(place.folder.get(), place.name, user_));
    int source_fd = source.release();
    std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(source_fd), closedir);
    if (!entries) return fail(errno_error(fmt::format("reading {}", shown), errno));
    while (dirent* entry = readdir(entries.get())) {
      std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      std::string below = shown + "/" + name;
      TH_TRY(UniqueFd fd, open_source(source_fd, name, below, O_NOFOLLOW));
      TH_RETURN_IF_ERROR(copy(std::move(fd), to + "/" + name, below, depth + 1));
    }
    return {};
  }

  int root_;
  const std::optional<User>& user_;
  const Staging& staging_;
  bool by_mode_ = false;        // the modes of the source itself decide, not those of the folders above it
  std::optional<User> reader_;  // the kernel decides, for this user
  std::stop_token stop_;
};

}  // namespace

Status stage_job(const Staging& staging, std::stop_token stop) {
  UniqueFd jobs(open(staging.jobs_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!jobs) return fail(errno_error(fmt::format("opening {}", staging.jobs_dir.string()), errno));
  const bool is_tenant = staging.user && staging.user->uid >= kFirstTenantUid;
  const mode_t mode = is_tenant ? 0700 : 0750;
  TH_TRY(UniqueFd root, enter(jobs.get(), staging.job, staging.user, mode));
  if (!staging.slice.empty()) {
    TH_TRY(const UniqueFd shared, enter(jobs.get(), staging.slice, staging.user, mode));
  }
  for (const auto& [path, text] : staging.files) {
    TH_RETURN_IF_ERROR(write_text(root.get(), path, text, staging.user));
  }
  Stager stager(root.get(), staging, stop);
  for (const auto& [to, from] : staging.stage) TH_RETURN_IF_ERROR(stager.copy_from(from, to));
  return {};
}

Result<UniqueFd> open_job_folder(const std::filesystem::path& jobs_dir, const std::string& job) {
  UniqueFd fd(open((jobs_dir / job).c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail(errno_error(fmt::format("opening the folder of {}", job), errno));
  return fd;
}

Result<UniqueFd> open_inside(int folder_fd, const std::string& path, const std::optional<User>& user) {
  TH_TRY(Place place, walk(folder_fd, path, user));
  UniqueFd fd(openat(place.folder.get(), place.name.c_str(),
                     O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644));
  struct stat info {};
  if (!fd || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink != 1)
    return in_the_way(path);
  if (user) TH_RETURN_IF_ERROR(give_to(fd.get(), user, 0644));
  return fd;
}

}  // namespace th::node
