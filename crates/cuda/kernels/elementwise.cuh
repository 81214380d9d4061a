// Elementwise operators. One thread per element of the output, in the output's memory order; the host has merged
// dimensions that lie behind each other in all operands, so that dense operands are one dimension.
#pragma once
#include "common.cuh"
#include "wide.cuh"

struct Elementwise {
  u64 fault;
  u32 n;
  u32 rank;
  u32 extents[MAX_RANK];
  // Numbers that the operator carries, unrounded; an operand without memory is `value`.
  double value;
  double factor;
  Operand out;
  Operand in[4];
};

template <int N>
struct Places {
  i64 out;
  i64 in[N];
};

template <int N>
__device__ __forceinline__ Places<N> places(const Elementwise& p, u32 i) {
  Places<N> at;
  at.out = 0;
#pragma unroll
  for (int k = 0; k < N; k++) at.in[k] = 0;
#pragma unroll 1
  for (u32 d = p.rank - 1; d > 0; d--) {
    // Unrolled nevertheless, where it is inlined, unless the count of dimensions is nothing that can be known.
    asm("" : "+r"(d));
    u32 rest = i / p.extents[d], here = i - rest * p.extents[d];
    at.out += (i64)here * p.out.strides[d];
#pragma unroll
    for (int k = 0; k < N; k++) at.in[k] += (i64)here * p.in[k].strides[d];
    i = rest;
  }
  at.out += (i64)i * p.out.strides[0];
#pragma unroll
  for (int k = 0; k < N; k++) at.in[k] += (i64)i * p.in[k].strides[0];
  return at;
}

// An operand of a binary row, or the number in its place.
__device__ __forceinline__ float load_or_value(const Elementwise& p, const Operand& from, i64 i) {
  return from.at ? load(from, i) : __double2float_rn(p.value);
}

// A number in an operand's place is not looked at: kernels compute as if it were of moderate size.
__device__ __forceinline__ bool is_extreme(const Operand& from, float x) { return from.at && is_extreme(x); }

#define ELEMENTWISE(NAME, N, ...)                                                                       \
  extern "C" __global__ void __launch_bounds__(256) NAME(const __grid_constant__ Elementwise p) {       \
    if (((const Fault*)p.fault)->set) return;                                                           \
    for (u32 i = thread_index(); i < p.n; i += thread_count()) {                                        \
      Places<N> at = places<N>(p, i);                                                                   \
      __VA_ARGS__                                                                                       \
    }                                                                                                   \
  }
