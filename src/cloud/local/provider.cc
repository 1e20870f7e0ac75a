#include "cloud/local/provider.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/process.h"
#include "base/text.h"
#include "base/units.h"
#include "cloud/check_names.h"
#include "cloud/local/detached.h"

namespace th::cloud {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSeries = "LOCAL";

/// For the kernel to end what was killed, and for the removal of files, out of remove()'s time.
constexpr int64_t kCleanUpNs = 3 * kSecond;

int64_t now() { return Env::real().monotonic_ns(); }

Status make_folder(const fs::path& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
    return fail(errno_error(fmt::format("making {}", path.string()), errno));
  }
  return {};
}

/// node.pid: "PID START_TICKS\n". None: nothing was started yet.
std::optional<ProcessId> read_pid_file(const fs::path& dir) {
  auto text = read_file(dir / "node.pid", 4096);
  if (!text) return std::nullopt;
  ProcessId process;
  const char* end = text->data() + text->size();
  auto pid = std::from_chars(text->data(), end, process.pid);
  if (pid.ec != std::errc() || pid.ptr == end) return ProcessId{};
  std::from_chars(pid.ptr + 1, end, process.start_ticks);
  return process;
}

/// The node makes its cgroup below its own; one that was killed leaves it, empty but for the empty ones of
/// its ranks.
bool remove_cgroup(const fs::path& dir) {
  auto path = read_file(dir / "cgroup", 4096);
  if (!path || !path->starts_with("/sys/fs/cgroup/") || path->find("..") != std::string::npos) return true;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(*path, ignored)) {
    if (entry.is_directory(ignored)) rmdir(entry.path().c_str());
  }
  return rmdir(path->c_str()) == 0 || errno == ENOENT;
}

class LocalProvider final : public Provider {
 public:
  explicit LocalProvider(LocalProviderOptions options) : options_(std::move(options)) {}

  std::string_view kind() const override { return "local"; }

  Status check_series(std::string_view series) const override {
    if (series == kSeries) return {};
    return fail(
        Code::kUnsatisfiable,
        fmt::format("provider 'local' makes shares of this machine, series {} only; {} has to come from "
                    "another provider; ask for series {}",
                    kSeries, series, kSeries));
  }

  Result<std::vector<VmState>> create(const CreateVms& request, int64_t timeout_ns) override {
    TH_RETURN_IF_ERROR(check_names(request));
    for (const VmSpec& spec : request.vms) TH_RETURN_IF_ERROR(check_series(spec.series));
    int64_t deadline = now() + timeout_ns;
    std::scoped_lock lock(creating_);
    std::vector<VmState> states;
    for (const VmSpec& spec : request.vms) {
      auto state = now() < deadline ? create_one(spec, request.client_token)
                                    : fail(Code::kDeadlineExceeded, "creating the VMs took too long");
      if (state) {
        states.push_back(*std::move(state));
        continue;
      }
      for (const VmState& made : states) (void)remove(made.vm, kCleanUpNs);
      if (state.error().code != Code::kAlreadyExists) (void)remove(spec.vm, kCleanUpNs);
      return fail(state.error());
    }
    return states;
  }

  Result<VmState> describe(std::string_view vm, int64_t) override {
    TH_RETURN_IF_ERROR(check_name(vm, "VM"));
    if (!fs::exists(folder(vm))) return fail(Code::kNotFound, fmt::format("VM '{}' does not exist", vm));
    return look(std::string(vm));
  }

