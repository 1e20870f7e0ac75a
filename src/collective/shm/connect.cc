#include "collective/shm/connect.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "collective/shm/watch.h"

namespace th::collective {
namespace {

enum class Operation : uint64_t {
  kBarrier = 1,
  kReduceScatter,
  kAllGather,
  kAllReduce,
  kBroadcast,
  kAllToAll,
  kSend
};

/// The same on ranks that do the same.
uint64_t signature_of(Operation operation, const Elements& data, int root = 0) {
  return static_cast<uint64_t>(data.size()) << 24 | static_cast<uint64_t>(root & 0xffff) << 8 |
         static_cast<uint64_t>(data.kind()) << 4 | static_cast<uint64_t>(operation);
}

class ShmGroup final : public GroupBackend {
 public:
  ShmGroup(Segment segment, int rank, const ShmOptions& options)
      : segment_(std::move(segment)),
        rank_(rank),
        world_(static_cast<int>(segment_.header().world_size)),
        watch_(segment_, rank, options) {}

  // A round: each rank puts the next piece of every other rank's shard into its slot, and sums up its own
  // from the slots of all.
  Status reduce_scatter(Elements data) override {
    const size_t piece = piece_size(data.kind());
    return run(
        signature_of(Operation::kReduceScatter, data), rounds_of(shard(data, 0).size(), piece),
        [&](size_t round, std::byte* slot) { fill_pieces(data, round, piece, slot); },
        [&](size_t round) -> Status {
          TH_RETURN_IF_ERROR(meet());
          const Elements mine = cut(shard(data, rank_), round, piece);
          sum_pieces(mine);
          return {};
        });
  }

  Status all_gather(Elements data) override {
    const size_t piece = segment_.slot(rank_, 0).size() / bytes_of(data.kind());
    return run(
        signature_of(Operation::kAllGather, data), rounds_of(shard(data, 0).size(), piece),
        [&](size_t round, std::byte* slot) { put(cut(shard(data, rank_), round, piece), slot); },
        [&](size_t round) {
          return from_others([&](int peer) { get(slot(peer), cut(shard(data, peer), round, piece)); });
        });
  }

  // As a reduce-scatter, with the sums put into the slot for the others.
  Status all_reduce(Elements data) override {
    const size_t piece = piece_size(data.kind());
    return run(
        signature_of(Operation::kAllReduce, data), rounds_of(shard(data, 0).size(), piece),
        [&](size_t round, std::byte* slot) { fill_pieces(data, round, piece, slot); },
        [&](size_t round) -> Status {
          TH_RETURN_IF_ERROR(meet());
          const Elements mine = cut(shard(data, rank_), round, piece);
          sum_pieces(mine);
          put(mine, piece_in(slot(rank_), rank_));
          watch_.raise(self().summed, read_ + 1);
          for (int step = 1; step < world_; ++step) {
            const int peer = (rank_ + step) % world_;
            TH_RETURN_IF_ERROR(watch_.wait(peer, segment_.peer(peer).summed, read_ + 1));
            get(piece_in(slot(peer), peer), cut(shard(data, peer), round, piece));
          }
          return {};
        });
  }

  Status broadcast(Elements data, int root) override {
    const size_t piece = segment_.slot(root, 0).size() / bytes_of(data.kind());
    return run(
        signature_of(Operation::kBroadcast, data, root), rounds_of(data.size(), piece),
        [&](size_t round, std::byte* slot) {
          if (rank_ == root) put(cut(data, round, piece), slot);
        },
        [&](size_t round) -> Status {
          if (rank_ == root) return {};
          TH_RETURN_IF_ERROR(await(root));
          get(slot(root), cut(data, round, piece));
          return {};
        });
  }

  Status all_to_all(Elements send, Elements receive) override {
    const size_t piece = piece_size(send.kind());
    const size_t each = shard(send, rank_).size();
    copy_elements(shard(send, rank_), receive.part(each * rank_, each));
    return run(
        signature_of(Operation::kAllToAll, send), rounds_of(shard(send, 0).size(), piece),
        [&](size_t round, std::byte* slot) { fill_pieces(send, round, piece, slot); },
        [&](size_t round) {
          return from_others([&](int peer) {
            get(piece_in(slot(peer), rank_), cut(receive.part(each * peer, each), round, piece));
          });
        });
  }

  Status barrier() override {
    return run(
        signature_of(Operation::kBarrier, std::span<float>()), 1, [](size_t, std::byte*) {},
        [&](size_t) { return meet(); });
  }

  Status send(Elements data, int to) override {
    Mail& mail = segment_.mail(rank_, to);
    const size_t piece = segment_.mail_slot(rank_, 0).size() / bytes_of(data.kind());
    const size_t rounds = rounds_of(data.size(), piece);
    uint64_t sent = mail.sent.value.load();
    mail.signature = signature_of(Operation::kSend, data);
    return guard([&]() -> Status {
      for (size_t round = 0; round < rounds; ++round, ++sent) {
        if (round >= kMailBanks) TH_RETURN_IF_ERROR(watch_.wait(to, mail.taken, sent + 1 - kMailBanks));
        put(cut(data, round, piece), segment_.mail_slot(rank_, round % kMailBanks).data());
        watch_.raise(mail.sent, sent + 1);
      }
      return watch_.wait(to, mail.taken, sent);
    });
  }

