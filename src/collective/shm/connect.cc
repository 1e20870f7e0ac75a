#include "collective/shm/connect.h"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <linux/futex.h>
#include <netdb.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "collective/shm/segment.h"

namespace th::collective {
namespace {

constexpr auto kHeartbeat = std::chrono::milliseconds(200);
constexpr int64_t kCheckPeersNs = 100 * kMillisecond;
constexpr int kSpins = 200;  // about 10 µs: with more ranks than cores the peer needs this core

// Shared between processes, so not FUTEX_PRIVATE.
void futex_wait(std::atomic<uint32_t>& word, uint32_t expected, int64_t timeout_ns) {
  timespec timeout{.tv_sec = timeout_ns / kSecond, .tv_nsec = timeout_ns % kSecond};
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
}
void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

enum class Operation : uint64_t { kBarrier = 1, kReduceScatter, kAllGather, kBroadcast };

/// into[i] = sum over sources of source[i], in the order of the sources.
void add_into(std::span<float> into, std::span<const float> more) {
  for (size_t i = 0; i < into.size(); ++i) into[i] += more[i];
}

class ShmGroup final : public GroupBackend {
 public:
  ShmGroup(Segment segment, const Rendezvous& rendezvous, const ShmOptions& options)
      : segment_(std::move(segment)),
        rank_(rendezvous.rank),
        world_(rendezvous.world_size),
        options_(options),
        heart_([this](std::stop_token stop) { beat(stop); }) {}

  ~ShmGroup() override {
    heart_.request_stop();
    heart_.join();
    segment_.peer(rank_).state = static_cast<uint32_t>(PeerState::kLeft);
  }

  // A round: each rank puts the next piece of every rank's shard into its slot, and sums up its own from all
  // slots.
  Status reduce_scatter(std::span<float> data) override {
    const size_t piece = segment_.slot(rank_, 0).size() / world_;
    const size_t longest = shard_of(data.size(), 0, world_).size();
    for (size_t at = 0; at < longest; at += piece) {
      const int bank = next_bank();
      const std::span<float> mine = segment_.slot(rank_, bank);
      for (int peer = 0; peer < world_; ++peer) {
        const std::span<float> source = piece_of(data, peer, at, piece);
        std::copy(source.begin(), source.end(), mine.begin() + peer * piece);
      }
      TH_RETURN_IF_ERROR(meet(Operation::kReduceScatter, data.size()));
      const std::span<float> sum = piece_of(data, rank_, at, piece);
      std::fill(sum.begin(), sum.end(), 0.f);
      for (int peer = 0; peer < world_; ++peer) {
        add_into(sum, segment_.slot(peer, bank).subspan(rank_ * piece, sum.size()));
      }
    }
    return {};
  }

  Status all_gather(std::span<float> data) override {
    const size_t piece = segment_.slot(rank_, 0).size();
    const size_t longest = shard_of(data.size(), 0, world_).size();
    for (size_t at = 0; at < longest; at += piece) {
      const int bank = next_bank();
      const std::span<float> mine = piece_of(data, rank_, at, piece);
      std::copy(mine.begin(), mine.end(), segment_.slot(rank_, bank).begin());
      TH_RETURN_IF_ERROR(meet(Operation::kAllGather, data.size()));
      for (int peer = 0; peer < world_; ++peer) {
        if (peer == rank_) continue;
        const std::span<float> into = piece_of(data, peer, at, piece);
        std::copy_n(segment_.slot(peer, bank).begin(), into.size(), into.begin());
      }
    }
    return {};
  }

  Status all_reduce(std::span<float> data) override {
    TH_RETURN_IF_ERROR(reduce_scatter(data));
    return all_gather(data);
  }

  Status broadcast(std::span<float> data, int root) override {
    const size_t piece = segment_.slot(root, 0).size();
    for (size_t at = 0; at < data.size(); at += piece) {
      const int bank = next_bank();
      const std::span<float> part = data.subspan(at, std::min(piece, data.size() - at));
      const std::span<float> slot = segment_.slot(root, bank);
      if (rank_ == root) std::copy(part.begin(), part.end(), slot.begin());
      TH_RETURN_IF_ERROR(meet(Operation::kBroadcast, data.size()));
      if (rank_ != root) std::copy_n(slot.begin(), part.size(), part.begin());
    }
    return {};
  }

  Status barrier() override { return meet(Operation::kBarrier, 0); }

 private:
  // Rounds use the banks in turn: who writes a bank again has met everyone after they read it.
  int next_bank() { return bank_ ^= 1; }

