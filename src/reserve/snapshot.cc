#include "reserve/snapshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "reserve/room.h"
#include "reserve/tree.h"

namespace th::reserve {
namespace {

using detail::Busy;
using detail::Chunk;
using detail::Flaw;
using detail::HostView;
using detail::kLeavesPerChunk;
using detail::Page;
using detail::Root;
using detail::Summary;
using fleet::Leaf;
using fleet::LeafIndex;

/// Copies the path to what it changes. Hosts are changed in ascending order, so each page is copied once.
class Editor {
 public:
  explicit Editor(const Root& root) : root_(std::make_shared<Root>(root)) {}

  /// The page of a host, a copy of its own, with room for one claim more on each host to come.
  Page& page_of(HostIndex host) {
    open(root_->fleet->host(host).leaf);
    return *page_;
  }
  int32_t slot_of(HostIndex host) const { return host - root_->fleet->leaf(leaf_).first_host; }
  Root& root() { return *root_; }

  std::shared_ptr<const Root> finish() {
    close_page();
    close_chunk();
    root_->clear_masks = {};
    root_->all = {};
    for (const auto& chunk : root_->chunks) {
      if (!chunk) continue;
      root_->all.merge(chunk->all);
      for (fleet::SeriesIndex series : root_->fleet->series()) {
        auto s = static_cast<size_t>(series);
        root_->clear_masks[s] |= chunk->clear_masks[s];
      }
    }
    return root_;
  }

  /// Makes the page of a leaf current.
  void open(LeafIndex leaf) {
    if (leaf == leaf_) return;
    TH_CHECK(leaf > leaf_);
    close_page();
    size_t chunk_index = static_cast<size_t>(leaf) / kLeavesPerChunk;
    if (chunk_ == nullptr || chunk_index != chunk_index_) open_chunk(chunk_index);
    leaf_ = leaf;
    auto& slot = chunk_->pages[static_cast<size_t>(leaf) % kLeavesPerChunk];
    auto page = std::make_shared<Page>();
    if (slot) {
      page->busy.reserve(slot->busy.size() + 8);
      page->busy = slot->busy;
      page->flaws = slot->flaws;
      page->exists = slot->exists;
    } else if (root_->is_slice) {
      page->exists.resize(static_cast<size_t>(root_->fleet->leaf(leaf).num_hosts));
    }
    page_ = page.get();
    slot = std::move(page);
  }

 private:
  void open_chunk(size_t chunk_index) {
    close_chunk();
    chunk_index_ = chunk_index;
    auto& slot = root_->chunks[chunk_index];
    auto chunk = slot ? std::make_shared<Chunk>(*slot) : std::make_shared<Chunk>();
    chunk_ = chunk.get();
    slot = std::move(chunk);
  }

  void close_page() {
    if (page_ == nullptr) return;
    Summary summary;
    for (const Busy& busy : page_->busy) {
      summary.latest_start_ns = std::max(summary.latest_start_ns, busy.start_ns);
      summary.earliest_end_ns = std::min(summary.earliest_end_ns, busy.end_ns);
    }
    for (fleet::SeriesIndex series : root_->fleet->series()) {
      if (root_->is_slice) break;
      detail::Query always{*root_, series, detail::kAlwaysStart, detail::kAlwaysEnd};
      summary.clear[static_cast<size_t>(series)] =
          static_cast<int32_t>(detail::page_room(always, *page_, leaf_));
    }
    chunk_->summaries[static_cast<size_t>(leaf_) % kLeavesPerChunk] = summary;
    page_ = nullptr;
  }

