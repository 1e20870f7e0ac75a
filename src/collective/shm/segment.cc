#include "collective/shm/segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/text.h"
#include "collective/shm/meeting.h"

namespace th::collective {
namespace {

constexpr size_t kPage = 4096;

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
size_t entries_bytes(size_t world_size) { return whole_pages(sizeof(PeerEntry) * world_size); }
size_t header_bytes(size_t world_size) {
  return kPage + entries_bytes(world_size) + whole_pages(sizeof(Mail) * world_size * world_size);
}

size_t slot_size(size_t world_size, size_t wanted) {
  return (std::max(wanted, 64 * world_size) + 63) / 64 * 64;
}

size_t segment_bytes(size_t world_size, size_t slot_bytes) {
  return header_bytes(world_size) + (kBanks + kMailBanks) * slot_size(world_size, slot_bytes) * world_size;
}

/// What the gang meets as.
std::string meeting_name(const Rendezvous& r) {
  return fmt::format("thunderhead/{}:{}/{}/{}", r.master_addr, r.master_port, r.job_id, r.attempt);
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
  return *reinterpret_cast<PeerEntry*>(static_cast<char*>(address) + kPage + sizeof(PeerEntry) * rank);
}

void enter(void* address, int rank) {
  PeerEntry& self = entry(address, rank);
  self.pid = getpid();
  self.start_time = process_start_time(getpid());
  self.heartbeat_ns = monotonic_now_ns();
  self.state = static_cast<uint32_t>(PeerState::kAttached);
  static_cast<SegmentHeader*>(address)->attached.fetch_add(1);
}

/// Rank 0 makes the memory, and the place where the others get it.
Result<Mapping> create(const Rendezvous& rendezvous, const ShmOptions& options, UniqueFd& memory) {
  memory = UniqueFd(memfd_create("thunderhead", MFD_CLOEXEC));
  if (!memory) return fail(errno_error("shared memory", errno));
  const size_t bytes = segment_bytes(rendezvous.world_size, options.slot_bytes);
  if (int error = posix_fallocate(memory.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    return fail(errno_error(fmt::format("shared memory: {} bytes for {} ranks", bytes, rendezvous.world_size),
                            error));
  }
  TH_TRY(Mapping mapping, map(memory.get(), bytes));
  auto& header = *static_cast<SegmentHeader*>(mapping.get());
  header.world_size = rendezvous.world_size;
  header.slot_bytes = slot_size(rendezvous.world_size, options.slot_bytes);
  enter(mapping.get(), 0);
  return mapping;
}

/// One try to get the memory from rank 0; null when it is not there yet.
Result<Mapping> attach(const Rendezvous& rendezvous, const ShmOptions& options) {
  TH_TRY(UniqueFd memory, fetch(meeting_name(rendezvous)));
  if (!memory) return Mapping(nullptr, Unmap{0});
  const size_t bytes = segment_bytes(rendezvous.world_size, options.slot_bytes);
  struct stat info {};
  if (fstat(memory.get(), &info) != 0) return fail(errno_error("shared memory", errno));
  if (static_cast<size_t>(info.st_size) != bytes) {
    return fail(Code::kInternal, meeting_name(rendezvous) + ": ranks disagree about the world size");
  }
  TH_TRY(Mapping mapping, map(memory.get(), bytes));
  enter(mapping.get(), rendezvous.rank);
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
Status check_peers(void* address, const Rendezvous& rendezvous, const ShmOptions& options) {
  for (int rank = 0; rank < rendezvous.world_size; ++rank) {
    const PeerEntry& peer = entry(address, rank);
    if (rank == rendezvous.rank || peer.state.load() == static_cast<uint32_t>(PeerState::kAbsent)) continue;
    if (std::string problem = peer_problem(peer, name_of(options, rank), options.silence_ns);
        !problem.empty()) {
      return fail(Code::kUnavailable, problem + " before all ranks had met");
    }
  }
  return {};
}

constexpr int kPollMs = 2;
constexpr int kPollsToCheck = 16;

/// Waits until everyone is attached. `mapping` is null as long as we have found no rank 0.
Status meet_all(Mapping& mapping, const UniqueFd& meeting, const UniqueFd& memory,
                const Rendezvous& rendezvous, const ShmOptions& options) {
  const uint64_t deadline_ns = monotonic_now_ns() + options.connect_timeout_ns;
  for (int polls = 1;; ++polls) {
    if (mapping == nullptr) {
      TH_TRY(mapping, attach(rendezvous, options));
    }
    if (mapping != nullptr) {
      auto& header = *static_cast<SegmentHeader*>(mapping.get());
      entry(mapping.get(), rendezvous.rank).heartbeat_ns = monotonic_now_ns();
      if (rendezvous.rank == 0 && header.attached.load() == header.world_size) header.released = 1;
      if (header.released.load() == 1) return {};
      if (polls % kPollsToCheck == 0) TH_RETURN_IF_ERROR(check_peers(mapping.get(), rendezvous, options));
    }
    if (monotonic_now_ns() > deadline_ns) {
      return fail(Code::kDeadlineExceeded,
                  fmt::format("rank {} waited {} at {}:{} for rank(s) {}", rendezvous.rank,
                              format_duration(options.connect_timeout_ns), rendezvous.master_addr,
                              rendezvous.master_port, missing_ranks(mapping.get(), rendezvous.world_size)));
    }
    if (meeting) {
      hand_out(meeting, memory.get(), kPollMs);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(kPollMs));
    }
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

std::string name_of(const ShmOptions& options, int rank) {
  return options.names.empty() ? fmt::format("rank {}", rank) : options.names[rank];
}

std::string peer_problem(const PeerEntry& peer, const std::string& name, int64_t silence_ns) {
  const auto state = static_cast<PeerState>(peer.state.load());
  const int pid = peer.pid.load();
  if (state == PeerState::kLeft) return fmt::format("{} (pid {}) left the group", name, pid);
  if (process_start_time(pid) != peer.start_time.load()) return fmt::format("{} (pid {}) died", name, pid);
  const auto silent_ns = static_cast<int64_t>(monotonic_now_ns() - peer.heartbeat_ns.load());
  if (silent_ns > silence_ns) {
    return fmt::format("{} (pid {}) has given no sign of life for {}", name, pid, format_duration(silent_ns));
  }
  return {};
}

Result<Segment> Segment::join(const Rendezvous& rendezvous, const ShmOptions& options) {
  Mapping mapping(nullptr, Unmap{0});
  UniqueFd meeting, memory;
  if (rendezvous.rank == 0) {
    TH_TRY(mapping, create(rendezvous, options, memory));
    TH_TRY(meeting, open_meeting(meeting_name(rendezvous)));
  }
  if (Status met = meet_all(mapping, meeting, memory, rendezvous, options); !met) {
    if (mapping != nullptr) {
      entry(mapping.get(), rendezvous.rank).state = static_cast<uint32_t>(PeerState::kLeft);
    }
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

Mail& Segment::mail(int from, int to) const {
  const size_t world = header().world_size;
  return reinterpret_cast<Mail*>(static_cast<char*>(address_) + kPage +
                                 entries_bytes(world))[from * world + to];
}

std::span<std::byte> Segment::slot(int rank, int bank) const {
  const SegmentHeader& head = header();
  std::byte* first = static_cast<std::byte*>(address_) + header_bytes(head.world_size);
  return {first + head.slot_bytes * ((kBanks + kMailBanks) * rank + bank), head.slot_bytes};
}

}  // namespace th::collective
