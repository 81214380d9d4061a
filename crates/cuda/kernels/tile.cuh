// The loop of contractions: a block of 256 threads has a tile of 64 × 64 results, 4 × 4 to a thread. Operands go through
// shared memory 16 places of the inner dimension at a time (8.5 KB), by whatever gives an element of them. Sums are
// chains of fused multiply-adds of 256 products, which are added in order: the CPU's tiles have the same. Sums of
// products of 8-bit integers are 32-bit integers, and exact.
#pragma once
#include "common.cuh"

constexpr u32 TILE = 64, DEEP = 16, CHAIN = 256;

__device__ __forceinline__ float fused(float a, float b, float sum) { return __fmaf_rn(a, b, sum); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ int fused(int a, int b, int sum) { return a * b + sum; }
__device__ __forceinline__ int plus(int a, int b) { return a + b; }

// The results of this thread: rows row0 + 4·(thread / 16) and columns column0 + 4·(thread % 16) of an m × n product over
// the places first … last − 1. `a(i, l)` and `b(l, j)` are asked for elements that are there only. Neighbouring threads
// ask for neighbouring rows of A and columns of B, or if `*_inner` for neighbouring places.
template <class T, class A, class B>
__device__ __forceinline__ void contract(T (&total)[4][4], u32 m, u32 n, u32 row0, u32 column0, u32 first, u32 last,
                                         bool a_inner, bool b_inner, A a, B b) {
  __shared__ T left[DEEP][TILE + 4], right[DEEP][TILE + 4];
  u32 thread = threadIdx.x, tx = thread % 16, ty = thread / 16;
  bool works = row0 + ty * 4 < m && column0 + tx * 4 < n;
  T sum[4][4];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) total[i][j] = sum[i][j] = T(0);
#pragma unroll 1
  for (u32 k0 = first; k0 < last; k0 += DEEP) {
#pragma unroll 1
    for (u32 e = thread; e < TILE * DEEP; e += 256) {
      u32 l = a_inner ? e % DEEP : e / TILE, i = a_inner ? e / DEEP : e % TILE;
      left[l][i] = row0 + i < m && k0 + l < last ? a(row0 + i, k0 + l) : T(0);
      l = b_inner ? e % DEEP : e / TILE;
      u32 j = b_inner ? e / DEEP : e % TILE;
      right[l][j] = column0 + j < n && k0 + l < last ? b(k0 + l, column0 + j) : T(0);
    }
    __syncthreads();
    // Threads beyond the last row or column only help to load.
    u32 deep = works ? min(DEEP, last - k0) : 0u;
#pragma unroll 1
    for (u32 l = 0; l < deep; l++) {
      T x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = left[l][ty * 4 + i];
#pragma unroll
      for (int j = 0; j < 4; j++) y[j] = right[l][tx * 4 + j];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] = fused(x[i], y[j], sum[i][j]);
    }
    __syncthreads();
    if ((k0 + DEEP) % CHAIN == 0 || k0 + DEEP >= last) {
      bool begins = k0 / CHAIN == first / CHAIN;
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          total[i][j] = begins ? sum[i][j] : plus(total[i][j], sum[i][j]);
          sum[i][j] = T(0);
        }
    }
  }
}

// Calls f(row, column, value) for the results that are there.
template <class T, class F>
__device__ __forceinline__ void each_result(const T (&total)[4][4], u32 m, u32 n, u32 row0, u32 column0, F f) {
  u32 tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      u32 row = row0 + ty * 4 + i, column = column0 + tx * 4 + j;
      if (row < m && column < n) f(row, column, total[i][j]);
    }
}

// What 8-bit integers stand for: the number of an output channel, times that of all activations unless they are floats.
struct Scales {
  u64 of_outputs;
  u64 of_activations;  // no memory: 1
  u32 outputs_dtype;
  u32 activations_dtype;
  i64 stride;          // of outputs; without memory for them sums are what they are
};

__device__ __forceinline__ float scaled(const Scales& s, u32 output, float sum) {
  if (!s.of_outputs) return sum;
  float scale = load(s.of_outputs, s.outputs_dtype, (i64)output * s.stride);
  if (s.of_activations) scale = __fmul_rn(scale, load(s.of_activations, s.activations_dtype, 0));
  return __fmul_rn(sum, scale);
}
__device__ __forceinline__ float scaled(const Scales& s, u32 output, int sum) {
  return scaled(s, output, __int2float_rn(sum));
}