  void close_chunk() {
    if (chunk_ == nullptr) return;
    chunk_->clear_masks = {};
    chunk_->all = {};
    for (size_t i = 0; i < chunk_->pages.size(); ++i) {
      if (!chunk_->pages[i]) continue;
      const Summary& summary = chunk_->summaries[i];
      chunk_->all.merge(summary);
      auto leaf = static_cast<LeafIndex>(chunk_index_ * kLeavesPerChunk + i);
      if (root_->fleet->shared_row(leaf) >= 0) continue;
      for (fleet::SeriesIndex series : root_->fleet->series()) {
        auto s = static_cast<size_t>(series);
        chunk_->clear_masks[s] |= uint64_t{1} << detail::clear_bit(summary.clear[s]);
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
Status enter(Page& page, int32_t slot, const std::shared_ptr<const Claim>& claim, GpuMask gpus,
             std::string_view host_id) {
  auto begin = std::ranges::lower_bound(page.busy, slot, {}, &Busy::slot);
  auto at = begin;
  for (auto busy = begin; busy != page.busy.end() && busy->slot == slot; ++busy) {
    bool apart = busy->end_ns <= claim->start_ns || busy->start_ns >= claim->end_ns;
    if (!apart && (busy->gpus & gpus) != 0) {
      return fail(Code::kAlreadyExists, fmt::format("host '{}': '{}' wants GPUs that '{}' has in that time",
                                                    host_id, claim->id, busy->claim->id));
    }
    if (std::pair(busy->start_ns, std::string_view(busy->claim->id)) <
        std::pair(claim->start_ns, std::string_view(claim->id))) {
      at = busy + 1;
    }
  }
  page.busy.insert(at, {claim->start_ns, claim->end_ns, gpus, slot, claim});
  return {};
}

/// The flaw of a slot, made when there is none; one that says nothing is dropped by `tidy`.
Flaw& flaw_at(Page& page, int32_t slot) {
  auto at = std::ranges::lower_bound(page.flaws, slot, {}, &Flaw::slot);
  if (at == page.flaws.end() || at->slot != slot) at = page.flaws.insert(at, Flaw{slot, false, {}});
  return *at;
}

void tidy(Page& page) {
  std::erase_if(page.flaws, [](const Flaw& flaw) { return !flaw.is_lemon && !flaw.out_of_use; });
}

}  // namespace

namespace detail {

HostView view_host(const Root& root, HostIndex host) {
  const fleet::Host& entry = root.fleet->host(host);
  const Page* page = find_page(root, entry.leaf);
  if (page == nullptr) return {};
  auto slot = host - root.fleet->leaf(entry.leaf).first_host;
  HostView view;
  view.exists = root.is_slice ? page->exists[static_cast<size_t>(slot)] : all_gpus(entry.gpus);
  auto flaw = std::ranges::lower_bound(page->flaws, slot, {}, &Flaw::slot);
  if (flaw != page->flaws.end() && flaw->slot == slot) view.flaw = &*flaw;
  auto busy = std::ranges::equal_range(page->busy, slot, {}, &Busy::slot);
  view.busy = {busy.begin(), busy.end()};
  return view;
}

}  // namespace detail

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
    Page& page = editor.page_of(host.host);
    page.exists[static_cast<size_t>(editor.slot_of(host.host))] =
        host.gpus & all_gpus(root.fleet->host(host.host).gpus);
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
    const std::string& id = fleet().host(part.host).id;
    Page& page = editor.page_of(part.host);
    int32_t slot = editor.slot_of(part.host);
    GpuMask exists =
        is_slice() ? page.exists[static_cast<size_t>(slot)] : all_gpus(fleet().host(part.host).gpus);
    if (part.gpus == 0 || (part.gpus & ~exists) != 0) {
      return refuse(fmt::format("host '{}' has no such GPUs here", id));
    }
    TH_RETURN_IF_ERROR(enter(page, slot, shared, part.gpus, id));
  }
  return Snapshot(editor.finish());
}

Snapshot Snapshot::without_claim(const Claim& claim) const {
  Editor editor(*root_);
  LeafIndex last = -1;
  for (const HostGpus& part : claim.hosts) {
    LeafIndex leaf = fleet().host(part.host).leaf;
    if (leaf == last || detail::find_page(*root_, leaf) == nullptr) continue;
    last = leaf;
    std::erase_if(editor.page_of(part.host).busy,
                  [&](const Busy& busy) { return busy.claim->id == claim.id; });
  }
  return Snapshot(editor.finish());
}

Snapshot Snapshot::with_out_of_use(HostIndex host, std::optional<std::string> reason) const {
  Editor editor(*root_);
  Page& page = editor.page_of(host);
  flaw_at(page, editor.slot_of(host)).out_of_use = std::move(reason);
  tidy(page);
  return Snapshot(editor.finish());
}

Snapshot Snapshot::with_lemon(HostIndex host, bool is_lemon) const {
  Editor editor(*root_);
  Page& page = editor.page_of(host);
  Flaw& flaw = flaw_at(page, editor.slot_of(host));
  editor.root().num_lemons += static_cast<int32_t>(is_lemon) - static_cast<int32_t>(flaw.is_lemon);
  flaw.is_lemon = is_lemon;
  tidy(page);
  return Snapshot(editor.finish());
}

Snapshot Snapshot::with_power_cap(fleet::SiteIndex site, int64_t watts, int64_t start_ns,
                                  int64_t end_ns) const {
  TH_CHECK(site >= 0 && static_cast<size_t>(site) < fleet().sites().size());
  auto root = std::make_shared<Root>(*root_);
  root->caps.push_back({site, watts, start_ns, end_ns});
  return Snapshot(std::shared_ptr<const Root>(std::move(root)));
}

HostUse Snapshot::host_use(HostIndex host, int64_t time_ns) const {
  HostView view = detail::view_host(*root_, host);
  HostUse use{std::nullopt, view.exists, 0, view.flaw != nullptr && view.flaw->is_lemon};
  if (view.flaw != nullptr) use.out_of_use = view.flaw->out_of_use;
  for (const Busy& busy : view.busy) {
    if (busy.start_ns <= time_ns && time_ns < busy.end_ns) use.busy |= busy.gpus;
  }
  return use;
}

int64_t Snapshot::rack_power_w(RackIndex rack, int64_t time_ns) const {
  const RackIndex racks[] = {rack};
  return detail::PowerProfile({*root_, -1}, racks).peak_w(time_ns, time_ns + 1);
}

int64_t Snapshot::row_power_w(fleet::RowIndex row, int64_t time_ns) const {
  return detail::PowerProfile({*root_, -1}, fleet().row(row).racks).peak_w(time_ns, time_ns + 1);
}

int64_t Snapshot::site_power_w(fleet::SiteIndex site, int64_t time_ns) const {
  return detail::site_profile({*root_, -1}, site).peak_w(time_ns, time_ns + 1);
}

std::vector<std::shared_ptr<const Claim>> Snapshot::claims_on(HostIndex host) const {
  std::vector<std::shared_ptr<const Claim>> claims;
  for (const Busy& busy : detail::view_host(*root_, host).busy) claims.push_back(busy.claim);
  return claims;
}

}  // namespace th::reserve
