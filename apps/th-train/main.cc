// th-train run RECIPE | check RECIPE | tokenize PATH | export MODEL | check-gradients | all-reduce |
// collectives

#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "all_reduce.h"
#include "base/log.h"
#include "bench.h"
#include "check_gradients.h"
#include "collective/connect/connect.h"
#include "collectives.h"
#include "export.h"
#include "tokenize.h"
#include "train/ds_config.h"
#include "train/trainer.h"

namespace th {
namespace {

constexpr int kFailed = 1;
constexpr int kBadInput = 2;

std::atomic<bool> told_to_stop{false};  // by SIGTERM: a preemption, a smaller slice, a cancelled job

int report(const Error& error) {
  fmt::print(stderr, "th-train: {}\n", error.message);
  return error.code == Code::kInvalidArgument || error.code == Code::kNotFound ? kBadInput : kFailed;
}

/// Taken by a thread of its own and blocked in those that compute: in them it now and then left a damaged
/// heap.
void watch_for_sigterm() {
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, nullptr);
  std::thread([term] {
    int signal = 0;
    if (sigwait(&term, &signal) == 0) told_to_stop = true;
  }).detach();
}

Status run(const std::string& file, const std::string& trace) {
  watch_for_sigterm();
  TH_TRY(train::Recipe recipe, train::load_recipe(file));
  if (!trace.empty()) recipe.trace = trace;
  TH_TRY(collective::Rendezvous rendezvous, collective::rendezvous_from_env());
  TH_TRY(collective::Group group, collective::connect(rendezvous, {}));
  const char* metrics = std::getenv("TH_METRICS");
  TH_TRY(auto result,
         train::train(
             recipe, group,
             {.job_folder = ".", .metrics_file = metrics == nullptr ? "" : metrics, .stop = &told_to_stop}));
  (void)result;
  return {};
}

Status check(const std::string& file) {
  TH_TRY(train::Recipe recipe, train::load_recipe(file));
  for (const std::string& note : recipe.notes) fmt::print("{}\n", note);
  if (recipe.ranks > 0) TH_RETURN_IF_ERROR(train::fit_batch(recipe, recipe.ranks));
  fmt::print("{}: good\n", file);
  return {};
}

int main(int argc, char** argv) {
  init_log("th-train");
  if (argc > 1 && std::string_view(argv[1]) == "check-gradients")
    return check_gradients_command(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "bench") return bench_command(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "all-reduce") return all_reduce_command(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "tokenize") return tokenize_command(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "collectives") return collectives_command(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "export") return export_command(argc - 1, argv + 1);
  CLI::App app(
      "Trains a model from a recipe, alone or as a rank of a gang (RANK, WORLD_SIZE, MASTER_ADDR, "
      "MASTER_PORT)");
  app.require_subcommand(1);
  std::string file, trace;
  CLI::App* run_command = app.add_subcommand("run", "train; the working folder is the job's folder");
  CLI::App* check_command = app.add_subcommand("check", "only say whether the recipe is good");
  for (CLI::App* command : {run_command, check_command})
    command->add_option("recipe", file, "recipe.yaml")->required();
  run_command->add_option("--trace", trace, "write where the time went to this file, for ui.perfetto.dev");
  app.add_subcommand("tokenize", "make a data set's folder of texts, once");
  app.add_subcommand("export", "write a model as a GGUF file, which llama.cpp loads");
  app.add_subcommand("check-gradients", "compare every backward pass with finite differences");
  app.add_subcommand("bench", "measure training steps beside the least that they could cost");
  app.add_subcommand("all-reduce", "measure how fast the ranks of a gang add numbers up");
  app.add_subcommand("collectives", "measure the collectives on this host, beside memcpy and Open MPI");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadInput;
  }
  if (*run_command) {
    if (Status status = run(file, trace); !status) return report(status.error());
    return 0;
  }
  if (Status status = check(file); !status) return report(status.error());
  return 0;
}

}  // namespace
}  // namespace th

int main(int argc, char** argv) { return th::main(argc, argv); }
