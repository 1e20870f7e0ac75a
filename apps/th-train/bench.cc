#include "bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/env.h"
#include "base/json.h"
#include "base/units.h"
#include "collective/connect/connect.h"
#include "floor.h"
#include "model/presets.h"
#include "ranks.h"
#include "tensor/cpu/matmul.h"
#include "train/engine.h"
#include "train/init.h"
#include "train/memory.h"

namespace th {
namespace {

struct Options {
  std::string model = "gpt2-124m", dtype = "fp32", recompute = "none", offload, memory_limit;
  std::string offload_folder = ".", init;
  bool turns = false;
  double params = 0;
  int64_t batch = 4, seq = 64, steps = 8, micro_batches = 1;
  int ranks = 1, zero = 1;
  uint64_t seed = 1;
  bool json = false;
};

double ms(int64_t ns) { return static_cast<double>(ns) / kMillisecond; }

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/// Bytes that this process has had the disk read and write, as the kernel counts them.
double disk_bytes() {
  std::ifstream io("/proc/self/io");
  double sum = 0, value = 0;
  for (std::string name; io >> name >> value;) {
    if (name == "read_bytes:" || name == "write_bytes:") sum += value;
  }
  return sum;
}

/// A plain dd of 1 GiB into the folder, synced: bytes a second.
double dd_bytes_per_s(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "th-bench-dd";
  const int64_t begin_ns = Env::real().monotonic_ns();
  const std::string command =
      fmt::format("dd if=/dev/zero of='{}' bs=4M count=256 conv=fdatasync status=none", file.string());
  const int ended = std::system(command.c_str());
  const double seconds = ms(Env::real().monotonic_ns() - begin_ns) / 1e3;
  std::filesystem::remove(file);
  return ended == 0 ? static_cast<double>(int64_t{1} << 30) / seconds : 0;
}

class Bench {
 public:
  Bench(const Options& options, collective::Group& group) : options_(options), group_(group) {}

  Result<Json> run() {
    TH_RETURN_IF_ERROR(prepare());
    if (options_.turns) return take_turns();
    for (int64_t i = 1; i <= options_.steps + 1; ++i) {  // the first brings memory and code to life
      TH_RETURN_IF_ERROR(step(i));
      if (i == 1) TH_RETURN_IF_ERROR(after_first());
    }
    return report();
  }

 private:
  Status prepare() {
    if (options_.params > 0) {
      TH_TRY(config_, model::model_of_size(options_.params));
    } else {
      TH_TRY(config_, model::find_preset(options_.model));
    }
    train::EngineOptions engine;
    engine.batch = options_.batch, engine.time = options_.seq, engine.seed = options_.seed;
    TH_TRY(engine.dtype, train::parse_dtype(options_.dtype));
    engine.micro_batches = options_.micro_batches;
    engine.zero.stage = options_.zero;
    TH_TRY(engine.recompute, train::parse_recompute(options_.recompute));
    if (!options_.offload.empty()) engine.zero.offload = options_.offload_folder;
    if (!options_.memory_limit.empty()) {
      TH_TRY(engine.memory_limit_bytes, parse_bytes(options_.memory_limit));
    }
    is_bf16_ = engine.dtype == train::Dtype::kBf16;
    if (!options_.init.empty()) {
      TH_TRY(config_, train::read_model_config(options_.init));
    }
    TH_TRY(engine_, train::make_engine(group_, config_, engine));
    if (!options_.init.empty()) TH_RETURN_IF_ERROR(train::init_from_folder(*engine_, options_.init));
    const auto count = static_cast<size_t>(options_.batch * options_.seq * options_.micro_batches);
    Prng prng(options_.seed * 1000 + static_cast<uint64_t>(group_.rank()));
    for (size_t i = 0; i < count; ++i) {
      tokens_.push_back(static_cast<int32_t>(prng.below(static_cast<uint64_t>(config_.vocab_size))));
      targets_.push_back(static_cast<int32_t>(prng.below(static_cast<uint64_t>(config_.vocab_size))));
    }
    return {};
  }

