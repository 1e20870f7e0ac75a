// How many jobs a second the controller takes, each on disk before its answer: a real th-controld, real HTTP,
// clients that wait for each answer before they send the next. Beside it, whole commands: `th submit`, and
// Slurm's `sbatch` where Slurm is installed (slurm.sh). Usage: build/release/bench/submit [--clients 64]
// [--seconds 10] [--json] Prints one JSON object.

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/units.h"
#include "http/client.h"

extern char** environ;

namespace {

using namespace th;
namespace fs = std::filesystem;

constexpr const char* kFleet = R"(name: bench
sites:
  - id: site
    racks:
      - {id: r1, power_budget_w: 1000, leaf: leaf1, hosts: [{id: h1, series: LOCAL}]}
switches:
  - {id: leaf1, tier: leaf}
)";
constexpr double kSlurmPublishedPerS =
    71;  // 300 sbatch in 4.2 s, Slurm 22.05, measured on a machine of this kind

pid_t controller_pid = 0;  // 0: none runs

[[noreturn]] void give_up(const std::string& why) {
  fmt::print(stderr, "bench/submit: {}\n", why);
  if (controller_pid > 0) ::kill(controller_pid, SIGKILL);
  std::exit(1);
}

pid_t start(const std::vector<std::string>& words, const fs::path& output) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 1, output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  pid_t pid = 0;
  const int problem = posix_spawn(&pid, argv[0], &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (problem != 0) give_up(fmt::format("{}: {}", words[0], std::strerror(problem)));
  return pid;
}

