#include "reserve/snapshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "reserve/room.h"
#include "reserve/tree.h"

namespace th::reserve {
namespace {

using detail::Busy;
using detail::Chunk;
using detail::HostState;
using detail::kLeavesPerChunk;
using detail::Page;
using detail::Root;
using fleet::Leaf;
using fleet::LeafIndex;

/// Copies the path to what it changes. Hosts are changed in ascending order, so each page is copied once.
class Editor {
 public:
  explicit Editor(const Root& root) : root_(std::make_shared<Root>(root)) {}

  HostState get(HostIndex host) const {
    const HostState* state = detail::find_state(*root_, host);
    if (state != nullptr) return *state;
    return {root_->is_slice ? 0 : detail::all_gpus(root_->fleet->host(host).gpus), std::nullopt, {}};
  }

  void set(HostIndex host, HostState state) {
    LeafIndex leaf = root_->fleet->host(host).leaf;
    open(leaf);
    auto& slot = page_->hosts[static_cast<size_t>(host - root_->fleet->leaf(leaf).first_host)];
    page_->num_claims += state.busy.size() - (slot ? slot->busy.size() : 0);
    bool is_plain = !root_->is_slice && !state.out_of_use && state.busy.empty();
    slot = is_plain ? nullptr : std::make_shared<const HostState>(std::move(state));
  }

  std::shared_ptr<const Root> finish() {
    close_page();
    close_chunk();
    size_t num_series = fleet::series_catalogue().size();
    root_->clear_masks.assign(num_series, 0);
    for (const auto& chunk : root_->chunks) {
      for (size_t s = 0; chunk && s < num_series; ++s) root_->clear_masks[s] |= chunk->clear_masks[s];
    }
    return root_;
  }

  /// Makes the page of a leaf current, a copy of its own.
  void open(LeafIndex leaf) {
    if (leaf == leaf_) return;
    TH_CHECK(leaf > leaf_);
    close_page();
    size_t chunk_index = static_cast<size_t>(leaf) / kLeavesPerChunk;
    if (chunk_ == nullptr || chunk_index != chunk_index_) {
      close_chunk();
      chunk_index_ = chunk_index;
      auto& slot = root_->chunks[chunk_index];
      auto chunk = slot ? std::make_shared<Chunk>(*slot) : std::make_shared<Chunk>();
      size_t num_leaves = root_->fleet->leaves().size() - chunk_index * kLeavesPerChunk;
      chunk->pages.resize(std::min(kLeavesPerChunk, num_leaves));
      chunk_ = chunk.get();
      slot = std::move(chunk);
    }
    leaf_ = leaf;
    auto& slot = chunk_->pages[static_cast<size_t>(leaf) % kLeavesPerChunk];
    auto page = slot ? std::make_shared<Page>(*slot) : std::make_shared<Page>();
    page->hosts.resize(static_cast<size_t>(root_->fleet->leaf(leaf).num_hosts));
    page_ = page.get();
    slot = std::move(page);
  }

 private:
  void close_page() {
    if (page_ == nullptr) return;
    const Leaf& leaf = root_->fleet->leaf(leaf_);
    size_t num_series = fleet::series_catalogue().size();
    page_->clear_hosts.assign(num_series, 0);
    for (size_t s = 0; !root_->is_slice && s < num_series; ++s) {
      detail::Query query{*root_, static_cast<fleet::SeriesIndex>(s), detail::kAlwaysStart,
                          detail::kAlwaysEnd};
      int64_t gpus = 0;
      for (RackIndex r = leaf.first_rack; r < leaf.first_rack + leaf.num_racks; ++r) {
        gpus += detail::rack_room(query, *page_, r).gpus;
      }
      page_->clear_hosts[s] = gpus / fleet::series_catalogue()[s].gpus_per_host;
    }
    page_ = nullptr;
  }

  void close_chunk() {
    if (chunk_ == nullptr) return;
    chunk_->clear_masks.assign(fleet::series_catalogue().size(), 0);
    for (const auto& page : chunk_->pages) {
      for (size_t s = 0; page && s < chunk_->clear_masks.size(); ++s) {
        chunk_->clear_masks[s] |= uint64_t{1} << detail::clear_bit(page->clear_hosts[s]);
      }
    }
    chunk_ = nullptr;
  }

