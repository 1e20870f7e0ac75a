#include "collective/gloo/connect.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

#include "collective/gloo/mesh.h"

namespace th::collective {
namespace {

constexpr int64_t kVerdictNs = kSecond;

// Below 16: a tag holds them, and the kind of the numbers.
enum class Operation : int32_t {
  kBarrier = 1,
  kReduceScatter,
  kAllGather,
  kAllReduce,
  kBroadcast,
  kAllToAll
};

/// Which rank is where, and who of a node stands for a rank of another one.
struct Layout {
  explicit Layout(const Meeting& meeting) {
    for (const Place& place : meeting.places()) {
      const auto node = static_cast<size_t>(place.memory);
      if (node >= ranks.size()) ranks.resize(node + 1);
      node_of.push_back(place.memory);
      local_of.push_back(static_cast<int>(ranks[node].size()));
      ranks[node].push_back(static_cast<int>(node_of.size()) - 1);
    }
  }
  int nodes() const { return static_cast<int>(ranks.size()); }
  int deputy(int node, int rank) const {
    if (node_of[rank] == node) return rank;
    return ranks[node][local_of[rank] % ranks[node].size()];
  }

  std::vector<std::vector<int>> ranks;  // by node, ascending
  std::vector<int> node_of, local_of;   // by rank
};

/// Each rank of a node carries the shards of some ranks: its own, and of those elsewhere for which it is the
/// deputy. Inside of the node all carry in parallel; between nodes a shard travels between its owner and its
/// deputies only.
class NodesGroup final : public GroupBackend {
 public:
  NodesGroup(std::unique_ptr<Meeting> meeting, Layout layout, Mesh mesh, Group local)
      : meeting_(std::move(meeting)),
        layout_(std::move(layout)),
        mesh_(std::move(mesh)),
        local_(std::move(local)),
        rank_(meeting_->rank()),
        world_(static_cast<int>(layout_.node_of.size())),
        node_(layout_.node_of[rank_]),
        carried_(layout_.ranks[node_].size()) {
    for (int rank = 0; rank < world_; ++rank) carried_[carrier(rank)].push_back(rank);
    meeting_->on_broken([this] { mesh_.abort(); });
  }

  ~NodesGroup() override { meeting_->leave(); }  // before the mesh goes

  Status reduce_scatter(Elements data) override {
    return run(Operation::kReduceScatter, data, [&] { return sum_shards(data); });
  }
  Status all_gather(Elements data) override {
    return run(Operation::kAllGather, data, [&] { return spread_shards(data); });
  }
  Status all_reduce(Elements data) override {
    return run(Operation::kAllReduce, data, [&] { return sum_and_spread(data); });
  }
  Status barrier() override {
    float one[] = {1};
    return run(Operation::kBarrier, one, [&] { return sum_and_spread(one); });
  }
  Status broadcast(Elements data, int root) override {
    return run(Operation::kBroadcast, data, [&]() -> Status {
      const int ours = layout_.deputy(node_, root);
      std::vector<Part> sends, receives;
      for (int node = 0; rank_ == root && node < layout_.nodes(); ++node) {
        if (node != node_) sends.push_back({layout_.deputy(node, root), data.bytes()});
      }
      if (rank_ == ours && rank_ != root) receives.push_back({root, data.bytes()});
      TH_RETURN_IF_ERROR(mesh_.exchange(sends, receives, next_tag()));
      return local_.broadcast(data, layout_.local_of[ours]);
    });
  }

  // Between nodes directly, inside of ours by the local group.
  Status all_to_all(Elements send, Elements receive) override {
    return run(Operation::kAllToAll, send, [&]() -> Status {
      const size_t each = shard(send, rank_).size();
      std::vector<Part> sends, receives;
      size_t ours = 0;
      for (int rank = 0; rank < world_; ++rank) {
        if (layout_.node_of[rank] == node_) {
          ours += shard(send, rank).size();
          continue;
        }
        sends.push_back({rank, shard(send, rank).bytes()});
        receives.push_back({rank, receive.part(each * rank, each).bytes()});
      }
      TH_RETURN_IF_ERROR(mesh_.exchange(sends, receives, next_tag()));
      // The shards of our node's ranks differ by at most one as those of all do, so they are shards of it.
      const Elements out = room(ours + each * carried_.size(), send.kind());
      const Elements packed = out.part(0, ours), got = out.part(ours, each * carried_.size());
      size_t at = 0;
      for (int rank : layout_.ranks[node_]) {
        copy_elements(shard(send, rank), packed.part(at, shard(send, rank).size()));
        at += shard(send, rank).size();
      }
      TH_RETURN_IF_ERROR(local_.all_to_all(packed, got));
      for (int rank : layout_.ranks[node_])
        copy_elements(got.part(each * layout_.local_of[rank], each), receive.part(each * rank, each));
      return {};
    });
  }

