#pragma once
// Inside of a Snapshot: root → chunks of 32 leaves → a page a leaf, all immutable and shared between
// snapshots.

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "reserve/snapshot.h"

namespace th::reserve::detail {

inline constexpr size_t kLeavesPerChunk = 32;
inline constexpr int64_t kAlwaysStart = std::numeric_limits<int64_t>::min();
inline constexpr int64_t kAlwaysEnd = std::numeric_limits<int64_t>::max();

/// GPUs of one host that a claim has. `slot`: the host, counted from the leaf's first.
struct Busy {
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  GpuMask gpus = 0;
  int32_t slot = 0;
  std::shared_ptr<const Claim> claim;
};

/// What keeps a host from use, or from being used first.
struct Flaw {
  int32_t slot = 0;
  bool is_lemon = false;
  std::optional<std::string> out_of_use;
};

struct Page {
  std::vector<Busy> busy;       // by slot, then start, then the claim's id
  std::vector<Flaw> flaws;      // by slot
  std::vector<GpuMask> exists;  // by slot, on a slice's snapshot; on a fleet's everything exists
};

/// What can be said of a leaf without its page.
struct Summary {
  int64_t latest_start_ns = kAlwaysStart;  // of its claims
  int64_t earliest_end_ns = kAlwaysEnd;
  std::array<int32_t, fleet::kNumSeries>
      clear{};  // hosts that could be taken for all time, rack power counted

  void merge(const Summary& other) {
    latest_start_ns = std::max(latest_start_ns, other.latest_start_ns);
    earliest_end_ns = std::min(earliest_end_ns, other.earliest_end_ns);
  }
  /// Every claim overlaps the window: what is free in it is free for all time.
  bool is_all_within(int64_t start_ns, int64_t end_ns) const {
    return latest_start_ns < end_ns && earliest_end_ns > start_ns;
  }
};

/// Bit k of a mask: some leaf has exactly k clear hosts (k = 63: that or more), by series. Leaves that share
/// a row's power with others are left out.
using ClearMasks = std::array<uint64_t, fleet::kNumSeries>;

struct Chunk {
  std::array<std::shared_ptr<const Page>, kLeavesPerChunk> pages;  // null: absent
  std::array<Summary, kLeavesPerChunk> summaries;
  Summary all;  // times of all its leaves; `clear` is not used
  ClearMasks clear_masks{};
};

struct PowerCap {
  fleet::SiteIndex site = 0;
  int64_t watts = 0;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
};

struct Root {
  std::shared_ptr<const Fleet> fleet;
  bool is_slice = false;
  int32_t num_lemons = 0;
  std::vector<std::shared_ptr<const Chunk>> chunks;  // null: absent, on a slice's snapshot
  Summary all;
  ClearMasks clear_masks{};
  std::vector<PowerCap> caps;
};

inline size_t clear_bit(int64_t hosts) { return hosts < 63 ? static_cast<size_t>(hosts) : 63; }

inline const Chunk* find_chunk(const Root& root, fleet::LeafIndex leaf) {
  return root.chunks[static_cast<size_t>(leaf) / kLeavesPerChunk].get();
}

/// Null when the leaf is absent.
inline const Page* find_page(const Root& root, fleet::LeafIndex leaf) {
  const Chunk* chunk = find_chunk(root, leaf);
  return chunk == nullptr ? nullptr : chunk->pages[static_cast<size_t>(leaf) % kLeavesPerChunk].get();
}

/// One host of a snapshot. Views into it: valid as long as the root.
struct HostView {
  GpuMask exists = 0;
  const Flaw* flaw = nullptr;  // null: none
  std::span<const Busy> busy;  // by start

  bool is_out_of_use() const { return flaw != nullptr && flaw->out_of_use.has_value(); }
};
/// Cost: O(log of the leaf's claims).
HostView view_host(const Root& root, HostIndex host);

}  // namespace th::reserve::detail
