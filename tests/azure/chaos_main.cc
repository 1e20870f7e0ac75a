// Rehearses the azure provider against the emulator. Usage: azure-chaos [--runs N] [--seed N] [--break
// token|reconcile|account|evictions]. The last line is one JSON object; exit status 1 when a count that has
// to be zero is not.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "chaos.h"

int main(int argc, char** argv) {
  using namespace th;
  using namespace th::azure_emulator;
  int64_t runs = 10'000;
  uint64_t seed = 1;
  std::string plant;
  CLI::App app("The azure provider among faults, crashes and restarts, against an emulator of Azure");
  app.add_option("--runs", runs, "rehearsals")->check(CLI::Range(1, 10'000'000))->capture_default_str();
  app.add_option("--seed", seed, "of the first; run i has seed + i")->capture_default_str();
  app.add_option("--break", plant, "plant a fault in the caller")
      ->check(CLI::IsMember({"token", "reconcile", "account", "evictions"}));
  CLI11_PARSE(app, argc, argv);

  setenv("TH_LOG", "error", 0);
  init_log("azure-chaos");
  const Plants plants{plant == "token", plant == "reconcile", plant == "account", plant == "evictions"};
  Outcome all;
  int told = 0;
  std::mutex mutex;  // of both
  std::atomic<int64_t> next = 0;
  auto work = [&] {
    for (int64_t i; (i = next++) < runs;) {
      const uint64_t one_seed = seed + static_cast<uint64_t>(i);
      const Outcome one = rehearse(one_seed, plants);
      std::scoped_lock lock(mutex);
      all.add(one);
      if (!one.clean() && ++told <= 5) fmt::print(stderr, "not clean: --runs 1 --seed {}\n", one_seed);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i)
      threads.emplace_back(work);
  }
  const Json line = {{"runs", runs},
                     {"leaked", all.leaked},
                     {"double_created", all.double_created},
                     {"leases_without_vm", all.leases_without_vm},
                     {"billed_difference_s", (all.billed_difference_ns + kSecond - 1) / kSecond},
                     {"refused_by_schema", all.refused_by_schema},
                     {"unfinished", all.unfinished},
                     {"emulated", true},
                     {"seed", seed},
                     {"requests", all.requests},
                     {"faults", all.faults},
                     {"crashes", all.crashes},
                     {"leases", all.leases},
                     {"billed_vm_hours", all.vm_ns / kHour},
                     {"broken", plant.empty() ? Json(nullptr) : Json(plant)}};
  std::printf("%s\n", line.dump().c_str());
  return all.clean() ? 0 : 1;
}
