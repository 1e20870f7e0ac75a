#include "node/validate.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"

namespace th::node {
namespace {

constexpr int64_t kMaxSkewS = 5;
constexpr double kMinBytesPerS =
    0.5e9;  // below this a share cannot work; a busy machine has ten times as much

int count_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

Check check_gpus(const NodeConfig& config, int cores) {
  return {"gpus", config.gpus == config.expect.gpus && cores > 0,
          fmt::format("{} (shares of {} cores)", config.gpus, cores), fmt::format("{}", config.expect.gpus)};
}

Check check_cpus(const NodeConfig& config, int cores) {
  return {"cpus", cores >= config.expect.cpus, fmt::format("{}", cores),
          fmt::format("at least {}", config.expect.cpus)};
}

Check check_memory(const NodeConfig& config) {
  struct sysinfo info {};
  sysinfo(&info);
  auto bytes = static_cast<int64_t>(info.totalram) * info.mem_unit;
  return {"memory", bytes >= config.expect.memory_bytes, format_bytes(bytes),
          "at least " + format_bytes(config.expect.memory_bytes)};
}

Check check_disk(const NodeConfig& config) {
  struct statvfs info {};
  bool found = statvfs(config.jobs_dir.c_str(), &info) == 0;
  auto bytes = found ? static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize) : 0;
  return {"disk", found && bytes >= config.expect.disk_free_bytes,
          found ? format_bytes(bytes) + " free" : fmt::format("{} is not there", config.jobs_dir.string()),
          fmt::format("at least {} free", format_bytes(config.expect.disk_free_bytes))};
}

Check check_clock(std::optional<int64_t> skew_s) {
  return {"clock", skew_s && std::abs(*skew_s) <= kMaxSkewS,
          skew_s ? fmt::format("{:+d} s from the controller's", *skew_s) : "the controller tells no time",
          fmt::format("within {} s", kMaxSkewS)};
}

bool has_program(const std::string& name) {
  if (access((program_folder() / name).c_str(), X_OK) == 0) return true;
  const char* path = std::getenv("PATH");
  for (const std::string& folder : split(path == nullptr ? "/usr/bin:/bin" : path, ':')) {
    if (access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

Check check_programs(const NodeConfig& config) {
  std::vector<std::string> missing;
  for (const std::string& name : config.expect.programs) {
    if (!has_program(name)) missing.push_back(name);
  }
  return {"programs", missing.empty(), missing.empty() ? "all present" : "missing: " + join(missing, ", "),
          config.expect.programs.empty() ? "none" : join(config.expect.programs, ", ")};
}

/// The best of three copies of a block that no cache holds whole.
Check check_bandwidth(const NodeConfig& config) {
  constexpr size_t kBytes = size_t{16} << 20;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  double best = 0;
  for (int run = 0; run < 3; ++run) {
    auto start = std::chrono::steady_clock::now();
    std::memcpy(to.data(), from.data(), kBytes);
    asm volatile("" : : "r"(to.data()) : "memory");
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2.0 * kBytes / took.count());
  }
  const double want = config.expect.memory_bytes_per_s > 0
                          ? static_cast<double>(config.expect.memory_bytes_per_s)
                          : kMinBytesPerS;
  return {"memory_bandwidth", best >= want, fmt::format("{:.2f} GB/s", best / 1e9),
          fmt::format("at least {:.2f} GB/s", want / 1e9)};
}

Check check_user(const NodeConfig& config, const std::optional<User>& user) {
  if (user) return {"user", true, user->name, *config.run_as};
  return {"user", true, fmt::format("uid {}", geteuid()), "the node's own"};
}

}  // namespace

std::optional<int64_t> parse_http_date(std::string_view text) {
  std::tm time{};
  std::string copy(text);
  const char* end = strptime(copy.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &time);
  if (end == nullptr || *end != '\0') return std::nullopt;
  return timegm(&time);
}

Validation validate(const NodeConfig& config, const std::optional<User>& user,
                    std::optional<int64_t> clock_skew_s, const std::string& isolation) {
  int cores = count_cores();
  Validation validation;
  validation.checks = {check_gpus(config, cores), check_cpus(config, cores), check_memory(config),
                       check_disk(config),        check_clock(clock_skew_s), check_user(config, user),
                       check_programs(config),    check_bandwidth(config)};
  validation.checks.push_back({"isolation", true, isolation, "what the machine allows"});
  for (const Check& check : validation.checks)
    log_info("check {}: {} ({}, want {})", check.name, check.ok ? "ok" : "FAILED", check.value, check.want);
  validation.ok = true;
  for (const Check& check : validation.checks) validation.ok = validation.ok && check.ok;
  return validation;
}

}  // namespace th::node
