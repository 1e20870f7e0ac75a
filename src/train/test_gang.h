#pragma once
// For tests: ranks as real processes. Everything that computes runs in a child, as OpenMP does not survive a
// fork.

#include <omp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "collective/shm/connect.h"

namespace th::train {

/// Starts the ranks; each ends with status 0 when `body` returns true.
inline std::vector<pid_t> start_gang(int world_size, const std::function<bool(collective::Group&)>& body) {
  static int meetings = 0;
  collective::Rendezvous rendezvous;
  rendezvous.world_size = world_size;
  rendezvous.job_id = "test-" + std::to_string(getpid());
  rendezvous.attempt = meetings++;
  std::vector<pid_t> pids;
  for (rendezvous.rank = 0; rendezvous.rank < world_size; ++rendezvous.rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      omp_set_num_threads(1);  // as a launcher would, with as many ranks as cores or more
      auto group = collective::connect_shm(rendezvous, {});
      _exit(group && body(*group) ? 0 : 1);
    }
    pids.push_back(pid);
  }
  return pids;
}

/// Waits for all; whether every one ended with status 0.
inline bool wait_gang(const std::vector<pid_t>& pids) {
  bool all = true;
  for (pid_t pid : pids) {
    int status = 0;
    waitpid(pid, &status, 0);
    all = all && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  return all;
}

inline bool run_gang(int world_size, const std::function<bool(collective::Group&)>& body) {
  return wait_gang(start_gang(world_size, body));
}

/// A folder that goes with its owner.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "th_train_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace th::train