  Status step(int64_t number) {
    const double disk = disk_bytes();
    const int64_t begin_ns = Env::real().monotonic_ns();
    TH_TRY(const train::StepStats stats, engine_->step({tokens_, targets_, 1e-4, number}));
    TH_RETURN_IF_ERROR(engine_->sync());
    const double took_ms = ms(Env::real().monotonic_ns() - begin_ns);
    losses_.push_back(stats.loss);
    grad_norms_.push_back(stats.grad_norm);
    last_ms_ = took_ms;
    if (number == 1) return {};
    step_ms_.push_back(took_ms);
    compute_ms_.push_back(ms(engine_->times().compute_ns));
    optimizer_ms_.push_back(ms(engine_->times().optimizer_ns));
    waited_ms_.push_back(ms(engine_->times().waited_ns));
    disk_rate_.push_back((disk_bytes() - disk) / took_ms * 1e3);
    if (group_.rank() == 0 && !options_.turns)
      fmt::print(stderr, "step {}/{}  loss {:.4f}  {:.0f} ms\n", number - 1, options_.steps, stats.loss,
                 took_ms);
    if (products_) {
      // Beside each step, since the machine is not always as fast.
      gemm_ms_.push_back(products_->run() * 1e3);
      triad_.push_back(tensor::triad_bytes_per_s());
      floor_ms_.push_back(gemm_ms_.back() + optimizer_floor_ms(triad_.back()));
      ratios_.push_back(floor_ms_.back() / took_ms);
    }
    return {};
  }

  /// Steps that another program asks for, a line of JSON each: tokens and targets of a batch. Answers with
  /// loss and time, so that both may take turns on the same numbers.
  Result<Json> take_turns() {
    int64_t number = 0;
    for (std::string line; std::getline(std::cin, line);) {
      TH_TRY(const Json batch, parse_json(line, "a turn"));
      tokens_ = batch.at("tokens").get<std::vector<int32_t>>();
      targets_ = batch.at("targets").get<std::vector<int32_t>>();
      TH_RETURN_IF_ERROR(step(++number));
      fmt::print("{}\n", dump_json({{"loss", losses_.back()},
                                    {"ms", last_ms_},
                                    {"peak_rss_bytes", train::peak_resident_bytes()}}));
      std::fflush(stdout);
    }
    return Json::object();
  }

  double optimizer_floor_ms(double bytes_per_s) const {
    return kOptimizerBytes * static_cast<double>(engine_->layout().size) / bytes_per_s * 1e3;
  }

  /// What the floor is measured with would count as the training's memory.
  Status after_first() {
    peak_rss_ = train::peak_resident_bytes();
    if (group_.world_size() > 1 || !options_.offload.empty() || options_.micro_batches > 1 ||
        options_.recompute == "full")
      return {};
    TH_TRY(auto products,
           tensor::PackedProducts::create(step_products(config_, options_.batch * options_.seq), is_bf16_));
    products_ = std::make_unique<tensor::PackedProducts>(std::move(products));
    products_->run();
    return {};
  }

  Result<Json> report() {
    if (!products_) peak_rss_ = std::max(peak_rss_, train::peak_resident_bytes());
    std::vector<float> peaks(static_cast<size_t>(group_.world_size()), 0.f);
    peaks[static_cast<size_t>(group_.rank())] = static_cast<float>(peak_rss_ >> 10);
    TH_RETURN_IF_ERROR(group_.all_reduce(std::span<float>(peaks)));
    const auto peak = static_cast<int64_t>(*std::ranges::max_element(peaks)) << 10;
    const double tokens =
        static_cast<double>(options_.batch * options_.seq * options_.micro_batches) * group_.world_size();
    const double step_ms = median(step_ms_);
    const auto or_null = [&](const std::vector<double>& values) {
      return values.empty() ? Json(nullptr) : Json(median(values));
    };
    Json out = {
        {"model", options_.params > 0 ? fmt::format("llama of {:g}", options_.params) : options_.model},
        {"dtype", options_.dtype},
        {"ranks", group_.world_size()},
        {"zero", options_.zero},
        {"parameters", engine_->layout().size},
        {"ms_per_step", step_ms},
        {"tokens_per_s", tokens / step_ms * 1e3},
        {"gemm_ms", or_null(gemm_ms_)},
        {"optimizer_floor_ms", triad_.empty() ? Json(nullptr) : Json(optimizer_floor_ms(median(triad_)))},
        {"floor_ms", or_null(floor_ms_)},
        {"floor_ratio", or_null(ratios_)},
        {"compute_ms", median(compute_ms_)},
        {"optimizer_ms", median(optimizer_ms_)},
        {"waited_ms", median(waited_ms_)},
        {"peak_rss_bytes", peak},
        {"peak_rss_bytes_per_rank", peak},
        {"model_state_bytes_per_rank", engine_->model_state_bytes()},
        {"activation_bytes_per_rank", engine_->activation_bytes()},
        {"losses", losses_},
        {"grad_norms", grad_norms_},
        {"bf16_instructions", tensor::has_bf16_products()}};
    if (!options_.offload.empty()) {
      out["offload_bytes_per_step"] = engine_->offload_bytes();
      out["disk_gb_per_s"] = median(disk_rate_) / 1e9;
      out["dd_gb_per_s"] = group_.rank() == 0 ? dd_bytes_per_s(options_.offload_folder) / 1e9 : 0;
    }
    return out;
  }

