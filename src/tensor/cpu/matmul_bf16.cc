#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <vector>

#include "base/result.h"
#include "tensor/cpu/matmul.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

bool valid(const MatmulDims& dims) { return dims.rows >= 0 && dims.in > 0 && dims.out > 0; }

TH_KERNEL void widen(float* out, const Bf16* in, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = to_float(in[i]);
}
TH_KERNEL void narrow(Bf16* out, const float* in, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = to_bf16(in[i]);
}
TH_KERNEL void round_range(float* out, const float* in, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = to_float(to_bf16(in[i]));
}
TH_KERNEL void add_narrow(Bf16* out, const float* in, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = to_bf16(to_float(out[i]) + in[i]);
}

// A buffer of the thread that grows and stays: pages of megabytes that come and go with each product would
// cost more than rounding does.
template <class T, int kWhich>
T* scratch(int64_t count) {
  thread_local std::vector<T> buffer;
  if (static_cast<int64_t>(buffer.size()) < count) buffer.resize(static_cast<size_t>(count));
  return buffer.data();
}

template <int kWhich>
const float* rounded(const float* in, int64_t count) {
  float* out = scratch<float, kWhich>(count);
  parallel_ranges(count, 1,
                  [&](int64_t begin, int64_t end) { round_range(out + begin, in + begin, end - begin); });
  return out;
}

constexpr int64_t kBlock = 192;  // rows of a weight at a time: widened, they stay in the L2 cache

// --- Without bfloat16 instructions: blocks of the weight are widened where they are used.

void forward_widened(float* out, const float* inp, const Bf16* weight, MatmulDims d, Write write) {
  const float* x = rounded<0>(inp, d.rows * d.in);
  const int64_t blocks = (d.out + kBlock - 1) / kBlock;
  parallel_ranges(blocks, kBlock * d.in * d.rows, [&](int64_t first, int64_t last) {
    float* wide = scratch<float, 2>(kBlock * d.in);
    for (int64_t o = first * kBlock; o < std::min(last * kBlock, d.out); o += kBlock) {
      const int64_t n = std::min(kBlock, d.out - o);
      widen(wide, weight + o * d.in, n * d.in);
      gemm({.transpose_b = true,
            .m = d.rows,
            .n = n,
            .k = d.in,
            .a = x,
            .lda = d.in,
            .b = wide,
            .ldb = d.in,
            .beta = write == Write::kAdd ? 1.0f : 0.0f,
            .c = out + o,
            .ldc = d.out});
    }
  });
}

void backward_input_widened(float* dinp, const float* dout, const Bf16* weight, MatmulDims d, Write write) {
  const float* dy = rounded<0>(dout, d.rows * d.out);
  constexpr int64_t kTogether = 16, kDeep = 2 * kBlock;
  parallel_ranges((d.in + kTogether - 1) / kTogether, d.out * d.rows, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kTogether, columns = std::min(last * kTogether, d.in) - begin;
    float* wide = scratch<float, 2>(kDeep * columns);
    for (int64_t o = 0; o < d.out; o += kDeep) {
      const int64_t k = std::min(kDeep, d.out - o);
      for (int64_t r = 0; r < k; ++r) widen(wide + r * columns, weight + (o + r) * d.in + begin, columns);
      gemm({.m = d.rows,
            .n = columns,
            .k = k,
            .a = dy + o,
            .lda = d.out,
            .b = wide,
            .ldb = columns,
            .beta = o > 0 || write == Write::kAdd ? 1.0f : 0.0f,
            .c = dinp + begin,
            .ldc = d.in});
    }
  });
}

void backward_weight_widened(Bf16* dweight, const float* dout, const float* inp, MatmulDims d, Write write) {
  const float* dy = rounded<0>(dout, d.rows * d.out);
  const float* x = rounded<1>(inp, d.rows * d.in);
  const int64_t blocks = (d.out + kBlock - 1) / kBlock;
  parallel_ranges(blocks, kBlock * d.in * d.rows, [&](int64_t first, int64_t last) {
    float* wide = scratch<float, 2>(kBlock * d.in);
    for (int64_t o = first * kBlock; o < std::min(last * kBlock, d.out); o += kBlock) {
      const int64_t m = std::min(kBlock, d.out - o);
      gemm({.transpose_a = true,
            .m = m,
            .n = d.in,
            .k = d.rows,
            .a = dy + o,
            .lda = d.out,
            .b = x,
            .ldb = d.in,
            .c = wide,
            .ldc = d.in});
      (write == Write::kAdd ? add_narrow : narrow)(dweight + o * d.in, wide, m * d.in);
    }
  });
}

