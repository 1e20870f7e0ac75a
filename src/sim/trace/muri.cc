#include "sim/trace/muri.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace th::sim {
namespace {

constexpr double kMaxMs = 1e13;  // 317 years
constexpr double kIterationOverhead = 1.015;
constexpr double kDefaultStart = 10;

struct StartCost {
  std::string_view model;
  std::array<double, 6> seconds;  // on 1, 2, 4, 8, 16, 32 GPUs
};

// Start overheads in seconds as Muri profiled them: simulator/run_sim.py of its repository.
constexpr std::array<StartCost, 8> kStartCosts = {{
    {"vgg16", {7, 7, 8, 9, 9, 10}},
    {"vgg19", {7, 7, 8, 9, 10, 10}},
    {"resnet18", {4, 5, 5, 7, 7, 7}},
    {"shufflenet_v2_x1_0", {4, 4, 5, 5, 7, 8}},
    {"bert", {10, 10, 10, 10, 10, 10}},
    {"gpt2", {10, 10, 10, 10, 10, 10}},
    {"a2c", {38, 39, 39, 46, 46, 46}},
    {"dqn", {5, 5, 6, 6, 8, 8}},
}};

double start_cost(std::string_view model, int64_t gpus) {
  for (const StartCost& cost : kStartCosts) {
    if (cost.model != model) continue;
    for (size_t i = 0; i < cost.seconds.size(); ++i)
      if (gpus == int64_t{1} << i) return cost.seconds[i];
  }
  return kDefaultStart;
}

}  // namespace

Result<std::vector<MuriJob>> read_muri(std::string_view text, const QueueTraceOptions& options,
                                       Skipped& skipped) {
  static constexpr std::array<std::string_view, 6> kColumns = {"job_id",     "num_gpu",        "submit_time",
                                                               "iterations", "iteration_time", "model_name"};
  std::vector<MuriJob> jobs;
  TH_RETURN_IF_ERROR(read_csv(text, options.csv, kColumns, skipped, [&](const Row& row) -> Status {
    TH_TRY(int64_t gpus, row.integer(1, 1, INT32_MAX));
    TH_RETURN_IF_ERROR(check_gpus("num_gpu", gpus, options.most_gpus));
    TH_TRY(double submit_ms, row.real(2, 0, kMaxMs));
    TH_TRY(double iterations, row.real(3, 1, 1e12));
    TH_TRY(double iteration_ms, row.real(4, 1e-6, 1e9));
    if (iterations * iteration_ms > kMaxMs) {
      return fail(Code::kInvalidArgument,
                  fmt::format("iterations: {} of {} ms are more than 300 years", row.text(3), row.text(4)));
    }
    jobs.push_back({.id = std::string(row.text(0)),
                    .gpus = static_cast<int32_t>(gpus),
                    .submit_s = submit_ms / 1000,
                    .iterations = iterations,
                    .iteration_s = iteration_ms * kIterationOverhead / 1000,
                    .start_s = start_cost(row.text(5), gpus)});
    return {};
  }));
  std::ranges::stable_sort(jobs, {}, &MuriJob::submit_s);
  return jobs;
}

}  // namespace th::sim