  Status receive(Elements data, int from) override {
    Mail& mail = segment_.mail(from, rank_);
    const size_t piece = segment_.mail_slot(from, 0).size() / bytes_of(data.kind());
    const size_t rounds = rounds_of(data.size(), piece);
    uint64_t taken = mail.taken.value.load();
    return guard([&]() -> Status {
      for (size_t round = 0; round < rounds; ++round, ++taken) {
        TH_RETURN_IF_ERROR(watch_.wait(from, mail.sent, taken + 1));
        if (mail.signature.load() != signature_of(Operation::kSend, data)) return watch_.disagree();
        get(segment_.mail_slot(from, round % kMailBanks).data(), cut(data, round, piece));
        watch_.raise(mail.taken, taken + 1);
      }
      return {};
    });
  }

 private:
  PeerEntry& self() const { return segment_.peer(rank_); }
  std::byte* slot(int rank) const { return segment_.slot(rank, read_ % kBanks).data(); }  // of this round

  /// A slot cut among the ranks.
  size_t piece_bytes() const { return segment_.slot(rank_, 0).size() / world_ / 64 * 64; }
  size_t piece_size(ElementKind kind) const { return piece_bytes() / bytes_of(kind); }
  std::byte* piece_in(std::byte* slot, int rank) const { return slot + piece_bytes() * rank; }

  /// One at least, so that ranks which disagree find out.
  static size_t rounds_of(size_t size, size_t piece) {
    return std::max<size_t>((size + piece - 1) / piece, 1);
  }
  static Elements cut(Elements data, size_t round, size_t piece) {
    const size_t begin = std::min(round * piece, data.size());
    return data.part(begin, std::min(piece, data.size() - begin));
  }
  Elements shard(Elements data, int rank) const {
    const Shard shard = shard_of(data.size(), rank, world_);
    return data.part(shard.begin, shard.size());
  }

  static void put(Elements from, std::byte* slot) { copy_bytes(from.data(), slot, from.bytes().size()); }
  static void get(const std::byte* slot, Elements to) { copy_bytes(slot, to.data(), to.bytes().size()); }

  void fill_pieces(Elements data, size_t round, size_t piece, std::byte* slot) const {
    for (int step = 1; step < world_; ++step) {
      const int peer = (rank_ + step) % world_;
      put(cut(shard(data, peer), round, piece), piece_in(slot, peer));
    }
  }

  /// mine = the sum of it and of what the others have for us, in the order of the ranks.
  void sum_pieces(Elements mine) {
    sources_.clear();
    for (int peer = 0; peer < world_; ++peer)
      sources_.push_back(peer == rank_ ? mine.data() : piece_in(slot(peer), rank_));
    add_up(mine, sources_, mine.kind());
  }

  /// Fills the slot of a round while others still read that of the round before. `fill(round, slot)`;
  /// `read(round) -> Status`.
  template <class Fill, class Read>
  Status run(uint64_t signature, size_t rounds, Fill fill, Read read) {
    signature_ = signature;
    return guard([&]() -> Status {
      for (size_t round = 0; round <= rounds; ++round) {
        if (round < rounds) {
          TH_RETURN_IF_ERROR(open_bank());
          fill(round, segment_.slot(rank_, filled_ % kBanks).data());
          self().signature[filled_ % kBanks] = signature;
          watch_.raise(self().filled, ++filled_);
        }
        if (round == 0) continue;
        TH_RETURN_IF_ERROR(read(round - 1));
        watch_.raise(self().drained, ++read_);
      }
      return {};
    });
  }

  /// Who fills a slot again waits for all who read it.
  Status open_bank() {
    if (filled_ < kBanks) return {};
    for (int peer = 0; peer < world_; ++peer) {
      if (peer != rank_)
        TH_RETURN_IF_ERROR(watch_.wait(peer, segment_.peer(peer).drained, filled_ + 1 - kBanks));
    }
    return {};
  }

  /// Until the peer has filled its slot of this round.
  Status await(int peer) {
    PeerEntry& entry = segment_.peer(peer);
    TH_RETURN_IF_ERROR(watch_.wait(peer, entry.filled, read_ + 1));
    return entry.signature[read_ % kBanks].load() == signature_ ? Status() : watch_.disagree();
  }
  template <class Body>
  Status from_others(Body body) {
    for (int step = 1; step < world_; ++step) {
      const int peer = (rank_ + step) % world_;
      TH_RETURN_IF_ERROR(await(peer));
      body(peer);
    }
    return {};
  }
  Status meet() {
    return from_others([](int) {});
  }

  template <class Body>
  Status guard(Body body) {
    if (!broken_) {
      Status status = watch_.check();
      if (status) status = body();
      if (status) return status;
      broken_ = status.error();
    }
    return fail(*broken_);
  }

  Segment segment_;
  int rank_;
  int world_;
  uint64_t filled_ = 0, read_ = 0;  // rounds
  uint64_t signature_ = 0;
  std::vector<const std::byte*> sources_;
  std::optional<Error> broken_;
  Watch watch_;  // last: leaves before the segment goes
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
               std::make_unique<ShmGroup>(std::move(segment), rendezvous.rank, options));
}

}  // namespace th::collective
