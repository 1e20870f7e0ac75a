#include "collective/shm/segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/text.h"

namespace th::collective {
namespace {

constexpr uint32_t kReady = 0x54485348;
constexpr auto kPoll = std::chrono::milliseconds(2);

size_t header_bytes(int world_size) { return 4096 + (sizeof(PeerEntry) * world_size + 4095) / 4096 * 4096; }

size_t segment_bytes(int world_size, size_t slot_bytes) {
  return header_bytes(world_size) + 2 * slot_bytes * world_size;
}

std::string segment_name(const Rendezvous& r) {
  const std::string key = fmt::format("{}:{}/{}/{}", r.master_addr, r.master_port, r.job_id, r.attempt);
  return "/th-" + sha256_hex(key).substr(0, 24);
}

struct Unmap {
  size_t bytes;
  void operator()(void* address) const { munmap(address, bytes); }
};
using Mapping = std::unique_ptr<void, Unmap>;

Result<Mapping> map(int fd, size_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) return fail(errno_error("shared memory", errno));
  return Mapping(address, Unmap{bytes});
}

PeerEntry& entry(void* address, int rank) {
  return *reinterpret_cast<PeerEntry*>(static_cast<char*>(address) + 4096 + sizeof(PeerEntry) * rank);
}

void enter(void* address, int rank) {
  PeerEntry& self = entry(address, rank);
  self.pid = getpid();
  self.start_time = process_start_time(getpid());
  self.heartbeat_ns = monotonic_now_ns();
  self.state = static_cast<uint32_t>(PeerState::kAttached);
  static_cast<SegmentHeader*>(address)->attached.fetch_add(1);
}

/// Rank 0 makes the segment; one of that name can only be left over from ranks that died before they met.
Result<Mapping> create(const std::string& name, const Rendezvous& rendezvous, const ShmOptions& options) {
  shm_unlink(name.c_str());
  UniqueFd fd(shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail(errno_error("shared memory " + name, errno));
  const size_t bytes = segment_bytes(rendezvous.world_size, options.slot_bytes);
  if (int error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    shm_unlink(name.c_str());
    return fail(
        errno_error(fmt::format("/dev/shm: {} bytes for {} ranks", bytes, rendezvous.world_size), error));
  }
  auto mapping = map(fd.get(), bytes);
  if (!mapping) {
    shm_unlink(name.c_str());
    return mapping;
  }
  auto& header = *static_cast<SegmentHeader*>(mapping->get());
  header.world_size = rendezvous.world_size;
  header.slot_bytes = options.slot_bytes;
  enter(mapping->get(), 0);
  header.ready.store(kReady, std::memory_order_release);
  return mapping;
}

/// One try to attach to what has the name now; null when it is not there, not ready yet, or left over from a
/// gang whose rank 0 died before all had met.
Result<Mapping> attach(const std::string& name, const Rendezvous& rendezvous, const ShmOptions& options) {
  UniqueFd fd(shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600));
  if (!fd) {
    if (errno == ENOENT) return Mapping(nullptr, Unmap{0});
    return fail(errno_error("shared memory " + name, errno));
  }
  const size_t bytes = segment_bytes(rendezvous.world_size, options.slot_bytes);
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return fail(errno_error("shared memory " + name, errno));
  if (info.st_size == 0) return Mapping(nullptr, Unmap{0});
  if (static_cast<size_t>(info.st_size) != bytes) {
    return fail(Code::kInternal, "shared memory " + name + ": ranks disagree about the world size");
  }
  TH_TRY(Mapping mapping, map(fd.get(), bytes));
  if (static_cast<SegmentHeader*>(mapping.get())->ready.load(std::memory_order_acquire) != kReady) {
    return Mapping(nullptr, Unmap{0});
  }
  if (!peer_problem(entry(mapping.get(), 0), 0, options.silence_ns).empty())
    return Mapping(nullptr, Unmap{0});
  return mapping;
}

std::string missing_ranks(void* address, int world_size) {
  if (address == nullptr) return "0";
  std::vector<std::string> missing;
  for (int rank = 0; rank < world_size; ++rank) {
    if (entry(address, rank).pid.load() == 0) missing.push_back(std::to_string(rank));
  }
  return join(missing, ", ");
}

/// A rank that came and died before all were there.
Status check_peers(void* address, const Rendezvous& rendezvous, int64_t silence_ns) {
  for (int rank = 0; rank < rendezvous.world_size; ++rank) {
    const PeerEntry& peer = entry(address, rank);
    if (rank == rendezvous.rank || peer.state.load() == static_cast<uint32_t>(PeerState::kAbsent)) continue;
    if (std::string problem = peer_problem(peer, rank, silence_ns); !problem.empty()) {
      return fail(Code::kUnavailable, problem + " before all ranks had met");
    }
  }
  return {};
}

/// Waits until everyone is attached. `mapping` is null as long as rank 0 has made nothing.
Status meet_all(Mapping& mapping, const std::string& name, const Rendezvous& rendezvous,
                const ShmOptions& options) {
  const uint64_t deadline_ns = monotonic_now_ns() + options.connect_timeout_ns;
  for (int round = 0;; ++round) {
    if (mapping == nullptr) {
      TH_TRY(mapping, attach(name, rendezvous, options));
      if (mapping != nullptr) enter(mapping.get(), rendezvous.rank);
    }
    if (mapping != nullptr) {
      auto& header = *static_cast<SegmentHeader*>(mapping.get());
      entry(mapping.get(), rendezvous.rank).heartbeat_ns = monotonic_now_ns();
      if (rendezvous.rank == 0 && header.attached.load() == header.world_size) header.released = 1;
      if (header.released.load() == 1) return {};
      if (round % 16 == 15) TH_RETURN_IF_ERROR(check_peers(mapping.get(), rendezvous, options.silence_ns));
    }
    if (monotonic_now_ns() > deadline_ns) {
      return fail(Code::kDeadlineExceeded,
                  fmt::format("rank {} waited {} at {}:{} for rank(s) {}", rendezvous.rank,
                              format_duration(options.connect_timeout_ns), rendezvous.master_addr,
                              rendezvous.master_port, missing_ranks(mapping.get(), rendezvous.world_size)));
    }
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace

uint64_t monotonic_now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch() /
                               std::chrono::nanoseconds(1));
}

uint64_t process_start_time(int pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return 0;
  std::istringstream rest(line.substr(name_end + 1));
  std::string field;  // proc(5): field 3 is the state, 22 the start time
  uint64_t start_time = 0;
  rest >> field;
  if (field == "Z" || field == "X") return 0;
  for (int i = 4; i < 22; ++i) rest >> field;
  rest >> start_time;
  return start_time;
}

std::string peer_problem(const PeerEntry& peer, int rank, int64_t silence_ns) {
  const auto state = static_cast<PeerState>(peer.state.load());
  const int pid = peer.pid.load();
  if (state == PeerState::kLeft) return fmt::format("rank {} (pid {}) left the group", rank, pid);
  if (process_start_time(pid) != peer.start_time.load())
    return fmt::format("rank {} (pid {}) died", rank, pid);
  const auto silent_ns = static_cast<int64_t>(monotonic_now_ns() - peer.heartbeat_ns.load());
  if (silent_ns > silence_ns) {
    return fmt::format("rank {} (pid {}) has given no sign of life for {}", rank, pid,
                       format_duration(silent_ns));
  }
  return {};
}

Result<Segment> Segment::join(const Rendezvous& rendezvous, const ShmOptions& options) {
  const std::string name = segment_name(rendezvous);
  Mapping mapping(nullptr, Unmap{0});
  if (rendezvous.rank == 0) {
    TH_TRY(mapping, create(name, rendezvous, options));
  }
  const Status met = meet_all(mapping, name, rendezvous, options);
  if (rendezvous.rank == 0) shm_unlink(name.c_str());
  if (!met) {
    if (mapping != nullptr)
      entry(mapping.get(), rendezvous.rank).state = static_cast<uint32_t>(PeerState::kLeft);
    return fail(met.error());
  }
  return Segment(mapping.release(), segment_bytes(rendezvous.world_size, options.slot_bytes));
}

Segment::Segment(Segment&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), bytes_(other.bytes_) {}

Segment::~Segment() {
  if (address_ != nullptr) munmap(address_, bytes_);
}

PeerEntry& Segment::peer(int rank) const { return entry(address_, rank); }

std::span<float> Segment::slot(int rank, int bank) const {
  const SegmentHeader& head = header();
  char* first = static_cast<char*>(address_) + header_bytes(static_cast<int>(head.world_size));
  return {reinterpret_cast<float*>(first + head.slot_bytes * (2 * rank + bank)),
          head.slot_bytes / sizeof(float)};
}

}  // namespace th::collective