// --- With them: oneDNN's primitives, made once for each shape and thread.

dnnl::engine& cpu() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

struct Product {
  memory::desc a, b, c;
  bool add = false;
};

// c (m,n) =|+= a (m,k) · b (k,n).
void run(const Product& p, const void* a, const void* b, void* c) {
  using Key = std::tuple<int64_t, int64_t, int64_t, int, int, int, bool>;
  const auto tag_of = [](const memory::desc& d) { return d.data.format_desc.blocking.strides[0] == 1; };
  thread_local std::map<Key, dnnl::matmul> made;
  const Key key{p.a.data.dims[0],
                p.a.data.dims[1],
                p.b.data.dims[1],
                tag_of(p.a),
                tag_of(p.b),
                static_cast<int>(p.c.data_type()),
                p.add};
  auto it = made.find(key);
  if (it == made.end()) {
    dnnl::primitive_attr attributes;
    dnnl::post_ops add;
    if (p.add) add.append_sum(1.0f), attributes.set_post_ops(add);
    it = made.emplace(key, dnnl::matmul({{p.a, p.b, p.c}, attributes, cpu()})).first;
  }
  dnnl::stream stream(cpu());
  it->second.execute(stream, {{DNNL_ARG_SRC, memory(p.a, cpu(), const_cast<void*>(a))},
                              {DNNL_ARG_WEIGHTS, memory(p.b, cpu(), const_cast<void*>(b))},
                              {DNNL_ARG_DST, memory(p.c, cpu(), c)}});
  stream.wait();
}

template <int kWhich>
const Bf16* narrowed(const float* in, int64_t count) {
  Bf16* out = scratch<Bf16, kWhich>(count);
  parallel_ranges(count, 1,
                  [&](int64_t begin, int64_t end) { narrow(out + begin, in + begin, end - begin); });
  return out;
}

memory::desc matrix(int64_t rows, int64_t columns, Type type, bool transposed = false) {
  return {{rows, columns}, type, transposed ? Tag::ba : Tag::ab};
}

}  // namespace

bool has_bf16_products() {
  const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  return (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

void matmul_forward(float* out, const float* inp, const Bf16* weight, MatmulDims d, Write write) {
  TH_CHECK(valid(d));
  if (d.rows == 0) return;
  if (!has_bf16_products()) return forward_widened(out, inp, weight, d, write);
  run({matrix(d.rows, d.in, Type::bf16), matrix(d.in, d.out, Type::bf16, true),
       matrix(d.rows, d.out, Type::f32), write == Write::kAdd},
      narrowed<0>(inp, d.rows * d.in), weight, out);
}

void matmul_backward_input(float* dinp, const float* dout, const Bf16* weight, MatmulDims d, Write write) {
  TH_CHECK(valid(d));
  if (d.rows == 0) return;
  if (!has_bf16_products()) return backward_input_widened(dinp, dout, weight, d, write);
  run({matrix(d.rows, d.out, Type::bf16), matrix(d.out, d.in, Type::bf16), matrix(d.rows, d.in, Type::f32),
       write == Write::kAdd},
      narrowed<0>(dout, d.rows * d.out), weight, dinp);
}

void matmul_backward_weight(Bf16* dweight, const float* dout, const float* inp, MatmulDims d, Write write) {
  TH_CHECK(valid(d));
  if (d.rows == 0) {
    if (write == Write::kReplace) std::fill_n(dweight, d.in * d.out, Bf16{});
    return;
  }
  if (!has_bf16_products()) return backward_weight_widened(dweight, dout, inp, d, write);
  run({matrix(d.out, d.rows, Type::bf16, true), matrix(d.rows, d.in, Type::bf16),
       matrix(d.out, d.in, Type::bf16), write == Write::kAdd},
      narrowed<0>(dout, d.rows * d.out), narrowed<1>(inp, d.rows * d.in), dweight);
}

}  // namespace th::tensor