  Result<std::vector<VmState>> list(int64_t) override {
    std::set<std::string> names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(options_.state_dir / "vms", error)) {
      if (entry.is_directory()) names.insert(entry.path().filename());
    }
    if (error) return fail(errno_error("reading the folder of the VMs", error.value()));
    std::vector<VmState> states;
    for (const std::string& name : names) states.push_back(look(name));
    return states;
  }

  /// STATE/vms/VM/notice.json is how an operator, or a test, rehearses an eviction.
  Result<std::vector<Notice>> events(int64_t timeout_ns) override {
    TH_TRY(const auto vms, list(timeout_ns));
    std::vector<Notice> notices;
    for (const VmState& vm : vms) {
      if (auto notice = read_notice(vm.vm)) notices.push_back(*std::move(notice));
    }
    return notices;
  }

  Status acknowledge(std::string_view id, int64_t) override {
    const std::string_view vm = id.substr(0, id.find('/'));
    TH_RETURN_IF_ERROR(check_name(vm, "VM"));
    if (auto notice = read_notice(std::string(vm)); notice && notice->id == id) {
      std::error_code ignored;
      fs::remove(folder(vm) / "notice.json", ignored);
    }
    return {};
  }

  Status remove(std::string_view vm, int64_t timeout_ns) override {
    TH_RETURN_IF_ERROR(check_name(vm, "VM"));
    fs::path dir = folder(vm);
    if (!fs::exists(dir)) return {};
    int64_t deadline = now() + timeout_ns;
    pid_t session = 0;
    if (auto process = read_pid_file(dir); process && process->pid > 0) {
      int64_t grace =
          std::min(options_.stop_grace_ms * kMillisecond, std::max(timeout_ns - kCleanUpNs, timeout_ns / 2));
      TH_RETURN_IF_ERROR(end_process(*process, grace, timeout_ns));
      // The node led its session. Once another process has its number, the session is long gone.
      if (!find_process(process->pid)) session = process->pid;
    }
    std::string marker = "TH_VM_DIR=" + dir.string();
    while (kill_leftovers(session, marker) > 0 || !remove_cgroup(dir)) {
      if (now() > deadline) {
        return fail(Code::kDeadlineExceeded, fmt::format("VM '{}': its processes do not end; try again", vm));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    std::error_code error;
    fs::remove_all(dir, error);
    if (error) return fail(errno_error(fmt::format("removing {}", dir.string()), error.value()));
    return {};
  }

 private:
  fs::path folder(std::string_view vm) const { return options_.state_dir / "vms" / vm; }

  /// {"kind": "preempt", "in_s": 30}, counted from when the file was written; none: no file, or not a notice.
  std::optional<Notice> read_notice(const std::string& vm) const {
    const fs::path path = folder(vm) / "notice.json";
    struct stat info {};
    auto text = read_file(path, 4096);
    if (!text || stat(path.c_str(), &info) != 0) return std::nullopt;
    auto json = parse_json(*text, path.string());
    auto kind = json ? get_string(*json, "kind") : fail(json.error());
    auto in_s = json ? get_int(*json, "in_s", 0) : fail(json.error());
    const auto known = kind ? notice_from_name(*kind) : std::nullopt;
    if (!known || !in_s || *in_s < 0 || *in_s > kDay / kSecond) {
      log_warn("{}: not a notice; want {{\"kind\": \"preempt\", \"in_s\": 30}}", path.string());
      return std::nullopt;
    }
    const int64_t written_ns = info.st_mtim.tv_sec * kSecond + info.st_mtim.tv_nsec;
    return Notice{fmt::format("{}/{}", vm, written_ns), vm, *known, written_ns + *in_s * kSecond,
                  "rehearsed with " + path.string()};
  }

  Result<VmState> create_one(const VmSpec& spec, const std::string& client_token) {
    fs::path dir = folder(spec.vm);
    TH_RETURN_IF_ERROR(make_folder(dir, 0700));
    VmState state = look(spec.vm);
    if (!state.client_token.empty() && state.client_token != client_token) {
      return fail(Code::kAlreadyExists,
                  fmt::format("VM '{}' exists already, made by another request", spec.vm));
    }
    if (read_pid_file(dir)) return state;
    // Nothing was ever started here, so an unused configuration of an interrupted call may be replaced.
    TH_RETURN_IF_ERROR(write_file_durable(dir / "node.json", node_config(spec, client_token), 0600));
    auto record = [&](ProcessId process) {
      return write_file_durable(dir / "node.pid", fmt::format("{} {}\n", process.pid, process.start_ticks),
                                0600);
    };
    TH_RETURN_IF_ERROR(
        spawn_detached(options_.node_program, {"--config", dir / "node.json"}, dir / "node.log", record));
    return look(spec.vm);
  }

  std::string node_config(const VmSpec& spec, const std::string& client_token) const {
    fs::path dir = folder(spec.vm);
    Json expect = {{"gpus", spec.gpus},
                   {"cpus", spec.cpus},
                   {"memory_bytes", spec.memory_bytes},
                   {"disk_free_bytes", spec.disk_free_bytes},
                   {"programs", options_.programs}};
    const fs::path& state = options_.state_dir;
    Json config = {{"name", spec.vm},
                   {"host", spec.host},
                   {"vm", spec.vm},
                   {"series", spec.series},
                   {"controller", options_.controller_url},
                   {"token", random_token()},
                   {"dir", dir.string()},
                   {"jobs_dir", (state / "jobs").string()},
                   {"registry", Json::array({(state / "models").string(), (state / "data").string()})},
                   {"address", "127.0.0.1"},
                   {"gpus", spec.gpus},
                   {"cpus", spec.cpus},
                   {"memory_bytes", spec.memory_bytes},
                   {"run_as", options_.run_as.empty() ? Json() : Json(options_.run_as)},
                   {"private_networks", options_.private_networks},
                   {"expect", expect},
                   {"client_token", client_token}};
    if (!options_.authority_pem.empty()) config["authority"] = options_.authority_pem;
    return config.dump(2) + "\n";
  }

  /// What the folder says. A VM whose making was interrupted has no token yet, or no process.
  VmState look(const std::string& vm) const {
    fs::path dir = folder(vm);
    VmState state;
    state.vm = vm;
    auto text = read_file(dir / "node.json", 1 << 20);
    auto config = text ? parse_json(*text, "node.json") : fail(text.error());
    if (config) {
      state.host = get_string(*config, "host", "").value_or("");
      state.client_token = get_string(*config, "client_token", "").value_or("");
      state.node_token_sha256 = sha256_hex(get_string(*config, "token", "").value_or(""));
    }
    auto process = read_pid_file(dir);
    if (!process) {
      state.detail = "its making was interrupted";
    } else if (is_running(*process)) {
      state.phase = VmPhase::kRunning;
      state.detail = fmt::format("process {}", process->pid);
    } else {
      state.phase = VmPhase::kDead;
      state.detail = fmt::format("process {} is gone", process->pid);
    }
    return state;
  }

  LocalProviderOptions options_;
  std::mutex creating_;
};

}  // namespace

Result<std::unique_ptr<Provider>> make_local_provider(LocalProviderOptions options) {
  if (!options.state_dir.is_absolute()) {
    return fail(Code::kInvalidArgument,
                fmt::format("state folder '{}': want an absolute path", options.state_dir.string()));
  }
  if (options.controller_url.empty()) {
    return fail(Code::kInvalidArgument, "the local provider needs the URL of the controller, for its nodes");
  }
  if (options.node_program.empty()) {
    options.node_program = program_folder() / "th-node";
  }
  if (access(options.node_program.c_str(), X_OK) != 0) {
    return fail(Code::kNotFound, fmt::format("{}: no such program; build th-node, or say where it is",
                                             options.node_program.string()));
  }
  for (const char* name : {"vms", "jobs"}) TH_RETURN_IF_ERROR(make_folder(options.state_dir / name, 0711));
  return std::unique_ptr<Provider>(std::make_unique<LocalProvider>(std::move(options)));
}

}  // namespace th::cloud
