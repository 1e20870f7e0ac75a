#include "train/lora.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "tensor/cpu/matmul.h"
#include "tensor/cpu/optimizer.h"

namespace th::train {
namespace {

/// An adapted matrix: its place in the model's flat buffer, and A's and B's in that of the adapters.
struct Adapter {
  int64_t weight, out, in;
  int64_t a, b;
};

/// "transformer.h.0.attn.c_attn.weight" → "c_attn".
std::string_view short_name(std::string_view name) {
  name.remove_suffix(std::string_view(".weight").size());
  return name.substr(name.rfind('.') + 1);
}

Result<std::vector<const model::Parameter*>> find_targets(const model::ParameterLayout& layout,
                                                          const std::vector<std::string>& names) {
  std::vector<const model::Parameter*> targets;
  std::vector<std::string> known;
  for (const model::Parameter& p : layout.parameters) {
    if (p.offset < layout.units[1].offset || p.shape.size() < 2) continue;
    const std::string name(short_name(p.name));
    if (std::ranges::find(known, name) == known.end()) known.push_back(name);
    if (names.empty() || std::ranges::find(names, name) != names.end()) targets.push_back(&p);
  }
  for (const std::string& name : names) {
    if (std::ranges::find(known, name) == known.end())
      return fail(
          Code::kInvalidArgument,
          fmt::format("lora.targets: the layers have no matrix '{}'; they have {}", name, join(known, ", ")));
  }
  return targets;
}

/// A and B of each target, one after another.
model::ParameterLayout lay_out(const std::vector<const model::Parameter*>& targets, int64_t rank) {
  std::vector<model::Parameter> matrices;
  for (const model::Parameter* p : targets) {
    const std::string base = "base_model.model." + p->name.substr(0, p->name.rfind('.'));
    matrices.push_back({base + ".lora_A.weight", {rank, p->shape[1]}, 0, 0});
    matrices.push_back({base + ".lora_B.weight", {p->shape[0], rank}, 0, 0});
  }
  return model::ParameterLayout(std::move(matrices));
}

template <class T>
class LoraEngine final : public Engine, private model::Parameters<T> {
 public:
  LoraEngine(collective::Group& group, model::Decoder<T> model, const EngineOptions& options,
             const std::vector<const model::Parameter*>& targets)
      : group_(group),
        model_(std::move(model)),
        options_(options),
        state_layout_(lay_out(targets, options.lora.rank)),
        scale_(static_cast<float>(options.lora.alpha / static_cast<double>(options.lora.rank))) {
    for (size_t i = 0; i < targets.size(); ++i) {
      const model::Parameter& p = *targets[i];
      adapters_.push_back({p.offset, p.shape[0], p.shape[1], state_layout_.parameters[2 * i].offset,
                           state_layout_.parameters[2 * i + 1].offset});
      largest_ = std::max(largest_, p.size);
    }
  }

  Status allocate() {
    const auto all = static_cast<size_t>(layout().size), own = static_cast<size_t>(state_layout_.size);
    int64_t layer = 0;
    for (size_t i = 1; i < layout().units.size(); ++i) layer = std::max(layer, layout().units[i].size);
    const auto unit_bytes = static_cast<size_t>(layer) * sizeof(T);
    TH_TRY(base_, Memory::allocate(all * sizeof(T)));
    TH_TRY(unit_weights_, Memory::allocate(unit_bytes));
    TH_TRY(unit_gradients_, Memory::allocate(unit_bytes));
    for (Memory* memory : {&weights_, &gradients_, &m_, &v_}) {
      TH_TRY(*memory, Memory::allocate(own * sizeof(float)));
    }
    wide_.resize(static_cast<size_t>(largest_));
    Prng prng(options_.seed);
    for (const Adapter& adapter : adapters_) {
      const double deviation = 1 / std::sqrt(static_cast<double>(adapter.in));
      for (float& value : adapters(weights_, adapter.a, options_.lora.rank * adapter.in))
        value = static_cast<float>(prng.normal() * deviation);
    }
    return load_weights([this](int64_t begin, std::span<float> values) -> Status {
      model::init_parameters(values, begin, layout(), options_.seed);
      return {};
    });
  }

  const model::ModelConfig& config() const override { return model_.config(); }
  const model::ParameterLayout& layout() const override { return model_.layout(); }
  const model::ParameterLayout& state_layout() const override { return state_layout_; }

  Status load_weights(const model::ReadWeights& read) override {
    std::vector<float> values;
    for (const model::Unit& unit : layout().units) {
      values.resize(static_cast<size_t>(unit.size));
      TH_RETURN_IF_ERROR(read(unit.offset, values));
      tensor::convert(base_.as<T>().subspan(static_cast<size_t>(unit.offset), values.size()),
                      std::span<const float>(values));
    }
    return {};
  }

