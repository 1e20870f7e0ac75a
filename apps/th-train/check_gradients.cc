#include "check_gradients.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "model/grad_check.h"

namespace th {
namespace {

// JSON has no infinity, and a gradient that is not a number must not look like a good one.
Json json_number(double value) { return std::isfinite(value) ? Json(value) : Json("inf"); }

void print_json(const std::vector<model::GradientError>& errors, double worst) {
  Json operations = Json::array();
  for (const auto& error : errors) {
    operations.push_back(
        {{"name", error.operation}, {"worst_relative_error", json_number(error.worst_relative_error)}});
  }
  fmt::print("{}\n", dump_json({{"operations", operations}, {"worst", json_number(worst)}}));
}

void print_table(const std::vector<model::GradientError>& errors, double worst) {
  fmt::print("{:<20} {:>20}\n", "operation", "worst relative error");
  for (const auto& error : errors) {
    const bool good = error.worst_relative_error < model::kMaxGradientError;
    fmt::print("{:<20} {:>20.2e}{}\n", error.operation, error.worst_relative_error,
               good ? "" : "  too large");
  }
  fmt::print("{:<20} {:>20.2e}  (accepted below {:.0e})\n", "worst", worst, model::kMaxGradientError);
}

}  // namespace

int check_gradients_command(int argc, char** argv) {
  CLI::App app("Compares every backward pass with finite differences of its forward.",
               "th-train check-gradients");
  uint64_t seed = 1;
  bool json = false;
  app.add_option("--seed", seed, "Seed of the random inputs")->capture_default_str();
  app.add_flag("--json", json, "Print one line of JSON");
  CLI11_PARSE(app, argc, argv);

  const std::vector<model::GradientError> errors = model::check_gradients(seed);
  const double worst =
      std::ranges::max_element(errors, {}, &model::GradientError::worst_relative_error)->worst_relative_error;
  json ? print_json(errors, worst) : print_table(errors, worst);
  return worst < model::kMaxGradientError ? 0 : 1;
}

}  // namespace th