  const Options& options_;
  collective::Group& group_;
  model::ModelConfig config_;
  bool is_bf16_ = false;
  std::unique_ptr<train::Engine> engine_;
  std::unique_ptr<tensor::PackedProducts> products_;
  std::vector<int32_t> tokens_, targets_;
  std::vector<double> step_ms_, compute_ms_, optimizer_ms_, waited_ms_, gemm_ms_, triad_, floor_ms_, ratios_,
      disk_rate_;
  std::vector<float> losses_;
  std::vector<double> grad_norms_;
  int64_t peak_rss_ = 0;
  double last_ms_ = 0;
};

void tell(const Json& out) {
  const auto number = [&](const char* key) { return out[key].is_null() ? 0.0 : out[key].get<double>(); };
  fmt::print("{}: {} parameters, {}, {} ranks, ZeRO stage {}\n", out["model"].get<std::string>(),
             out["parameters"].get<int64_t>(), out["dtype"].get<std::string>(), out["ranks"].get<int>(),
             out["zero"].get<int>());
  fmt::print(
      "{:.0f} ms a step, {:.0f} tokens/s: {:.0f} ms forward and backward, {:.0f} optimizer, {:.0f} waited\n",
      number("ms_per_step"), number("tokens_per_s"), number("compute_ms"), number("optimizer_ms"),
      number("waited_ms"));
  if (!out["floor_ms"].is_null())
    fmt::print(
        "floor {:.0f} ms: matrix products alone {:.0f}, the optimizer's bytes {:.0f}; {:.3f} of it reached\n",
        number("floor_ms"), number("gemm_ms"), number("optimizer_floor_ms"), number("floor_ratio"));
  fmt::print("memory of a rank: {} at most, of which weights, gradients and moments {}\n",
             format_bytes(out["peak_rss_bytes_per_rank"].get<int64_t>()),
             format_bytes(out["model_state_bytes_per_rank"].get<int64_t>()));
}

Status run(const Options& options) {
  TH_TRY(const collective::Rendezvous rendezvous, collective::rendezvous_from_env());
  TH_TRY(collective::Group group, collective::connect(rendezvous, {}));
  TH_TRY(const Json out, Bench(options, group).run());
  if (group.rank() != 0 || options.turns) return {};
  tell(out);
  if (options.json) fmt::print("{}\n", dump_json(out));
  return {};
}

}  // namespace

int bench_command(int argc, char** argv) {
  CLI::App app(
      "Measures training steps of a model with random weights on random tokens, the same in each step, and "
      "beside them the least that they could cost: the step's matrix products alone (oneDNN, packed once, "
      "float32 where the processor has no bfloat16 instructions) and the optimizer's 28 bytes a parameter at "
      "the rate of a triad.",
      "th-train bench");
  Options o;
  app.add_option("--model", o.model, "gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m")->capture_default_str();
  app.add_option("--params", o.params, "instead: a Llama of about so many parameters, as in 1e9");
  app.add_option("--batch", o.batch, "sequences of a rank")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--seq", o.seq, "tokens of a sequence")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--micro-batches", o.micro_batches, "of a step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--dtype", o.dtype, "fp32 or bf16")->capture_default_str();
  app.add_option("--steps", o.steps, "that are measured")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--ranks", o.ranks, "started here; a launcher's are used where RANK is set")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--zero", o.zero, "stage")->check(CLI::Range(0, 3))->capture_default_str();
  app.add_option("--recompute", o.recompute, "activations: none, selective, full")
      ->check(CLI::IsMember({"none", "selective", "full"}))
      ->capture_default_str();
  app.add_option("--offload", o.offload, "file: what is cut over the ranks lies in files")
      ->check(CLI::IsMember({"file"}));
  app.add_option("--offload-folder", o.offload_folder, "where")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  app.add_option("--memory-limit", o.memory_limit, "of a rank, as in 3GiB; what does not fit is refused");
  app.add_option("--init", o.init, "weights and shape of a Hugging Face folder")
      ->check(CLI::ExistingDirectory);
  app.add_flag("--turns", o.turns, "a step for each line {\"tokens\":[…],\"targets\":[…]} on standard input")
      ->group("");
  app.add_option("--seed", o.seed)->capture_default_str();
  app.add_flag("--json", o.json, "one line of JSON last");
  app.footer("Example:\n  th-train bench --model gpt2-124m --dtype bf16 --steps 8 --json");
  CLI11_PARSE(app, argc, argv);
  const bool starts_ranks = o.ranks > 1 && std::getenv("RANK") == nullptr;
  const std::vector<std::string> arguments(argv, argv + argc);
  if (Status status = starts_ranks ? run_ranks(o.ranks, arguments) : run(o); !status) {
    fmt::print(stderr, "th-train: {}\n", status.error().message);
    return status.error().code == Code::kInvalidArgument ? 2 : 1;
  }
  return 0;
}

}  // namespace th
