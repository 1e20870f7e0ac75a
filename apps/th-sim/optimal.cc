// th-sim optimal: the engine's places beside the best ones, found by trying every set of hosts.

#include "sim/placement/optimal.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "command.h"

namespace th {
namespace {

class Optimal : public Command {
 public:
  const char* name() const override { return "optimal"; }
  const char* help() const override { return "Compare placement with every set of hosts, on small cases"; }
  const char* example() const override { return "th-sim optimal --cases 500 --json"; }
  void add_flags(Flags& flags) override { flags.add("--cases", cases_, "random cases"); }

  Result<Json> run(const Common& common, bool& failed) override {
    if (cases_ < 1 || cases_ > 1'000'000) return fail(Code::kInvalidArgument, "--cases: want 1 to 1000000");
    sim::OptimalResult result = sim::run_optimal(cases_, static_cast<uint64_t>(common.seed));
    failed = result.missed + result.unsound > 0;
    return Json{{"cases", result.cases},
                {"placed", result.placed},
                {"mean_gap_pct", result.mean_gap_pct},
                {"max_gap_pct", result.max_gap_pct},
                {"missed", result.missed},
                {"unsound", result.unsound},
                {"exact", result.exact},
                {"worst", result.worst},
                {"log_hash", fmt::format("{:016x}", result.log_hash)}};
  }

 private:
  int64_t cases_ = 500;
};

}  // namespace

std::unique_ptr<Command> make_optimal_command() { return std::make_unique<Optimal>(); }

}  // namespace th