  Status send(Elements data, int to) override {
    return guard([&]() -> Status {
      if (layout_.node_of[to] == node_) return local_.send(data, layout_.local_of[to]);
      uint64_t length[] = {data.bytes().size()};
      const Part head[] = {{to, std::as_writable_bytes(std::span(length))}}, body[] = {{to, data.bytes()}};
      TH_RETURN_IF_ERROR(mesh_.exchange(head, {}, mail_tag(sent_[to])));
      return mesh_.exchange(body, {}, mail_tag(sent_[to]));
    });
  }
  Status receive(Elements data, int from) override {
    return guard([&]() -> Status {
      if (layout_.node_of[from] == node_) return local_.receive(data, layout_.local_of[from]);
      uint64_t length[] = {0};
      const Part head[] = {{from, std::as_writable_bytes(std::span(length))}},
                 body[] = {{from, data.bytes()}};
      TH_RETURN_IF_ERROR(mesh_.exchange({}, head, mail_tag(received_[from])));
      if (length[0] != data.bytes().size()) {
        return fail(Code::kInternal,
                    fmt::format("{} sends {} bytes to rank {}, which wants {}", meeting_->name_of(from),
                                length[0], rank_, data.bytes().size()));
      }
      return mesh_.exchange({}, body, mail_tag(received_[from]));
    });
  }

 private:
  size_t carrier(int rank) const {
    return static_cast<size_t>(layout_.local_of[layout_.deputy(node_, rank)]);
  }
  const std::vector<int>& ours() const { return carried_[layout_.local_of[rank_]]; }

  template <class Body>
  Status run(Operation operation, const Elements& data, Body body) {
    return guard([&]() -> Status {
      beat_ = {beat_.round + 1, static_cast<int32_t>(operation) | static_cast<int32_t>(data.kind()) << 4,
               static_cast<int64_t>(data.size())};
      step_ = 0;
      meeting_->enter(beat_);
      return body();
    });
  }

  template <class Body>
  Status guard(Body body) {
    if (broken_) return fail(*broken_);
    Status status = body();
    if (status) return status;
    // What we saw may be the end of someone who saw the cause first: the meeting names that one to all.
    const std::optional<Error> verdict = meeting_->broken(kVerdictNs);
    broken_ = verdict.value_or(status.error());
    if (!verdict) meeting_->give_up(broken_->message);
    local_ = Group();  // so that those of our node who wait for us see it
    return fail(*broken_);
  }

  /// The same on all ranks that are in the same operation, and on no others.
  uint64_t next_tag() {
    const auto what = static_cast<uint64_t>(beat_.operation + 64 * beat_.count);
    return static_cast<uint64_t>(beat_.round) << 26 | (what & 0xffffff) << 2 | step_++;
  }
  /// That of the next message between two ranks; never one of an operation of all.
  static uint64_t mail_tag(uint64_t& number) { return uint64_t{1} << 63 | number++; }

  /// Memory of ours for so many elements, until the next call.
  Elements room(size_t size, ElementKind kind) {
    const size_t floats = (size * bytes_of(kind) + sizeof(float) - 1) / sizeof(float);
    if (scratch_.size() < floats) scratch_.resize(floats);
    return {std::as_writable_bytes(std::span(scratch_)).first(size * bytes_of(kind)), kind};
  }

  bool in_place(const Elements& data, ElementKind kind) const {
    return local_.world_size() == 1 && kind == data.kind();
  }

  /// Where this node carries the shards: in `data` itself when nobody shares our memory, else laid out so
  /// that what a rank carries is its shard of the local group.
  struct Blocks {
    Elements all;
    std::vector<size_t> offset;  // of each rank's shard
  };
  Blocks blocks_of(Elements data, ElementKind kind) {
    Blocks blocks{data, std::vector<size_t>(world_)};
    if (in_place(data, kind)) {
      for (int rank = 0; rank < world_; ++rank)
        blocks.offset[rank] = shard_of(data.size(), rank, world_).begin;
      return blocks;
    }
    size_t part = 0;
    for (const std::vector<int>& ranks : carried_) {
      size_t sum = 0;
      for (int rank : ranks) sum += shard(data, rank).size();
      part = std::max(part, sum);
    }
    for (size_t local = 0; local < carried_.size(); ++local) {
      size_t at = local * part;
      for (int rank : carried_[local]) {
        blocks.offset[rank] = at;
        at += shard(data, rank).size();
      }
    }
    blocks.all = room(part * carried_.size(), kind);
    return blocks;
  }

