#include "tensor/cpu/packed_products.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <oneapi/dnnl/dnnl.hpp>
#include <utility>

#include "tensor/cpu/matmul.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Numbers of ordinary size, in every page.
void fill(memory& m, Type type) {
  const size_t bytes = m.get_desc().get_size();
  if (type == Type::bf16) {
    auto* values = static_cast<Bf16*>(m.get_data_handle());
    for (size_t i = 0; i < bytes / sizeof(Bf16); ++i) values[i] = to_bf16(static_cast<float>(i % 7) / 7);
    return;
  }
  auto* values = static_cast<float*>(m.get_data_handle());
  for (size_t i = 0; i < bytes / sizeof(float); ++i) values[i] = static_cast<float>(i % 7) / 7;
}

TH_KERNEL void triad(float* a, const float* b, const float* c, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) a[i] = b[i] + 0.5f * c[i];
}

}  // namespace

struct PackedProducts::State {
  dnnl::engine cpu{dnnl::engine::kind::cpu, 0};
  struct Made {
    dnnl::matmul product;
    memory a, b, c;
  };
  std::vector<Made> made;
};

PackedProducts::PackedProducts(std::unique_ptr<State> state) : state_(std::move(state)) {}
PackedProducts::PackedProducts(PackedProducts&&) noexcept = default;
PackedProducts::~PackedProducts() = default;

Result<PackedProducts> PackedProducts::create(const std::vector<PackedProduct>& products, bool bf16) {
  auto state = std::make_unique<State>();
  const Type type = bf16 && has_bf16_products() ? Type::bf16 : Type::f32;
  try {
    for (const PackedProduct& p : products) {
      const dnnl::matmul::primitive_desc product(
          {memory::desc({p.m, p.k}, type, p.transpose_a ? Tag::ba : Tag::ab),
           memory::desc({p.k, p.n}, type, Tag::any), memory::desc({p.m, p.n}, Type::f32, Tag::ab)},
          state->cpu);
      state->made.push_back({dnnl::matmul(product), memory(product.src_desc(), state->cpu),
                             memory(product.weights_desc(), state->cpu),
                             memory(product.dst_desc(), state->cpu)});
      State::Made& made = state->made.back();
      fill(made.a, type), fill(made.b, type), fill(made.c, Type::f32);
    }
  } catch (const dnnl::error& error) {
    return fail(Code::kResourceExhausted,
                std::string("no memory for matrix products alone: ") + error.what());
  }
  return PackedProducts(std::move(state));
}

double PackedProducts::run() {
  dnnl::stream stream(state_->cpu);
  const auto begin = std::chrono::steady_clock::now();
  for (State::Made& made : state_->made) {
    made.product.execute(stream,
                         {{DNNL_ARG_SRC, made.a}, {DNNL_ARG_WEIGHTS, made.b}, {DNNL_ARG_DST, made.c}});
  }
  stream.wait();
  return seconds_since(begin);
}

double triad_bytes_per_s() {
  constexpr int64_t kFloats = int64_t{32} << 20;  // 128 MiB each
  constexpr int kTimes = 4;
  const auto array = [] { return std::make_unique<float[]>(static_cast<size_t>(kFloats)); };
  const auto a = array(), b = array(), c = array();
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kTimes; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    parallel_ranges(kFloats, 1, [&](int64_t first, int64_t last) {
      triad(a.get() + first, b.get() + first, c.get() + first, last - first);
    });
    best = std::min(best, seconds_since(begin));
  }
  return 12.0 * static_cast<double>(kFloats) / best;
}

}  // namespace th::tensor
