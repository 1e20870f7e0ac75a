#include "fleet/fleet.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/files.h"

namespace th::fleet {
namespace {

std::string desk() {
  auto text = read_file(TH_SOURCE_DIR "/recipes/fleet/desk.yaml");
  EXPECT_TRUE(text.has_value());
  return text.value_or("");
}

/// The desk with its first `from` replaced by `to`.
std::string desk_with(const std::string& from, const std::string& to) {
  std::string text = desk();
  size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string error_of(const std::string& text) {
  auto fleet = parse_fleet(text, "f.yaml");
  EXPECT_FALSE(fleet.has_value());
  return fleet ? "" : fleet.error().message;
}

/// Where `word` first stands in the text, as "f.yaml:LINE:".
std::string line_of(const std::string& text, const std::string& word) {
  auto end = text.begin() + static_cast<std::ptrdiff_t>(text.find(word));
  return "f.yaml:" + std::to_string(1 + std::count(text.begin(), end, '\n')) + ":";
}

TEST(SeriesTest, IsFoundByName) {
  auto local = find_series("LOCAL");
  ASSERT_TRUE(local.has_value());
  const Series& series = series_catalogue()[static_cast<size_t>(*local)];
  EXPECT_EQ(series.gpus_per_host, 2);
  EXPECT_EQ(series.host_full_w(), 30 + 2 * 20);
  auto typo = find_series("LOCL");
  ASSERT_FALSE(typo.has_value());
  EXPECT_EQ(typo.error().code, Code::kNotFound);
  EXPECT_EQ(typo.error().message, "series 'LOCL' is not in the catalogue, did you mean 'LOCAL'?");
}

TEST(FleetTest, DeskIsWhatItsFileSays) {
  auto fleet = parse_fleet(desk(), "desk.yaml");
  ASSERT_TRUE(fleet.has_value()) << fleet.error().message;
  EXPECT_EQ(fleet->name(), "desk");
  ASSERT_EQ(fleet->racks().size(), 2u);
  ASSERT_EQ(fleet->hosts().size(), 4u);
  EXPECT_EQ(fleet->rack(1).id, "r2");
  EXPECT_EQ(fleet->rack(1).power_budget_w, 150);
  EXPECT_EQ(fleet->rack(1).full_w, 140);
  EXPECT_EQ(fleet->rack(1).first_host, 2);
  EXPECT_EQ(fleet->host(3).id, "r2h2");
  EXPECT_EQ(fleet->host(3).gpus, 2);
  EXPECT_EQ(fleet->host(3).leaf, 1);
  EXPECT_EQ(fleet->num_gpus(*find_series("LOCAL")), 8);
  ASSERT_EQ(fleet->links().size(), 2u);
  EXPECT_EQ(fleet->links()[0].bytes_per_s, 50'000'000'000);  // 400 Gb/s
  EXPECT_EQ(fleet->find_host("r2h1").value(), 2);
  EXPECT_EQ(fleet->find_host("r2h9").error().message,
            "host 'r2h9' is not in fleet 'desk', did you mean 'r2h1'?");
}

TEST(FleetTest, NumbersHostsLeafByLeaf) {
  std::string text = desk_with("leaf: leaf2", "leaf: leaf1");
  text.insert(text.find("switches:"),
              "      - {id: r3, power_budget_w: 99, leaf: leaf2, hosts: [{id: r3h1, series: LOCAL}]}\n"
              "      - {id: r4, power_budget_w: 99, cooling_w: 80, leaf: leaf1, hosts: [{id: r4h1, series: "
              "LOCAL}]}\n");
  auto fleet = parse_fleet(text, "f.yaml");
  ASSERT_TRUE(fleet.has_value()) << fleet.error().message;
  ASSERT_EQ(fleet->leaves().size(), 2u);
  EXPECT_EQ(fleet->leaf(0).num_racks, 3);
  EXPECT_EQ(fleet->leaf(0).num_hosts, 5);
  EXPECT_EQ(fleet->host(4).id, "r4h1");
  EXPECT_EQ(fleet->rack(2).power_budget_w, 80);  // what cooling takes away
  EXPECT_EQ(fleet->host(5).id, "r3h1");
  EXPECT_EQ(fleet->leaf(1).first_host, 5);
}

TEST(FleetTest, RowsHoldRacks) {
  auto fleet = parse_fleet(
      "name: f\n"
      "sites: [{id: s, rows: [{id: row1, racks: [{id: r, power_budget_w: 70, leaf: l, hosts: [{id: h, "
      "series: "
      "LOCAL}]}]}]}]\n"
      "switches: [{id: l, tier: leaf}]\n",
      "f.yaml");
  ASSERT_TRUE(fleet.has_value()) << fleet.error().message;
  ASSERT_EQ(fleet->rows().size(), 1u);
  EXPECT_EQ(fleet->row(fleet->rack(0).row).id, "row1");
  EXPECT_EQ(fleet->row(0).full_w, 70);
  EXPECT_FALSE(fleet->row(0).can_run_short());  // it has no budget
}

TEST(FleetTest, RefusalsNameLineAndKey) {
  struct Case {
    std::string from, to, says;
  };
  const std::vector<Case> cases = {
      {"id: r2h1", "id:  r1h1", "sites[0].racks[1].hosts[0].id: 'r1h1' is taken by another host"},
      {"power_budget_w: 150", "power_budget_w: -5", "sites[0].racks[0].power_budget_w: want an integer >= 1"},
      {"power_budget_w: 150", "power_budget_w: 0", "sites[0].racks[0].power_budget_w: want an integer >= 1"},
      {"to: spine1", "to: spine2", "links[0].to: there is no switch 'spine2', did you mean 'spine1'?"},
      {"leaf: leaf1\n", "leaf: spine1\n", "sites[0].racks[0].leaf: hosts hang on a switch of tier leaf"},
      {"series: LOCAL", "series: LOCAAL", "'LOCAAL' is not in the catalogue, did you mean 'LOCAL'?"},
      {"power_budget_w:", "power_budget:", "unknown key, did you mean 'power_budget_w'?"},
      {"tier: spine", "tier: top", "switches[2].tier: want leaf, spine or core, got 'top'"},
      {"from: leaf2", "from: spine1", "links[1].to: a switch is not linked to itself"},
      {"gbit_per_s: 400", "gbit_per_s: fast", "links[0].gbit_per_s: want an integer"},
      {"tier: leaf}", "tier: leaf, spine: leaf2}", "switches[0].spine: want a switch of tier spine"},
      {"tier: spine}", "tier: spine, spine: leaf1}", "switches[2].spine: only a switch of tier leaf"},
      {"tier: leaf}", "tier: leaf, count: 0}", "switches[0].count: want an integer >= 1"},
      {"    racks:\n", "    power_budget_w: 0\n    racks:\n",
       "sites[0].power_budget_w: want an integer >= 1"},
      {"id: r1\n", "id: r/1\n", "sites[0].racks[0].id: "},
  };
  for (const Case& c : cases) {
    std::string text = desk_with(c.from, c.to);
    std::string message = error_of(text);
    EXPECT_NE(message.find(c.says), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with(line_of(text, c.to))) << message << " want " << line_of(text, c.to);
  }
}

TEST(FleetTest, EmptyAndUnreachableAreRefused) {
  std::string text = desk_with("  - {from: leaf2, to: spine1, gbit_per_s: 400}\n", "");
  EXPECT_NE(error_of(text).find(
                "the hosts of rack 'r2' cannot be reached: no links lead from switch 'leaf2' to 'leaf1'"),
            std::string::npos);
  EXPECT_NE(error_of("name: f\nsites: []\n").find("f.yaml:2: sites: a fleet has at least one site"),
            std::string::npos);
  EXPECT_NE(error_of("name: f\nsites: [{id: s}]\n").find("a site has at least one rack"), std::string::npos);
  text = desk_with("          - {id: r1h1, series: LOCAL}\n          - {id: r1h2, series: LOCAL}\n", "");
  EXPECT_NE(error_of(text).find("a rack has at least one host"), std::string::npos) << error_of(text);
  EXPECT_FALSE(parse_fleet("", "f.yaml").has_value());
}

TEST(FleetTest, LeafOfTwoSitesIsRefused) {
  std::string text =
      "name: f\nsites:\n  - {id: a, racks: [{id: r1, power_budget_w: 70, leaf: l, hosts: [{id: h1, series: "
      "LOCAL}]}]}\n  - {id: b, racks: [{id: r2, power_budget_w: 70, leaf: l, hosts: [{id: h2, series: "
      "LOCAL}]}]}\nswitches: [{id: l, tier: leaf}]\n";
  EXPECT_EQ(error_of(text), "f.yaml:4: sites[1].racks[0].leaf: this leaf has racks of another site");
}

// Two spines: their leaves are numbered together, whatever the order of the racks.
const char* kTwoSpines = R"(name: f
sites:
  - id: s
    power_budget_w: 100
    rows:
      - id: row1
        power_budget_w: 140
        racks:
          - {id: r1, power_budget_w: 70, leaf: l1, hosts: [{id: h1, series: LOCAL}]}
          - {id: r3, power_budget_w: 70, leaf: l3, hosts: [{id: h3, series: LOCAL}]}
      - id: row2
        racks: [{id: r2, power_budget_w: 70, leaf: l2, hosts: [{id: h2, series: LOCAL}]}]
switches:
  - {id: l1, tier: leaf, spine: p1, count: 8}
  - {id: l2, tier: leaf, spine: p2}
  - {id: l3, tier: leaf, spine: p1}
  - {id: p1, tier: spine}
  - {id: p2, tier: spine}
links:
  - {from: l1, to: p1, gbit_per_s: 400}
  - {from: p2, to: l2, gbit_per_s: 400}
  - {from: l3, to: p1, gbit_per_s: 400}
  - {from: p1, to: p2, gbit_per_s: 400}
)";

std::string two_spines_with(const std::string& from, const std::string& to) {
  std::string text = kTwoSpines;
  return text.replace(text.find(from), from.size(), to);
}

TEST(FleetTest, SpinesRowsAndSitesHaveBudgets) {
  auto fleet = parse_fleet(kTwoSpines, "f.yaml");
  ASSERT_TRUE(fleet.has_value()) << fleet.error().message;
  ASSERT_EQ(fleet->spines().size(), 2u);
  EXPECT_EQ(fleet->spines()[0].num_leaves, 2);
  EXPECT_EQ(fleet->host(1).id, "h3");  // l1 and l3 hang on p1
  EXPECT_EQ(fleet->leaf(2).spine, 1);
  EXPECT_EQ(fleet->sites()[0].power_budget_w, 100);
  EXPECT_EQ(fleet->sites()[0].full_w, 210);
  EXPECT_EQ(fleet->shared_row(0), -1);  // 140 W are enough for both
  EXPECT_EQ(fleet->switches()[0].count, 8);
  fleet = parse_fleet(two_spines_with("power_budget_w: 140", "power_budget_w: 139"), "f.yaml");
  ASSERT_TRUE(fleet.has_value());
  EXPECT_EQ(fleet->shared_row(0), 0);
  EXPECT_EQ(fleet->shared_row(1), 0);
  EXPECT_EQ(fleet->shared_row(2), -1);
}

TEST(FleetTest, RowsWithBudgetsNestAndSpinesAreLinked) {
  EXPECT_EQ(error_of(two_spines_with("leaf: l3", "leaf: l2")),
            "f.yaml:7: sites[0].rows[0].power_budget_w: the racks of this row hang on leaves of more than "
            "one spine; "
            "a row with a budget lies below one leaf, or holds whole leaves of one spine");
  EXPECT_NE(error_of(two_spines_with("leaf: l2", "leaf: l3"))
                .find("this row has racks of several leaves, and one of those has racks elsewhere"),
            std::string::npos);
  EXPECT_EQ(error_of(two_spines_with("from: l3", "from: l1")),
            "f.yaml:16: switches[2].spine: no link leads to 'p1': add one under links");
}

TEST(GenerateTest, MakesWhatWasAskedFor) {
  auto fleet =
      generate_fleet({.num_leaves = 3, .racks_per_leaf = 2, .hosts_per_rack = 4, .series = "ND_A100_v4"});
  ASSERT_TRUE(fleet.has_value());
  EXPECT_EQ(fleet->hosts().size(), 24u);
  EXPECT_EQ(fleet->leaves().size(), 3u);
  EXPECT_EQ(fleet->host(8).id, "l1r0h0");
  EXPECT_EQ(fleet->host(8).leaf, 1);
  EXPECT_EQ(fleet->rack(0).power_budget_w, 4 * (3300 + 8 * 400));
  EXPECT_FALSE(generate_fleet({.num_leaves = 0}).has_value());
}

}  // namespace
}  // namespace th::fleet