  Result<StepStats> step(const Step& step) override {
    const int64_t begin_ns = Env::real().monotonic_ns();
    const auto count = static_cast<size_t>(options_.batch * options_.time);
    const auto micro = options_.micro_batches;
    std::ranges::fill(gradients_.as<float>(), 0.f);
    float loss = 0;
    for (int64_t i = 0; i < micro; ++i) {
      const size_t at = static_cast<size_t>(i) * count;
      TH_TRY(const float part,
             model_.loss_and_gradients(*this,
                                       {step.tokens.subspan(at, count), step.targets.subspan(at, count),
                                        options_.batch, options_.time},
                                       1.0f / static_cast<float>(group_.world_size() * micro)));
      loss += part / static_cast<float>(micro);
    }
    const int64_t computed_ns = Env::real().monotonic_ns();
    const auto busy_s =
        static_cast<float>(step.data_ns + computed_ns - begin_ns) / static_cast<float>(kSecond);
    TH_TRY(const StepStats stats, update(loss, step, busy_s));
    const int64_t ended_ns = Env::real().monotonic_ns();
    times_ = {computed_ns - begin_ns, ended_ns - computed_ns - waited_ns_, waited_ns_, waited_ns_};
    return stats;
  }

  Result<float> loss(std::span<const int32_t> tokens, std::span<const int32_t> targets, int64_t batch,
                     int64_t time) override {
    return model_.loss(*this, {tokens, targets, batch, time});
  }

  Status sync() override { return {}; }
  std::vector<StatePart> state() override {
    return {{0, weights_.as<float>(), m_.as<float>(), v_.as<float>()}};
  }
  std::vector<StatePart> share() override {
    const Owned own = owned_parts(state_layout_, group_.rank(), group_.world_size())[0];
    const auto cut = [&](const Memory& all) {
      return all.as<float>().subspan(static_cast<size_t>(own.begin), own.size());
    };
    return {{own.begin, cut(weights_), cut(m_), cut(v_)}};
  }
  void drop(std::span<const float>) const override {}
  Status reload() override { return {}; }
  void on_update(std::function<void(int)> before) override { before_update_ = std::move(before); }

  Result<std::vector<float>> gather_weights() override {
    std::vector<float> all(static_cast<size_t>(layout().size));
    tensor::convert(std::span(all), std::span<const T>(base_.as<T>()));
    for (const Adapter& adapter : adapters_) {
      make_delta(adapter);
      const auto count = static_cast<size_t>(adapter.out * adapter.in);
      tensor::add(std::span(all).subspan(static_cast<size_t>(adapter.weight), count),
                  std::span<const float>(wide_).first(count));
    }
    return all;
  }

  const StepTimes& times() const override { return times_; }
  int64_t model_state_bytes() const override {
    return static_cast<int64_t>(base_.bytes() + weights_.bytes() + gradients_.bytes() + m_.bytes() +
                                v_.bytes());
  }
  int64_t activation_bytes() const override { return model_.activation_bytes(); }
  int64_t offload_bytes() const override { return 0; }

 private:
  using Gradients = typename model::Parameters<T>::Gradients;

  const model::Unit& unit(int index) const { return layout().units[static_cast<size_t>(index)]; }
  static std::span<float> adapters(const Memory& memory, int64_t offset, int64_t size) {
    return memory.as<float>().subspan(static_cast<size_t>(offset), static_cast<size_t>(size));
  }

  /// alpha/rank · B (out,rank) · A (rank,in), into wide_.
  void make_delta(const Adapter& adapter) {
    tensor::gemm({.m = adapter.out,
                  .n = adapter.in,
                  .k = options_.lora.rank,
                  .alpha = scale_,
                  .a = weights_.as<float>().data() + adapter.b,
                  .lda = options_.lora.rank,
                  .b = weights_.as<float>().data() + adapter.a,
                  .ldb = adapter.in,
                  .c = wide_.data(),
                  .ldc = adapter.in});
  }

  template <class Body>
  void each_adapter(int index, const Body& body) {
    const model::Unit& at = unit(index);
    for (const Adapter& adapter : adapters_) {
      if (adapter.weight >= at.offset && adapter.weight < at.offset + at.size)
        body(adapter, static_cast<size_t>(adapter.weight - at.offset),
             static_cast<size_t>(adapter.out * adapter.in));
    }
  }

  Result<const T*> acquire(int index) override {
    const std::span<T> base =
        base_.as<T>().subspan(static_cast<size_t>(unit(index).offset), static_cast<size_t>(unit(index).size));
    if (index == 0) return base.data();
    const std::span<T> weights = unit_weights_.as<T>().first(base.size());
    std::ranges::copy(base, weights.begin());
    each_adapter(index, [&](const Adapter& adapter, size_t at, size_t count) {
      make_delta(adapter);
      tensor::add(weights.subspan(at, count), std::span<const float>(wide_).first(count));
    });
    return weights.data();
  }

  Result<Gradients> gradients(int index) override {
    return Gradients{index == 0 ? nullptr : unit_gradients_.as<T>().data(), tensor::Write::kReplace};
  }