  std::shared_ptr<Root> root_;
  size_t chunk_index_ = 0;
  Chunk* chunk_ = nullptr;  // the current ones, this editor's own copies
  LeafIndex leaf_ = -1;
  Page* page_ = nullptr;
};

Root empty_root(std::shared_ptr<const Fleet> fleet, bool is_slice) {
  Root root;
  root.is_slice = is_slice;
  root.chunks.resize((fleet->leaves().size() + kLeavesPerChunk - 1) / kLeavesPerChunk);
  root.fleet = std::move(fleet);
  return root;
}

/// Enters a claim's GPUs of one host. Errors: kAlreadyExists.
Status enter(HostState& state, const std::shared_ptr<const Claim>& claim, GpuMask gpus, const Fleet& fleet,
             HostIndex host) {
  for (const Busy& busy : state.busy) {
    bool apart = busy.end_ns <= claim->start_ns || busy.start_ns >= claim->end_ns;
    if (!apart && (busy.gpus & gpus) != 0) {
      return fail(Code::kAlreadyExists, fmt::format("host '{}': '{}' wants GPUs that '{}' has in that time",
                                                    fleet.host(host).id, claim->id, busy.claim->id));
    }
  }
  auto before = [](const Busy& a, const Busy& b) {
    return a.start_ns != b.start_ns ? a.start_ns < b.start_ns : a.claim->id < b.claim->id;
  };
  Busy entry{claim->start_ns, claim->end_ns, gpus, claim};
  state.busy.insert(std::upper_bound(state.busy.begin(), state.busy.end(), entry, before), entry);
  return {};
}

}  // namespace

Snapshot::Snapshot(std::shared_ptr<const Fleet> fleet) {
  Root root = empty_root(std::move(fleet), false);
  Editor editor(root);
  for (size_t leaf = 0; leaf < root.fleet->leaves().size(); ++leaf) editor.open(static_cast<LeafIndex>(leaf));
  root_ = editor.finish();
}

Snapshot Snapshot::within(std::shared_ptr<const Fleet> fleet, std::span<const HostGpus> hosts) {
  Root root = empty_root(std::move(fleet), true);
  std::vector<HostGpus> sorted(hosts.begin(), hosts.end());
  std::ranges::sort(sorted, {}, &HostGpus::host);
  Editor editor(root);
  for (const HostGpus& host : sorted) {
    editor.set(host.host, {host.gpus & detail::all_gpus(root.fleet->host(host.host).gpus), std::nullopt, {}});
  }
  return Snapshot(editor.finish());
}

const Fleet& Snapshot::fleet() const { return *root_->fleet; }
const std::shared_ptr<const Fleet>& Snapshot::fleet_ptr() const { return root_->fleet; }
bool Snapshot::is_slice() const { return root_->is_slice; }

Result<Snapshot> Snapshot::with_claim(const Claim& claim) const {
  auto refuse = [&](std::string_view why) {
    return fail(Code::kInvalidArgument, fmt::format("claim '{}': {}", claim.id, why));
  };
  if (claim.start_ns >= claim.end_ns) return refuse("its window is empty");
  if (claim.hosts.empty()) return refuse("it has no hosts");
  Editor editor(*root_);
  auto shared = std::make_shared<const Claim>(claim);
  HostIndex last = -1;
  for (const HostGpus& part : claim.hosts) {
    if (part.host <= last) return refuse("its hosts are not in ascending order");
    if (static_cast<size_t>(part.host) >= fleet().hosts().size()) return refuse("a host does not exist");
    last = part.host;
    HostState state = editor.get(part.host);
    if (part.gpus == 0 || (part.gpus & ~state.exists) != 0) {
      return refuse(fmt::format("host '{}' has no such GPUs here", fleet().host(part.host).id));
    }
    TH_RETURN_IF_ERROR(enter(state, shared, part.gpus, fleet(), part.host));
    editor.set(part.host, std::move(state));
  }
  return Snapshot(editor.finish());
}

Snapshot Snapshot::without_claim(const Claim& claim) const {
  Editor editor(*root_);
  for (const HostGpus& part : claim.hosts) {
    const HostState* old = detail::find_state(*root_, part.host);
    if (old == nullptr) continue;
    HostState state = *old;
    std::erase_if(state.busy, [&](const Busy& busy) { return busy.claim->id == claim.id; });
    editor.set(part.host, std::move(state));
  }
  return Snapshot(editor.finish());
}

Snapshot Snapshot::with_out_of_use(HostIndex host, std::optional<std::string> reason) const {
  Editor editor(*root_);
  HostState state = editor.get(host);
  state.out_of_use = std::move(reason);
  editor.set(host, std::move(state));
  return Snapshot(editor.finish());
}

HostUse Snapshot::host_use(HostIndex host, int64_t time_ns) const {
  const HostState* state = detail::find_state(*root_, host);
  if (state == nullptr) return {std::nullopt, is_slice() ? 0 : detail::all_gpus(fleet().host(host).gpus), 0};
  HostUse use{state->out_of_use, state->exists, 0};
  for (const Busy& busy : state->busy) {
    if (busy.start_ns <= time_ns && time_ns < busy.end_ns) use.busy |= busy.gpus;
  }
  return use;
}

int64_t Snapshot::rack_power_w(RackIndex rack, int64_t time_ns) const {
  const Page* page = detail::find_page(*root_, fleet().rack(rack).leaf);
  if (page == nullptr) return 0;
  return detail::peak_power_w({*root_, -1, time_ns, time_ns + 1}, *page, rack);
}

std::vector<std::shared_ptr<const Claim>> Snapshot::claims_on(HostIndex host) const {
  std::vector<std::shared_ptr<const Claim>> claims;
  if (const HostState* state = detail::find_state(*root_, host)) {
    for (const Busy& busy : state->busy) claims.push_back(busy.claim);
  }
  return claims;
}

}  // namespace th::reserve
