#include "fleet/series.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/text.h"

namespace th::fleet {
namespace {

// LOCAL's numbers are nominal: they make quotes, budgets and rack power real on one machine.
constexpr std::array<Series, 2> kCatalogue = {{
    {"LOCAL", "a share of this machine's CPU", 2, 100'000, 20, 30, "nominal, for one machine"},
    {"ND_A100_v4", "NVIDIA A100 SXM4 40 GB", 8, 3'399'625, 400, 3300,
     "ND96asr_v4 list price, pay as you go, East US: $27.197/h; A100 datasheet: 400 W; DGX A100 datasheet: "
     "6.5 kW "
     "at most, less its 8 GPUs"},
}};

}  // namespace

std::span<const Series> series_catalogue() { return kCatalogue; }

Result<SeriesIndex> find_series(std::string_view name) {
  std::vector<std::string> names;
  for (size_t i = 0; i < kCatalogue.size(); ++i) {
    if (name == kCatalogue[i].name) return static_cast<SeriesIndex>(i);
    names.emplace_back(kCatalogue[i].name);
  }
  std::string hint = did_you_mean(name, names);
  if (hint.empty()) hint = "; known: " + join(names, ", ");
  return fail(Code::kNotFound, fmt::format("series '{}' is not in the catalogue{}", name, hint));
}

}  // namespace th::fleet
