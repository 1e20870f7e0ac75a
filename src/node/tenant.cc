#include "node/tenant.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <vector>

#include "base/files.h"
#include "base/text.h"

namespace th::node {
namespace {

constexpr size_t kMaxTableBytes = size_t{64} << 20;

struct Table {
  std::string text;
  int64_t last = -1;
  std::optional<int64_t> found;
};

Result<Table> read_table(const std::filesystem::path& path, const std::string& tenant) {
  Table table;
  auto text = read_file(path, kMaxTableBytes);
  if (!text && text.error().code == Code::kNotFound) return table;
  if (!text) return fail(text.error());
  table.text = *std::move(text);
  for (const std::string& line : split(table.text, '\n')) {
    if (line.empty()) continue;
    int64_t number = -1;
    const auto [end, problem] = std::from_chars(line.data(), line.data() + line.size(), number);
    const bool sound =
        problem == std::errc() && number == table.last + 1 && number < kMaxTenants && *end == ' ';
    if (!sound) {
      return fail(
          Code::kDataLoss,
          fmt::format(
              "{}: '{}' is not the line of a tenant; restore the file from a copy: jobs' folders belong "
              "to the users that it names",
              path.string(), line));
    }
    table.last = number;
    if (std::string_view(end + 1) == tenant) table.found = number;
  }
  return table;
}

/// 0, or errno of what the machine does not let this process do.
int in_child(bool (*attempt)()) {
  const pid_t pid = fork();
  if (pid < 0) return errno;
  if (pid == 0) _exit(attempt() ? 0 : errno > 0 && errno < 128 ? errno : 127);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

bool leave_network() { return syscall(SYS_unshare, CLONE_NEWNET) == 0; }

}  // namespace

std::string tenant_of(const std::string& account) {
  return account != kSharedAccount && check_name(account, "tenant") ? account : std::string();
}

std::string tenant_of(const Task& task) {
  const auto account = task.env.find(kAccountVariable);
  return account == task.env.end() ? std::string() : tenant_of(account->second);
}

bool wants_private_network(const Task& task) { return !task.ready_url && !tenant_of(task).empty(); }

std::string Isolation::text() const {
  if (!users) return "none: " + problem;
  std::string out = "users";
  if (processes) out += ", processes";
  if (network) out += ", network";
  return problem.empty() ? out : out + "; not more: " + problem;
}

Isolation probe_isolation(const std::optional<User>& run_as, const NodeConfig& config) {
  Isolation out;
  if (!run_as) {
    out.problem = geteuid() == 0 ? "no user is set for ranks (run_as)" : "the node is not root";
    return out;
  }
  out.users = true;
  if (const int error = in_child(hide_other_processes); error == 0) {
    out.processes = true;
  } else {
    out.problem = fmt::format("hiding processes: {}", strerror(error));
  }
  std::string network;
  if (!config.private_networks) {
    network = "it is set to the machine's (private_networks)";
  } else if (config.address != "127.0.0.1") {
    network = "its ranks are reached at " + config.address;
  } else if (const int error = in_child(leave_network); error != 0) {
    network = strerror(error);
  }
  out.network = network.empty();
  if (!out.network) out.problem += (out.problem.empty() ? "network: " : "; network: ") + network;
  return out;
}

Result<User> tenant_user(const std::filesystem::path& jobs_dir, const std::string& tenant) {
  TH_RETURN_IF_ERROR(check_name(tenant, "tenant"));
  const std::filesystem::path path = jobs_dir / ".tenants";
  UniqueFd lock(open((jobs_dir / ".tenants.lock").c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock || flock(lock.get(), LOCK_EX) != 0) return fail(errno_error("locking " + path.string(), errno));
  TH_TRY(Table table, read_table(path, tenant));
  if (!table.found) {
    table.found = table.last + 1;
    if (*table.found >= kMaxTenants)
      return fail(Code::kResourceExhausted, fmt::format("{}: has a million tenants", path.string()));
    TH_RETURN_IF_ERROR(
        write_file_durable(path, table.text + fmt::format("{} {}\n", *table.found, tenant), 0600));
  }
  const uid_t uid = kFirstTenantUid + static_cast<uid_t>(*table.found);
  return User{tenant, uid, uid, {uid}};
}

Result<std::optional<User>> user_of(const std::string& tenant, const std::optional<User>& run_as,
                                    const std::filesystem::path& jobs_dir) {
  if (!run_as || tenant.empty()) return run_as;
  TH_TRY(User user, tenant_user(jobs_dir, tenant));
  return std::optional<User>(std::move(user));
}

bool hide_other_processes() {
  return syscall(SYS_unshare, CLONE_NEWNS) == 0 &&
         mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0 &&
         mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2") == 0;
}

}  // namespace th::node
