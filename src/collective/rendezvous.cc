#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "collective/collective.h"

namespace th::collective {
namespace {

constexpr int kMaxWorld = 1 << 20;
constexpr int kFirstPort = 20'000, kPorts = 10'000;  // below the ports that the kernel gives to connections

std::string_view env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view{} : value;
}

std::string_view env_or(const char* name, const char* other) {
  return env(name).empty() ? env(other) : env(name);
}

Result<int> env_int(const char* name, int fallback, int min, int max) {
  const std::string_view text = env(name);
  if (text.empty()) return fallback;
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("environment variable {}: want an integer {} … {}, got '{}'", name, min, max, text));
  }
  return value;
}

tl::unexpected<Error> missing(const char* name, std::string_view advice) {
  return fail(Code::kInvalidArgument, fmt::format("environment variable {} is missing; {}", name, advice));
}

/// The names under which a launcher tells a rank who it is.
struct Launcher {
  const char *rank, *world, *local_world;
};
constexpr Launcher kPlain = {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"};
constexpr Launcher kOpenMpi = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Launcher kSlurm = {"SLURM_PROCID", "SLURM_NTASKS", ""};

bool is_there(const Launcher& launcher) {
  return !env(launcher.rank).empty() || !env(launcher.world).empty();
}

/// mpirun starts its ranks below an srun of its own, so its variables are the inner ones.
const Launcher& find_launcher() {
  if (is_there(kPlain)) return kPlain;
  if (is_there(kOpenMpi)) return kOpenMpi;
  // In a batch script itself, without srun, SLURM_NTASKS speaks of ranks that nobody starts.
  return !env("SLURM_STEP_ID").empty() && is_there(kSlurm) ? kSlurm : kPlain;
}

/// The same on all ranks of a job, and likely another one for another job.
int default_port() {
  uint64_t number = 0;
  for (const char* name : {"SLURM_JOB_ID", "SLURM_STEP_ID", "OMPI_MCA_ess_base_jobid"}) {
    for (char c : env(name)) number = number * 31 + static_cast<unsigned char>(c);
  }
  return kFirstPort + static_cast<int>(number % kPorts);
}

std::string node_name() {
  if (!env("SLURMD_NODENAME").empty()) return std::string(env("SLURMD_NODENAME"));
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

Status find_master(const Launcher& launcher, Rendezvous& rendezvous) {
  const std::string_view hosts = env_or("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST");
  const bool is_alone = rendezvous.world_size == 1 || rendezvous.local_world_size == rendezvous.world_size;
  if (!env("MASTER_ADDR").empty()) {
    rendezvous.master_addr = env("MASTER_ADDR");
  } else if (&launcher != &kPlain && !is_alone) {
    if (hosts.empty() && &launcher == &kSlurm)
      return missing("SLURM_JOB_NODELIST", "srun sets it; or set MASTER_ADDR to the node of rank 0");
    if (hosts.empty())
      return missing("MASTER_ADDR", "the ranks are on several nodes: mpirun -x MASTER_ADDR=<node of rank 0>");
    TH_TRY(rendezvous.master_addr, first_host(hosts));
  }
  TH_TRY(rendezvous.master_port, env_int("MASTER_PORT", &launcher == &kPlain ? 0 : default_port(), 0, 65535));
  return {};
}

}  // namespace

Result<Rendezvous> rendezvous_from_env() {
  const Launcher& launcher = find_launcher();
  Rendezvous rendezvous;
  const bool has_rank = !env(launcher.rank).empty(), has_world = !env(launcher.world).empty();
  if (has_rank != has_world)
    return missing(has_rank ? launcher.world : launcher.rank,
                   fmt::format("set {} and {}, or none", launcher.rank, launcher.world));
  TH_TRY(rendezvous.world_size, env_int(launcher.world, 1, 1, kMaxWorld));
  TH_TRY(rendezvous.rank, env_int(launcher.rank, 0, 0, rendezvous.world_size - 1));
  if (&launcher == &kSlurm) {
    if (env_or("SLURM_STEP_NUM_NODES", "SLURM_NNODES") == "1")
      rendezvous.local_world_size = rendezvous.world_size;
  } else {
    TH_TRY(rendezvous.local_world_size, env_int(launcher.local_world, 0, 1, rendezvous.world_size));
  }
  rendezvous.node = node_name();
  TH_RETURN_IF_ERROR(find_master(launcher, rendezvous));
  TH_TRY(rendezvous.attempt, env_int(env("TH_ATTEMPT").empty() ? "SLURM_RESTART_COUNT" : "TH_ATTEMPT", 0, 0,
                                     std::numeric_limits<int>::max()));
  rendezvous.job_id = env_or("TH_JOB_ID", "SLURM_JOB_ID");
  return rendezvous;
}

Result<std::string> first_host(std::string_view nodelist) {
  std::string host;
  for (size_t at = 0; at < nodelist.size() && nodelist[at] != ','; ++at) {
    if (nodelist[at] != '[') {
      host += nodelist[at];
      continue;
    }
    const size_t close = nodelist.find(']', at);
    const std::string_view first = nodelist.substr(at + 1, nodelist.find_first_of("-,]", at) - at - 1);
    if (close == std::string_view::npos || first.empty() ||
        first.find_first_not_of("0123456789") != std::string_view::npos) {
      return fail(Code::kInvalidArgument,
                  fmt::format("'{}' is no list of nodes such as n[1-4],c7", nodelist));
    }
    host += first;
    at = close;
  }
  if (host.empty() || host.find_first_of("[] \t\n") != std::string::npos)
    return fail(Code::kInvalidArgument, fmt::format("'{}' is no list of nodes such as n[1-4],c7", nodelist));
  return host;
}

}  // namespace th::collective