  std::span<float> piece_of(std::span<float> data, int rank, size_t at, size_t piece) const {
    const Shard shard = shard_of(data.size(), rank, world_);
    const size_t begin = std::min(shard.begin + at, shard.end);
    return data.subspan(begin, std::min(piece, shard.end - begin));
  }

  void beat(std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    while (!stop.stop_requested()) {
      segment_.peer(rank_).heartbeat_ns = monotonic_now_ns();
      wake.wait_for(lock, stop, kHeartbeat, [] { return false; });
    }
  }

  /// The barrier, with a check that everyone is in the same operation.
  Status meet(Operation operation, size_t count) {
    if (broken_) return fail(*broken_);
    SegmentHeader& header = segment_.header();
    PeerEntry& self = segment_.peer(rank_);
    self.operation.store(static_cast<uint64_t>(operation), std::memory_order_relaxed);
    self.count.store(count, std::memory_order_relaxed);
    const uint32_t round = header.round.load();
    if (header.arrived.fetch_add(1) + 1 == static_cast<uint32_t>(world_)) {
      header.arrived = 0;
      if (Status same = check_agreement(operation, count); !same) header.broken = kDisagree;
      header.round.fetch_add(1);
      futex_wake_all(header.round);
    } else if (Status status = wait(header, round); !status) {
      broken_ = status.error();
      return status;
    }
    if (header.broken.load() == kDisagree) {
      broken_ = Error{Code::kInternal, "the ranks disagree about the operation or its size"};
      return fail(*broken_);
    }
    return {};
  }

  Status check_agreement(Operation operation, size_t count) const {
    for (int peer = 0; peer < world_; ++peer) {
      const PeerEntry& entry = segment_.peer(peer);
      if (entry.operation.load() != static_cast<uint64_t>(operation) || entry.count.load() != count) {
        return fail(Code::kInternal, "disagree");
      }
    }
    return {};
  }

  Status wait(SegmentHeader& header, uint32_t round) {
    for (int spin = 0; spin < kSpins; ++spin) {
      if (header.round.load(std::memory_order_acquire) != round) return {};
    }
    uint64_t next_check_ns = monotonic_now_ns() + kCheckPeersNs;
    while (header.round.load(std::memory_order_acquire) == round) {
      futex_wait(header.round, round, kCheckPeersNs);
      if (monotonic_now_ns() < next_check_ns) continue;
      next_check_ns = monotonic_now_ns() + kCheckPeersNs;
      TH_RETURN_IF_ERROR(check_peers(header, round));
    }
    return {};
  }

  /// Whoever is first to find a peer dead tells the others which, so that all name the same rank.
  Status check_peers(SegmentHeader& header, uint32_t round) const {
    for (int peer = 0; peer < world_; ++peer) {
      const int32_t broken = header.broken.load();
      const int suspect = broken > 0 ? broken - 1 : peer;
      std::string problem = suspect == rank_ ? ""
                                             : peer_problem(segment_.peer(suspect),
                                                            name_of(options_, suspect), options_.silence_ns);
      if (problem.empty() && broken > 0) problem = name_of(options_, suspect) + " was given up by the others";
      // A peer may have passed this barrier and left; then the round has ended.
      if (problem.empty() || header.round.load() != round) continue;
      int32_t none = 0;
      header.broken.compare_exchange_strong(none, suspect + 1);
      return fail(Code::kUnavailable, problem);
    }
    return {};
  }

  static constexpr int32_t kDisagree = -1;

  Segment segment_;
  int rank_;
  int world_;
  ShmOptions options_;
  int bank_ = 0;
  std::optional<Error> broken_;
  std::jthread heart_;  // last: stops before the segment goes
};

/// Shared memory reaches this host only: the address must be one of its own.
bool is_this_host(const std::string& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0) return false;
  bool ours = false;
  for (addrinfo* a = found; a != nullptr && !ours; a = a->ai_next) {
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    ours = bind(fd, a->ai_addr, a->ai_addrlen) == 0;  // only an own address can be bound; its port is 0
    close(fd);
  }
  freeaddrinfo(found);
  return ours;
}

}  // namespace

Result<Group> connect_shm(const Rendezvous& rendezvous, const ShmOptions& options) {
  if (rendezvous.world_size == 1) return Group();
  if (!is_this_host(rendezvous.master_addr)) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("MASTER_ADDR {}: shared memory joins ranks of one host, and this is not its address",
                    rendezvous.master_addr));
  }
  TH_TRY(Segment segment, Segment::join(rendezvous, options));
  return Group(rendezvous.rank, rendezvous.world_size,
               std::make_unique<ShmGroup>(std::move(segment), rendezvous, options));
}

}  // namespace th::collective
