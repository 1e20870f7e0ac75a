#include "collective/gloo/connect.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "collective/gloo/mesh.h"

namespace th::collective {
namespace {

constexpr int64_t kVerdictNs = kSecond;

enum class Operation : int32_t { kBarrier = 1, kReduceScatter, kAllGather, kAllReduce, kBroadcast };

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

  Status reduce_scatter(std::span<float> data) override {
    return run(Operation::kReduceScatter, data.size(), [&] { return sum_shards(data); });
  }
  Status all_gather(std::span<float> data) override {
    return run(Operation::kAllGather, data.size(), [&] { return spread_shards(data); });
  }
  Status all_reduce(std::span<float> data) override {
    return run(Operation::kAllReduce, data.size(), [&]() -> Status {
      TH_RETURN_IF_ERROR(sum_shards(data));
      return spread_shards(data);
    });
  }
  Status barrier() override {
    return run(Operation::kBarrier, 0, [&]() -> Status {
      float one[] = {1};
      TH_RETURN_IF_ERROR(sum_shards(one));
      return spread_shards(one);
    });
  }
  Status broadcast(std::span<float> data, int root) override {
    return run(Operation::kBroadcast, data.size(), [&]() -> Status {
      const int ours = layout_.deputy(node_, root);
      std::vector<Part> sends, receives;
      for (int node = 0; rank_ == root && node < layout_.nodes(); ++node) {
        if (node != node_) sends.push_back({layout_.deputy(node, root), data});
      }
      if (rank_ == ours && rank_ != root) receives.push_back({root, data});
      TH_RETURN_IF_ERROR(mesh_.exchange(sends, receives, next_tag()));
      return local_.broadcast(data, layout_.local_of[ours]);
    });
  }

 private:
  size_t carrier(int rank) const {
    return static_cast<size_t>(layout_.local_of[layout_.deputy(node_, rank)]);
  }
  const std::vector<int>& ours() const { return carried_[layout_.local_of[rank_]]; }

  template <class Body>
  Status run(Operation operation, size_t count, Body body) {
    if (broken_) return fail(*broken_);
    beat_ = {beat_.round + 1, static_cast<int32_t>(operation), static_cast<int64_t>(count)};
    step_ = 0;
    meeting_->enter(beat_);
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
    const auto what = static_cast<uint64_t>(beat_.operation + 8 * beat_.count);
    return static_cast<uint64_t>(beat_.round) << 26 | (what & 0xffffff) << 2 | step_++;
  }

  /// The shard of `rank` as this node carries it; in `data` itself when nobody shares our memory.
  std::span<float> block(std::span<float> data, int rank) {
    const Shard shard = shard_of(data.size(), rank, world_);
    if (local_.world_size() == 1) return data.subspan(shard.begin, shard.size());
    return std::span(scratch_).subspan(offset_[rank], shard.size());
  }

  /// Lays the shards out so that what a rank carries is its shard of the local group.
  void lay_out(size_t size) {
    if (local_.world_size() == 1 || (laid_out_for_ == size && !offset_.empty())) return;
    size_t part = 0;
    for (const std::vector<int>& ranks : carried_) {
      size_t sum = 0;
      for (int rank : ranks) sum += shard_of(size, rank, world_).size();
      part = std::max(part, sum);
    }
    offset_.assign(world_, 0);
    for (size_t local = 0; local < carried_.size(); ++local) {
      size_t at = local * part;
      for (int rank : carried_[local]) {
        offset_[rank] = at;
        at += shard_of(size, rank, world_).size();
      }
    }
    scratch_.assign(part * carried_.size(), 0.f);
    laid_out_for_ = size;
  }

  Status sum_shards(std::span<float> data) {
    lay_out(data.size());
    if (local_.world_size() > 1) {
      for (int rank = 0; rank < world_; ++rank) copy(shard(data, rank), block(data, rank));
      TH_RETURN_IF_ERROR(local_.reduce_scatter(scratch_));
    }
    const std::span<float> mine = shard(data, rank_);
    inbox_.resize(mine.size() * layout_.nodes());
    const auto from = [&](int node) { return std::span(inbox_).subspan(mine.size() * node, mine.size()); };
    std::vector<Part> sends, receives;
    for (int rank : ours()) {
      if (rank != rank_) sends.push_back({rank, block(data, rank)});
    }
    for (int node = 0; node < layout_.nodes(); ++node) {
      if (node != node_) receives.push_back({layout_.deputy(node, rank_), from(node)});
    }
    copy(block(data, rank_), from(node_));
    TH_RETURN_IF_ERROR(mesh_.exchange(sends, receives, next_tag()));
    std::fill(mine.begin(), mine.end(), 0.f);
    for (int node = 0; node < layout_.nodes(); ++node) {
      const std::span<const float> more = from(node);
      for (size_t i = 0; i < mine.size(); ++i) mine[i] += more[i];
    }
    return {};
  }

  Status spread_shards(std::span<float> data) {
    lay_out(data.size());
    const std::span<float> mine = shard(data, rank_);
    if (local_.world_size() > 1) copy(mine, block(data, rank_));
    std::vector<Part> sends, receives;
    for (int node = 0; node < layout_.nodes(); ++node) {
      if (node != node_) sends.push_back({layout_.deputy(node, rank_), mine});
    }
    for (int rank : ours()) {
      if (rank != rank_) receives.push_back({rank, block(data, rank)});
    }
    TH_RETURN_IF_ERROR(mesh_.exchange(sends, receives, next_tag()));
    if (local_.world_size() == 1) return {};
    TH_RETURN_IF_ERROR(local_.all_gather(scratch_));
    for (int rank = 0; rank < world_; ++rank) copy(block(data, rank), shard(data, rank));
    return {};
  }

  std::span<float> shard(std::span<float> data, int rank) const {
    const Shard s = shard_of(data.size(), rank, world_);
    return data.subspan(s.begin, s.size());
  }
  static void copy(std::span<const float> from, std::span<float> to) {
    std::copy(from.begin(), from.end(), to.begin());
  }

  std::unique_ptr<Meeting> meeting_;
  Layout layout_;
  Mesh mesh_;
  Group local_;
  int rank_, world_, node_;
  std::vector<std::vector<int>> carried_;  // by local rank
  std::vector<float> scratch_, inbox_;
  std::vector<size_t> offset_;  // of each rank's shard in scratch_
  size_t laid_out_for_ = 0;
  Beat beat_;
  uint64_t step_ = 0;
  std::optional<Error> broken_;
};

}  // namespace

Result<Group> connect_gloo(std::unique_ptr<Meeting> meeting, Group local) {
  Layout layout(*meeting);
  const int rank = meeting->rank(), world = static_cast<int>(meeting->places().size());
  TH_CHECK(layout.ranks[layout.node_of[rank]].size() == static_cast<size_t>(local.world_size()));
  std::set<int> peers;  // whose shards we carry, and who carries ours
  for (int other = 0; other < world; ++other) {
    if (layout.node_of[other] == layout.node_of[rank]) continue;
    if (layout.deputy(layout.node_of[rank], other) == rank ||
        layout.deputy(layout.node_of[other], rank) == other)
      peers.insert(other);
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
