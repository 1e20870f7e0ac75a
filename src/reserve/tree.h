#pragma once
// Inside of a Snapshot: root → chunks of 32 leaves → leaves → hosts, all immutable and shared between
// snapshots.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "reserve/snapshot.h"

namespace th::reserve::detail {

inline constexpr size_t kLeavesPerChunk = 32;

struct Busy {
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  GpuMask gpus = 0;
  std::shared_ptr<const Claim> claim;
};

struct HostState {
  GpuMask exists = 0;
  std::optional<std::string> out_of_use;
  std::vector<Busy> busy;  // by start, then by the claim's id
};

/// A null host is idle and in use for claims on a fleet's snapshot, and absent on a slice's.
struct Page {
  std::vector<std::shared_ptr<const HostState>> hosts;  // from the leaf's first_host on
  size_t num_claims = 0;                                // entries in the hosts' busy lists
  std::vector<int64_t> clear_hosts;  // by series: hosts that could be taken for all time, power counted
};

/// Bit k of a mask: some leaf has exactly k clear hosts (k = 63: that or more), by series.
struct Chunk {
  std::vector<std::shared_ptr<const Page>> pages;  // null: absent, on a slice's snapshot
  std::vector<uint64_t> clear_masks;
};

struct Root {
  std::shared_ptr<const Fleet> fleet;
  bool is_slice = false;
  std::vector<std::shared_ptr<const Chunk>> chunks;  // null: absent, on a slice's snapshot
  std::vector<uint64_t> clear_masks;
};

inline size_t clear_bit(int64_t hosts) { return hosts < 63 ? static_cast<size_t>(hosts) : 63; }

inline GpuMask all_gpus(int32_t count) { return count >= 32 ? ~GpuMask{0} : (GpuMask{1} << count) - 1; }

/// Null when the leaf is absent.
inline const Page* find_page(const Root& root, fleet::LeafIndex leaf) {
  const Chunk* chunk = root.chunks[static_cast<size_t>(leaf) / kLeavesPerChunk].get();
  return chunk == nullptr ? nullptr : chunk->pages[static_cast<size_t>(leaf) % kLeavesPerChunk].get();
}

/// Null when the host is idle (fleet) or absent (slice).
inline const HostState* find_state(const Root& root, HostIndex host) {
  fleet::LeafIndex leaf = root.fleet->host(host).leaf;
  const Page* page = find_page(root, leaf);
  return page == nullptr ? nullptr
                         : page->hosts[static_cast<size_t>(host - root.fleet->leaf(leaf).first_host)].get();
}

}  // namespace th::reserve::detail