  /// dB += alpha/rank · dW · Aᵀ and dA += alpha/rank · Bᵀ · dW.
  Status finish(int index) override {
    if (index == 0) return {};
    const int64_t rank = options_.lora.rank;
    each_adapter(index, [&](const Adapter& adapter, size_t at, size_t count) {
      tensor::convert(std::span(wide_).first(count),
                      std::span<const T>(unit_gradients_.as<T>().subspan(at, count)));
      const float* weights = weights_.as<float>().data();
      float* gradients = gradients_.as<float>().data();
      tensor::gemm({.transpose_b = true,
                    .m = adapter.out,
                    .n = rank,
                    .k = adapter.in,
                    .alpha = scale_,
                    .a = wide_.data(),
                    .lda = adapter.in,
                    .b = weights + adapter.a,
                    .ldb = adapter.in,
                    .beta = 1,
                    .c = gradients + adapter.b,
                    .ldc = rank});
      tensor::gemm({.transpose_a = true,
                    .m = rank,
                    .n = adapter.in,
                    .k = adapter.out,
                    .alpha = scale_,
                    .a = weights + adapter.b,
                    .lda = rank,
                    .b = wide_.data(),
                    .ldb = adapter.in,
                    .beta = 1,
                    .c = gradients + adapter.a,
                    .ldc = adapter.in});
    });
    return {};
  }

  Result<StepStats> update(float loss, const Step& step, float busy_s) {
    const int64_t begin_ns = Env::real().monotonic_ns();
    const std::span<float> gradients = gradients_.as<float>();
    TH_RETURN_IF_ERROR(group_.all_reduce(gradients));
    std::vector<float> sums = {loss / static_cast<float>(group_.world_size()), step.wants_stop ? 1.f : 0.f};
    sums.resize(2 + static_cast<size_t>(group_.world_size()));
    sums[2 + static_cast<size_t>(group_.rank())] = busy_s;
    TH_RETURN_IF_ERROR(group_.all_reduce(sums));
    waited_ns_ = Env::real().monotonic_ns() - begin_ns;
    const StepStats stats{sums[0],
                          std::sqrt(tensor::sum_of_squares(std::span<const float>(gradients))),
                          sums[1] > 0,
                          {sums.begin() + 2, sums.end()}};
    if (!std::isfinite(stats.loss) || !std::isfinite(stats.grad_norm))
      return fail(Code::kInternal,
                  fmt::format("step {}: loss {} and gradient norm {} of the adapters are not finite; lower "
                              "optimizer.lr",
                              step.number, stats.loss, stats.grad_norm));
    const OptimizerOptions& o = options_.zero.optimizer;
    const bool clips = o.clip > 0 && stats.grad_norm > o.clip;
    if (before_update_) before_update_(0);
    tensor::adamw_update(weights_.as<float>(), gradients, {m_.as<float>(), v_.as<float>()},
                         {.learning_rate = static_cast<float>(step.learning_rate),
                          .beta1 = static_cast<float>(o.beta1),
                          .beta2 = static_cast<float>(o.beta2),
                          .epsilon = static_cast<float>(o.epsilon),
                          .weight_decay = static_cast<float>(o.weight_decay),
                          .step = step.number,
                          .grad_scale = clips ? static_cast<float>(o.clip / stats.grad_norm) : 1.f});
    return stats;
  }

  collective::Group& group_;
  model::Decoder<T> model_;
  const EngineOptions options_;
  const model::ParameterLayout state_layout_;
  const float scale_;
  std::vector<Adapter> adapters_;
  int64_t largest_ = 0;
  Memory base_, unit_weights_, unit_gradients_;  // the model; a layer with its adapters; its gradients
  Memory weights_, gradients_, m_, v_;           // of the adapters
  std::vector<float> wide_;                      // one matrix
  std::function<void(int)> before_update_;
  StepTimes times_;
  int64_t waited_ns_ = 0;
};

template <class T>
Result<std::unique_ptr<Engine>> make(collective::Group& group, const model::ModelConfig& config,
                                     const EngineOptions& options) {
  TH_TRY(auto model,
         model::Decoder<T>::create(
             config, {.max_batch = options.batch, .max_time = options.time, .recompute = options.recompute}));
  const model::ParameterLayout layout(config);
  TH_TRY(const auto targets, find_targets(layout, options.lora.targets));
  auto engine = std::make_unique<LoraEngine<T>>(group, std::move(model), options, targets);
  TH_RETURN_IF_ERROR(engine->allocate());
  return engine;
}

}  // namespace

Result<std::unique_ptr<Engine>> make_lora_engine(collective::Group& group, const model::ModelConfig& config,
                                                 const EngineOptions& options) {
  return options.dtype == Dtype::kBf16 ? make<Bf16>(group, config, options)
                                       : make<float>(group, config, options);
}

}  // namespace th::train
