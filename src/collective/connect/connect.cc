#include "collective/connect/connect.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/files.h"
#include "collective/gloo/connect.h"
#include "collective/gloo/sockets.h"
#include "collective/shm/connect.h"

namespace th::collective {
namespace {

std::string link_of(const char* path) {
  char text[128];
  const ssize_t size = readlink(path, text, sizeof(text));
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : "";
}

/// The same for processes that can share memory and see each other's pids: the meeting place of shm is in the
/// network namespace.
std::string memory_of_this_process() {
  return read_file("/proc/sys/kernel/random/boot_id").value_or("") + link_of("/proc/self/ns/net") +
         link_of("/proc/self/ns/pid") + fmt::format(" uid {}", geteuid());
}

/// The ranks of our node by shared memory, each called by its name in the world.
Result<Group> connect_node(const Rendezvous& rendezvous, const Meeting& meeting,
                           const ConnectOptions& options) {
  Rendezvous local = rendezvous;
  local.world_size = local.rank = 0;
  ShmOptions shm = {.connect_timeout_ns = options.connect_timeout_ns, .silence_ns = options.silence_ns};
  const int memory = meeting.places()[rendezvous.rank].memory;
  for (int rank = 0; rank < rendezvous.world_size; ++rank) {
    if (meeting.places()[rank].memory != memory) continue;
    if (rank == rendezvous.rank) local.rank = local.world_size;
    ++local.world_size;
    shm.names.push_back(meeting.name_of(rank));
  }
  local.master_addr = "127.0.0.1";
  local.job_id += fmt::format("/{}", memory);
  return connect_shm(local, shm);
}

}  // namespace

Result<Group> connect(const Rendezvous& rendezvous, const ConnectOptions& options) {
  if (rendezvous.world_size == 1) return Group();
  const bool one_node =
      rendezvous.local_world_size == rendezvous.world_size || resolves_to_loopback(rendezvous.master_addr);
  if (one_node && options.memory.empty()) {
    return connect_shm(rendezvous,
                       {.connect_timeout_ns = options.connect_timeout_ns, .silence_ns = options.silence_ns});
  }
  TH_TRY(auto meeting,
         Meeting::join(rendezvous, options.memory.empty() ? memory_of_this_process() : options.memory,
                       {.connect_timeout_ns = options.connect_timeout_ns, .silence_ns = options.silence_ns}));
  Result<Group> local = connect_node(rendezvous, *meeting, options);
  if (!local) {
    meeting->give_up(local.error().message);
    return fail(meeting->broken(kSecond).value_or(local.error()));
  }
  if (local->world_size() == rendezvous.world_size) return local;
  return connect_gloo(std::move(meeting), std::move(*local));
}

}  // namespace th::collective
