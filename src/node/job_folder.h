#pragma once
// The folder of a job: made, filled and given to the job's user. The user owns it and may plant links in it,
// so nothing here follows one.

#include <filesystem>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "node/user.h"

namespace th::node {

struct Staging {
  std::filesystem::path jobs_dir;
  std::string job;
  std::string slice;  // of a folder beside the job's, which the jobs of the slice share; empty: none
  std::map<std::string, std::string> files;  // path in the job's folder → text
  std::map<std::string, std::string> stage;  // path in the job's folder → absolute path of a file or folder
  std::vector<std::filesystem::path> registry;  // folders of the controller, whose files it vouches for
  std::optional<User> user;                     // owner of all that is made; none: this process's
};

/// Makes jobs_dir/job and fills it. Each file appears whole (temporary name, rename); a staged file that is
/// there already with the size and time of its source stays. Copies share blocks where the file system can.
/// Blocking; looks at `stop` between pieces. Errors: kNotFound and kPermissionDenied (a source that is
/// not in the registry and that the user could not read itself), kInvalidArgument (a link or a device in the
/// way), kNoSpace, kCancelled.
Status stage_job(const Staging& staging, std::stop_token stop);

/// The job's folder, open as O_PATH. Errors: kNotFound.
Result<UniqueFd> open_job_folder(const std::filesystem::path& jobs_dir, const std::string& job);

/// Opens `path` in the folder for appending and reading, made if it is missing and given to the user; no link
/// is followed. Errors: kInvalidArgument (not a plain file of one name).
Result<UniqueFd> open_inside(int folder_fd, const std::string& path, const std::optional<User>& user);

}  // namespace th::node
