#include "all_reduce.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/json.h"
#include "collective/connect/connect.h"

namespace th {
namespace {

struct Measured {
  int rank = 0, ranks = 1;
  double seconds = 0;  // the fastest of the runs
};

Result<Measured> measure(size_t num_floats, int runs) {
  TH_TRY(const collective::Rendezvous rendezvous, collective::rendezvous_from_env());
  TH_TRY(collective::Group group, collective::connect(rendezvous, {}));
  Measured out{group.rank(), group.world_size(), 1e30};
  std::vector<float> data(num_floats);
  for (int run = 0; run < runs; ++run) {
    std::ranges::fill(data, static_cast<float>(group.rank() + 1));
    TH_RETURN_IF_ERROR(group.barrier());
    const auto start = std::chrono::steady_clock::now();
    TH_RETURN_IF_ERROR(group.all_reduce(data));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    out.seconds = std::min(out.seconds, took.count());
    const auto want = static_cast<float>(out.ranks * (out.ranks + 1) / 2);
    if (std::ranges::any_of(data, [want](float value) { return value != want; }))
      return fail(Code::kDataLoss,
                  fmt::format("rank {}: the sum over {} ranks is wrong", out.rank, out.ranks));
  }
  TH_RETURN_IF_ERROR(group.barrier());
  return out;
}

void tell(const Json& line) {
  if (const char* path = std::getenv("TH_METRICS"))
    std::ofstream(path, std::ios::app) << dump_json(line) << "\n";
}

}  // namespace

int all_reduce_command(int argc, char** argv) {
  CLI::App app(
      "Measures an all-reduce over the ranks of a gang (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).",
      "th-train all-reduce");
  int64_t mib = 16;
  int runs = 3;
  bool json = false;
  app.add_option("--mib", mib, "size of what is added up")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--runs", runs, "the fastest of so many counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--json", json, "print one line of JSON");
  app.footer("Example:\n  mpirun -n 2 th-train all-reduce --mib 64");
  CLI11_PARSE(app, argc, argv);

  const int64_t bytes = mib << 20;
  const auto measured = measure(static_cast<size_t>(bytes) / sizeof(float), runs);
  if (!measured) {
    fmt::print(stderr, "th-train: {}\n", measured.error().message);
    tell({{"event", "check"}, {"reason", measured.error().message}});
    return 1;
  }
  if (measured->rank != 0) return 0;
  // What one rank sends, and receives as much: 2(w-1)/w of the data.
  const double wire = 2.0 * (measured->ranks - 1) / measured->ranks * static_cast<double>(bytes);
  const auto bytes_per_s = static_cast<int64_t>(wire / measured->seconds);
  const Json line = {{"event", "all_reduce"},
                     {"ranks", measured->ranks},
                     {"bytes", bytes},
                     {"seconds", measured->seconds},
                     {"bytes_per_s", bytes_per_s}};
  tell(line);
  json ? fmt::print("{}\n", dump_json(line))
       : fmt::print("{} ranks, {} MiB: {:.4f} s, {:.1f} MB/s on each rank's wire\n", measured->ranks, mib,
                    measured->seconds, static_cast<double>(bytes_per_s) / 1e6);
  return 0;
}

}  // namespace th