  // Where a node has several ranks, sums travel as float32, so that a bfloat16 is rounded once.
  Status sum_shards(Elements data) {
    const ElementKind kind = layout_.nodes() < world_ ? ElementKind::kFloat32 : data.kind();
    const Blocks blocks = blocks_of(data, kind);
    const auto block = [&](int rank) {
      return blocks.all.part(blocks.offset[rank], shard(data, rank).size());
    };
    if (!in_place(data, kind)) {
      for (int rank = 0; rank < world_; ++rank) copy_elements(shard(data, rank), block(rank));
      TH_RETURN_IF_ERROR(local_.reduce_scatter(blocks.all));
    }
    const Elements mine = shard(data, rank_);
    const size_t bytes = mine.size() * bytes_of(kind);
    inbox_.resize(bytes * layout_.nodes());
    std::vector<const std::byte*> sources;
    std::vector<Part> sends, receives;
    for (int rank : ours()) {
      if (rank != rank_) sends.push_back({rank, block(rank).bytes()});
    }
    for (int node = 0; node < layout_.nodes(); ++node) {
      const std::span from = std::span(inbox_).subspan(bytes * node, bytes);
      if (node != node_) receives.push_back({layout_.deputy(node, rank_), from});
      sources.push_back(node == node_ ? block(rank_).data() : from.data());
    }
    TH_RETURN_IF_ERROR(mesh_.exchange(sends, receives, next_tag()));
    add_up(mine, sources, kind);
    return {};
  }

  Status spread_shards(Elements data) {
    const Blocks blocks = blocks_of(data, data.kind());
    const auto block = [&](int rank) {
      return blocks.all.part(blocks.offset[rank], shard(data, rank).size());
    };
    const Elements mine = shard(data, rank_);
    if (local_.world_size() > 1) copy_elements(mine, block(rank_));
    std::vector<Part> sends, receives;
    for (int node = 0; node < layout_.nodes(); ++node) {
      if (node != node_) sends.push_back({layout_.deputy(node, rank_), mine.bytes()});
    }
    for (int rank : ours()) {
      if (rank != rank_) receives.push_back({rank, block(rank).bytes()});
    }
    TH_RETURN_IF_ERROR(mesh_.exchange(sends, receives, next_tag()));
    if (local_.world_size() == 1) return {};
    TH_RETURN_IF_ERROR(local_.all_gather(blocks.all));
    for (int rank = 0; rank < world_; ++rank) copy_elements(block(rank), shard(data, rank));
    return {};
  }

  Status sum_and_spread(Elements data) {
    TH_RETURN_IF_ERROR(sum_shards(data));
    return spread_shards(data);
  }

  Elements shard(Elements data, int rank) const {
    const Shard s = shard_of(data.size(), rank, world_);
    return data.part(s.begin, s.size());
  }

  std::unique_ptr<Meeting> meeting_;
  Layout layout_;
  Mesh mesh_;
  Group local_;
  int rank_, world_, node_;
  std::vector<std::vector<int>> carried_;  // by local rank
  std::vector<float> scratch_;
  std::vector<std::byte> inbox_;
  std::map<int, uint64_t> sent_, received_;  // messages between two, by the other rank
  Beat beat_;
  uint64_t step_ = 0;
  std::optional<Error> broken_;
};

}  // namespace

Result<Group> connect_gloo(std::unique_ptr<Meeting> meeting, Group local) {
  Layout layout(*meeting);
  const int rank = meeting->rank(), world = static_cast<int>(meeting->places().size());
  TH_CHECK(layout.ranks[layout.node_of[rank]].size() == static_cast<size_t>(local.world_size()));
  std::set<int> peers;  // all that do not share our memory: whoever may send to us
  for (int other = 0; other < world; ++other) {
    if (layout.node_of[other] != layout.node_of[rank]) peers.insert(other);
  }
  auto mesh = Mesh::connect(*meeting, peers);
  if (!mesh) {
    if (auto verdict = meeting->broken(kVerdictNs)) return fail(*verdict);
    meeting->give_up(mesh.error().message);
    return fail(mesh.error());
  }
  return Group(rank, world,
               std::make_unique<NodesGroup>(std::move(meeting), std::move(layout), std::move(*mesh),
                                            std::move(local)));
}

}  // namespace th::collective