int run(const std::vector<std::string>& words, const fs::path& output) {
  int status = 0;
  ::waitpid(start(words, output), &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// A connection that stays open; POSTs one body after another.
class Connection {
 public:
  explicit Connection(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int on = 1;
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      give_up("cannot connect");
  }
  ~Connection() { ::close(socket_); }
  Connection(const Connection&) = delete;

  /// The status of the answer.
  int post(const std::string& request) {
    if (::send(socket_, request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size())) {
      give_up("the controller closed a connection");
    }
    answer_.clear();
    size_t head = std::string::npos, length = 0;
    while (head == std::string::npos || answer_.size() < head + 4 + length) {
      char block[8192];
      const ssize_t got = ::recv(socket_, block, sizeof block, 0);
      if (got <= 0) give_up("the controller closed a connection");
      answer_.append(block, static_cast<size_t>(got));
      if (head != std::string::npos) continue;
      head = answer_.find("\r\n\r\n");
      const size_t field = answer_.find("Content-Length: ");
      if (head == std::string::npos || field == std::string::npos) continue;
      std::from_chars(answer_.data() + field + 16, answer_.data() + head, length);
    }
    return std::atoi(answer_.c_str() + std::strlen("HTTP/1.1 "));
  }

 private:
  int socket_;
  std::string answer_;
};

std::string job_request(const std::string& key) {
  const std::string body = R"({"name":"bench","gpus":2,"command":["true"]})";
  return fmt::format(
      "POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\nContent-Type: "
      "application/json\r\nContent-Length: {}\r\n\r\n{}",
      key, body.size(), body);
}

struct Load {
  int64_t answered = 0, failed = 0;
  double seconds = 0;
  std::vector<double> latency_ms;
};

Load submit_from(uint16_t port, const std::string& key, int clients, double seconds) {
  Env& env = Env::real();
  const int64_t begin_ns = env.monotonic_ns();
  const int64_t end_ns = begin_ns + static_cast<int64_t>(seconds * 1e9);
  std::vector<Load> parts(static_cast<size_t>(clients));
  {
    std::vector<std::jthread> threads;
    for (Load& part : parts) {
      threads.emplace_back([&part, &env, &key, port, end_ns] {
        Connection connection(port);
        const std::string request = job_request(key);
        for (int64_t sent_ns = env.monotonic_ns(); sent_ns < end_ns;) {
          const bool taken = connection.post(request) == 200;
          const int64_t now_ns = env.monotonic_ns();
          taken ? ++part.answered : ++part.failed;
          part.latency_ms.push_back(static_cast<double>(now_ns - sent_ns) / 1e6);
          sent_ns = now_ns;
        }
      });
    }
  }
  Load all;
  all.seconds = static_cast<double>(env.monotonic_ns() - begin_ns) / 1e9;
  for (const Load& part : parts) {
    all.answered += part.answered, all.failed += part.failed;
    all.latency_ms.insert(all.latency_ms.end(), part.latency_ms.begin(), part.latency_ms.end());
  }
  std::ranges::sort(all.latency_ms);
  return all;
}

double percentile(const std::vector<double>& sorted, double part) {
  return sorted.empty() ? 0 : sorted[static_cast<size_t>(part * static_cast<double>(sorted.size() - 1))];
}

class Controller {
 public:
  explicit Controller(const fs::path& programs) : programs_(programs) {
    std::string name = (fs::temp_directory_path() / "th-bench-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) give_up("no temporary folder");
    dir_ = name;
    if (Status written = write_file_durable(dir_ / "bench.yaml", kFleet); !written)
      give_up(written.error().message);
    boot();
  }
  ~Controller() {
    halt(SIGTERM);
    std::error_code ignored;
    fs::remove_all(dir_, ignored);
  }
  void boot() {
    controller_pid =
        start({(programs_ / "th-controld").string(), "--state", state().string(), "--fleet",
               (dir_ / "bench.yaml").string(), "--port", port_ == 0 ? "0" : std::to_string(port_)},
              dir_ / "log");
    for (int i = 0; i < 200; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      auto port = read_file(state() / "controld.port", 64);
      if (!port) continue;
      port_ = static_cast<uint16_t>(std::atoi(port->c_str()));
      if (auto health = http::fetch({.url = url() + "/health"}); health && health->status == 200) return;
    }
    give_up("th-controld does not come up: " + read_file(dir_ / "log").value_or(""));
  }
  void halt(int signal) {
    ::kill(controller_pid, signal);
    ::waitpid(controller_pid, nullptr, 0);
    controller_pid = 0;
  }
  fs::path state() const { return dir_ / "state"; }
  fs::path dir() const { return dir_; }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
  uint16_t port() const { return port_; }
  std::string key() const {
    std::string key = read_file(state() / "admin.key", 100).value_or("");
    while (!key.empty() && key.back() == '\n') key.pop_back();
    return key;
  }
  Result<Json> ask(const std::string& method, const std::string& path, const Json& body = {}) const {
    http::Call call{.method = method, .url = url() + path, .headers = {{"Authorization", "Bearer " + key()}}};
    return body.is_null() ? http::fetch_json(call) : http::fetch_json(call, body);
  }

 private:
  fs::path programs_, dir_;
  uint16_t port_ = 0;
};

/// Whole commands one after another: milliseconds of each, sorted.
std::vector<double> time_command(const std::vector<std::string>& words, const fs::path& output, int times) {
  std::vector<double> ms;
  for (int i = 0; i < times; ++i) {
    const int64_t begin_ns = Env::real().monotonic_ns();
    if (run(words, output) != 0)
      give_up(fmt::format("{} failed: {}", words[0], read_file(output).value_or("")));
    ms.push_back(static_cast<double>(Env::real().monotonic_ns() - begin_ns) / 1e6);
  }
  std::ranges::sort(ms);
  return ms;
}

}  // namespace

int main(int argc, char** argv) {
  int clients = 64;
  double seconds = 10;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--clients") == 0 && i + 1 < argc) clients = std::atoi(argv[++i]);
    if (std::strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) seconds = std::atof(argv[++i]);
  }
  if (clients < 1 || clients > 4096 || seconds <= 0)
    give_up("want --clients 1 to 4096 and --seconds above 0");
  const fs::path programs = fs::canonical("/proc/self/exe").parent_path().parent_path();
  Controller controller(programs);
  // The one host is taken for the whole run, so that jobs queue and none is started.
  const Json slice = {{"name", "all"}, {"gpus", 2}, {"series", "LOCAL"}, {"duration_ns", 12 * kHour}};
  for (const auto& [path, body] : {std::pair<std::string, Json>{"/api/v1/slices", slice},
                                   {"/api/v1/slices/all/commit", Json::object()}}) {
    if (auto made = controller.ask("POST", path, body); !made) give_up(made.error().message);
  }
  fmt::print(stderr, "{} clients for {} s ...\n", clients, seconds);
  const Load load = submit_from(controller.port(), controller.key(), clients, seconds);
  // What was answered is there after kill -9.
  controller.halt(SIGKILL);
  const int64_t restart_ns = Env::real().monotonic_ns();
  controller.boot();
  const double restart_s = static_cast<double>(Env::real().monotonic_ns() - restart_ns) / 1e9;
  auto jobs = controller.ask("GET", "/api/v1/jobs");
  if (!jobs) give_up(jobs.error().message);
  const auto kept = static_cast<int64_t>((*jobs)["items"].size());

  const auto submit = time_command({(programs / "th").string(), "--state", controller.state().string(),
                                    "submit", "--detach", "--gpus", "1", "--", "true"},
                                   controller.dir() / "th.log", 30);
  Json result = {
      {"clients", clients},
      {"submissions", load.answered},
      {"failed", load.failed},
      {"submissions_per_s", static_cast<double>(load.answered) / load.seconds},
      {"latency_p50_ms", percentile(load.latency_ms, 0.5)},
      {"latency_p99_ms", percentile(load.latency_ms, 0.99)},
      {"kept_after_kill_9", kept},
      {"lost", std::max<int64_t>(0, load.answered - kept)},
      {"restart_s", restart_s},
      {"th_submit_command_p50_ms", percentile(submit, 0.5)},
      {"sbatch_published_per_s", kSlurmPublishedPerS},
      {"ratio_to_published_sbatch", static_cast<double>(load.answered) / load.seconds / kSlurmPublishedPerS}};
  const fs::path slurm = controller.dir() / "slurm.json";
  if (run({"/bin/bash", TH_SOURCE_DIR "/bench/submit/slurm.sh", slurm.string()},
          controller.dir() / "slurm.log") == 0) {
    if (auto text = read_file(slurm)) {
      if (auto measured = parse_json(*text, "slurm.json")) {
        result["slurm"] = *measured;
        result["ratio_to_sbatch"] = static_cast<double>(load.answered) / load.seconds /
                                    get_double(*measured, "sbatch_per_s", 1).value_or(1);
      }
    }
  } else {
    result["slurm"] = "not run: " + read_file(controller.dir() / "slurm.log").value_or("slurm.sh failed");
  }
  std::puts(dump_json(result).c_str());
  return load.failed == 0 && kept >= load.answered ? 0 : 1;
}
