#include "tensor/cpu/matmul.h"

#include <oneapi/dnnl/dnnl.h>

#include "base/result.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

bool valid(const MatmulDims& dims) { return dims.rows >= 0 && dims.in > 0 && dims.out > 0; }

// out[r][o] for o in [begin, end): four outputs at a time, so that four sums are in flight.
TH_KERNEL void few_rows_range(float* out, const float* inp, const float* weight, MatmulDims dims, bool add,
                              int64_t begin, int64_t end) {
  const int64_t in = dims.in;
  for (int64_t o = begin; o < end; o += 4) {
    const int64_t n = std::min<int64_t>(4, end - o);
    const float* w0 = weight + o * in;
    const float* w1 = n > 1 ? w0 + in : w0;
    const float* w2 = n > 2 ? w1 + in : w0;
    const float* w3 = n > 3 ? w2 + in : w0;
    for (int64_t r = 0; r < dims.rows; ++r) {
      const float* x = inp + r * in;
      float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
      for (int64_t i = 0; i < in; ++i) {
        s0 += x[i] * w0[i];
        s1 += x[i] * w1[i];
        s2 += x[i] * w2[i];
        s3 += x[i] * w3[i];
      }
      const float sums[4] = {s0, s1, s2, s3};
      float* y = out + r * dims.out + o;
      for (int64_t j = 0; j < n; ++j) y[j] = add ? y[j] + sums[j] : sums[j];
    }
  }
}

}  // namespace

namespace {

void sgemm(const Gemm& p) {
  const dnnl_status_t status = dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k,
                                          p.alpha, p.a, p.lda, p.b, p.ldb, p.beta, p.c, p.ldc);
  TH_CHECK(status == dnnl_success);
}

// Rows of c some thousands at a time, whoever is free: a product as tall as a vocabulary takes a tenth to a
// third longer in one piece.
constexpr int64_t kTallPart = 3072;
bool is_tall(const Gemm& p) { return p.m >= 4 * kTallPart && !omp_in_parallel(); }

void sgemm_by_rows(const Gemm& p) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t begin = 0; begin < p.m; begin += kTallPart) {
    Gemm part = p;
    part.m = std::min(kTallPart, p.m - begin);
    part.a += p.transpose_a ? begin : begin * p.lda;
    part.c += begin * p.ldc;
    sgemm(part);
  }
}

// Each thread its columns of c, so that none packs the b of another: where b is a weight and a some hundreds
// of rows, that is a fifth faster than what oneDNN's threads do.
bool is_worth_columns(const Gemm& p) {
  constexpr int64_t kFewEnough = 2048, kWide = 256;
  return p.m <= kFewEnough && p.n >= kWide * omp_get_max_threads() && omp_get_max_threads() > 1 &&
         !omp_in_parallel();
}

}  // namespace

void gemm(const Gemm& p) {
  if (p.m == 0 || p.n == 0) return;
  // A product of this little is done before other threads are awake.
  constexpr int64_t kWorthThreads = int64_t{1} << 20;
  const int threads = omp_get_max_threads();
  const bool alone = threads > 1 && p.m * p.n * p.k < kWorthThreads;
  if (!alone && is_worth_columns(p)) {
    constexpr int64_t kTogether = 16;  // floats of a vector register
    parallel_ranges((p.n + kTogether - 1) / kTogether, p.m * p.k, [&](int64_t begin, int64_t end) {
      Gemm part = p;
      begin *= kTogether, part.n = std::min(end * kTogether, p.n) - begin;
      part.b += p.transpose_b ? begin * p.ldb : begin;
      part.c += begin;
      sgemm(part);
    });
    return;
  }
  if (is_tall(p)) return sgemm_by_rows(p);
  if (alone) omp_set_num_threads(1);
  sgemm(p);
  if (alone) omp_set_num_threads(threads);
}

void matmul_forward(float* out, const float* inp, const float* weight, MatmulDims dims, Write write) {
  TH_CHECK(valid(dims));
  const bool add = write == Write::kAdd;
  if (dims.rows <= kFewRows) {
    parallel_ranges(dims.out, dims.in * dims.rows, [&](int64_t begin, int64_t end) {
      few_rows_range(out, inp, weight, dims, add, begin, end);
    });
    return;
  }
  gemm({.transpose_b = true,
        .m = dims.rows,
        .n = dims.out,
        .k = dims.in,
        .a = inp,
        .lda = dims.in,
        .b = weight,
        .ldb = dims.in,
        .beta = add ? 1.0f : 0.0f,
        .c = out,
        .ldc = dims.out});
}

void matmul_backward_input(float* dinp, const float* dout, const float* weight, MatmulDims dims,
                           Write write) {
  TH_CHECK(valid(dims));
  gemm({.m = dims.rows,
        .n = dims.in,
        .k = dims.out,
        .a = dout,
        .lda = dims.out,
        .b = weight,
        .ldb = dims.in,
        .beta = write == Write::kAdd ? 1.0f : 0.0f,
        .c = dinp,
        .ldc = dims.in});
}

void matmul_backward_weight(float* dweight, const float* dout, const float* inp, MatmulDims dims,
                            Write write) {
  TH_CHECK(valid(dims));
  gemm({.transpose_a = true,
        .m = dims.out,
        .n = dims.in,
        .k = dims.rows,
        .a = dout,
        .lda = dims.out,
        .b = inp,
        .ldb = dims.in,
        .beta = write == Write::kAdd ? 1.0f : 0.0f,
        .c = dweight,
        .ldc = dims.in});
}

}  // namespace th::tensor
