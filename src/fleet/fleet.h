#pragma once
// What exists: sites, rows, racks (each with a power budget), hosts, switches and links. An immutable value;
// outside of this process things are named by string ids, inside by dense indices (0 .. n-1).

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "fleet/parts.h"

namespace th::fleet {

/// Racks are numbered leaf by leaf (leaves by site, then by spine, then by first mention), hosts rack by
/// rack: the hosts of a rack, a leaf and a spine are contiguous, and near indices are near in the fabric.
/// Thread: immutable, share it as shared_ptr<const Fleet>.
class Fleet {
 public:
  /// The parts must be sound (parse_fleet and generate_fleet make sound ones); aborts when an index is out of
  /// range.
  explicit Fleet(FleetParts parts);

  const std::string& name() const { return parts_.name; }
  std::span<const Site> sites() const { return parts_.sites; }
  std::span<const Row> rows() const { return parts_.rows; }
  std::span<const Rack> racks() const { return parts_.racks; }
  std::span<const Host> hosts() const { return parts_.hosts; }
  std::span<const Switch> switches() const { return parts_.switches; }
  std::span<const Link> links() const { return parts_.links; }
  std::span<const Leaf> leaves() const { return leaves_; }
  std::span<const Spine> spines() const { return spines_; }

  const Host& host(HostIndex i) const { return parts_.hosts[static_cast<size_t>(i)]; }
  const Rack& rack(RackIndex i) const { return parts_.racks[static_cast<size_t>(i)]; }
  const Row& row(RowIndex i) const { return parts_.rows[static_cast<size_t>(i)]; }
  const Leaf& leaf(LeafIndex i) const { return leaves_[static_cast<size_t>(i)]; }
  const Series& series_of(HostIndex i) const {
    return series_catalogue()[static_cast<size_t>(host(i).series)];
  }

  /// Errors: kNotFound, with the nearest id. Cost: O(1).
  Result<HostIndex> find_host(std::string_view id) const;
  /// The row whose budget may run short and that the leaf shares with other leaves; -1: none.
  RowIndex shared_row(LeafIndex leaf) const { return shared_row_[static_cast<size_t>(leaf)]; }
  bool has_shared_rows() const { return has_shared_rows_; }
  /// The series that its hosts are of, ascending.
  std::span<const SeriesIndex> series() const { return series_; }
  /// GPUs of one series that exist, in use or not: in all, and in one site. Cost: O(sites), O(1).
  int64_t num_gpus(SeriesIndex series) const;
  int64_t num_gpus(SiteIndex site, SeriesIndex series) const;

 private:
  void fill_in();
  void fill_in_leaves();
  void fill_in_rows();

  FleetParts parts_;
  std::vector<Leaf> leaves_;
  std::vector<Spine> spines_;
  std::vector<RowIndex> shared_row_;
  bool has_shared_rows_ = false;
  std::vector<SeriesIndex> series_;
  std::vector<int64_t> num_gpus_;  // [site * series in the catalogue + series]
  std::unordered_map<std::string, HostIndex> host_by_id_;
};

/// Reads a fleet file (docs/fleet.md). `file` is its name in messages.
/// Errors: kInvalidArgument, "desk.yaml:12: sites[0].racks[1].id: ..." for anything that is not a sound
/// fleet.
Result<Fleet> parse_fleet(std::string_view text, std::string_view file);

/// Why the row cannot have a budget: "" when it nests with the leaves as Row says. `leaf_of` and `row_of` are
/// by rack, `spine_of` by leaf.
std::string row_nesting_problem(RowIndex row, std::span<const int32_t> leaf_of,
                                std::span<const int32_t> row_of, std::span<const int32_t> spine_of);

struct GenerateOptions {
  int32_t num_leaves = 1;
  int32_t racks_per_leaf = 1;
  int32_t hosts_per_rack = 1;
  std::string series = "LOCAL";
  int64_t rack_power_budget_w = 0;  // 0: enough for every host at once
};

/// One site, every leaf linked to one spine; ids l0, l0r0, l0r0h0. Errors: kInvalidArgument (a count < 1),
/// kNotFound (series).
Result<Fleet> generate_fleet(const GenerateOptions& options);

}  // namespace th::fleet
