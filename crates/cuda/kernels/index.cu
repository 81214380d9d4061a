// Elements by their positions. An index is checked by a kernel of its own, behind which nothing runs where it is out of
// range. Sums over equal indices are in their order, without atomics: a thread has a result and looks for what goes
// into it.
//
// Shapes: tensors of any shape and strides; indices i64 of the shape of what is gathered or scattered.
// Tiling: none: a thread has a result, and looks for what goes into it.
// Needs: at most 40 registers to a thread, 1,024 bytes of shared memory to a block.
// Checked against: gathering, scattering and embedding of the reference, loops over elements.
#include "elementwise.cuh"

struct Check {
  u64 fault;
  u64 at;
  u32 dtype;
  u32 n;
  u32 rank;
  u32 operation;
  u32 extents[MAX_RANK];
  i64 strides[MAX_RANK];
  i64 size;
  i64 ignored;  // allowed beside 0 … size − 1
};

__device__ __forceinline__ i64 index_at(u64 at, u32 dtype, i64 i) {
  return dtype == I64 ? ((const i64*)at)[i] : (i64)((const u32*)at)[i];
}

// Notes the first index that is out of range. One block.
extern "C" __global__ void __launch_bounds__(256) check_index(const __grid_constant__ Check p) {
  Fault* fault = (Fault*)p.fault;
  if (fault->set) return;
  __shared__ u32 firsts[256];
  auto place = [&](u32 i) {
    i64 at = 0;
    for (u32 d = p.rank - 1; d > 0; d--) {
      u32 rest = i / p.extents[d];
      at += (i64)(i - rest * p.extents[d]) * p.strides[d];
      i = rest;
    }
    return at + (i64)i * p.strides[0];
  };
  u32 first = 0xffffffffu;
  for (u32 i = threadIdx.x; i < p.n && first == 0xffffffffu; i += 256) {
    i64 index = index_at(p.at, p.dtype, place(i));
    if ((index < 0 || index >= p.size) && index != p.ignored) first = i;
  }
  firsts[threadIdx.x] = first;
  __syncthreads();
#pragma unroll 1
  for (u32 half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) firsts[threadIdx.x] = min(firsts[threadIdx.x], firsts[threadIdx.x + half]);
    __syncthreads();
  }
  if (threadIdx.x == 0 && firsts[0] != 0xffffffffu) {
    fault->operation = p.operation;
    fault->index = index_at(p.at, p.dtype, place(firsts[0]));
    fault->size = (u64)p.size;
    fault->set = 1;
  }
}

// y[…, i, …] = x[…, index[…, i, …], …]: the second operand is the index, the first lies with stride 0 along the
// dimension, whose stride is the value's bits.
ELEMENTWISE(gather_1, 2, {
  i64 from = at.in[0] + index_at(p.in[1].at, p.in[1].dtype, at.in[1]) * __double_as_longlong(p.value);
  ((u8*)p.out.at)[at.out] = ((const u8*)p.in[0].at)[from];
})
ELEMENTWISE(gather_2, 2, {
  i64 from = at.in[0] + index_at(p.in[1].at, p.in[1].dtype, at.in[1]) * __double_as_longlong(p.value);
  ((u16*)p.out.at)[at.out] = ((const u16*)p.in[0].at)[from];
})
ELEMENTWISE(gather_4, 2, {
  i64 from = at.in[0] + index_at(p.in[1].at, p.in[1].dtype, at.in[1]) * __double_as_longlong(p.value);
  ((u32*)p.out.at)[at.out] = ((const u32*)p.in[0].at)[from];
})
ELEMENTWISE(gather_8, 2, {
  i64 from = at.in[0] + index_at(p.in[1].at, p.in[1].dtype, at.in[1]) * __double_as_longlong(p.value);
  ((u64*)p.out.at)[at.out] = ((const u64*)p.in[0].at)[from];
})
ELEMENTWISE(gather_float, 2, {
  i64 from = at.in[0] + index_at(p.in[1].at, p.in[1].dtype, at.in[1]) * __double_as_longlong(p.value);
  store(p.out, at.out, load(p.in[0], from));
})

struct Scatter {
  u64 fault;
  u32 n;
  u32 rank;
  u32 extents[MAX_RANK];   // of the output
  u32 covered[MAX_RANK];   // of the index
  u32 dim;
  u32 adds;
  Operand out;
  Operand base;            // no memory: zeros
  Operand index;
  Operand source;
};

// The tensor with elements of the source set or added at an index along a dimension, in order. Integers and booleans are
// set as they are.
template <bool FLOATS>
__device__ __forceinline__ void scatter_of(const Scatter& p) {
  if (((const Fault*)p.fault)->set) return;
  for (u32 i = thread_index(); i < p.n; i += thread_count()) {
    i64 out = 0, base = 0, index = 0, source = 0;
    u32 rest = i, here = 0;
    bool covered = true;
#pragma unroll 1
    for (u32 d = p.rank; d > 0; d--) {
      u32 k = rest % p.extents[d - 1];
      rest /= p.extents[d - 1];
      out += (i64)k * p.out.strides[d - 1];
      base += (i64)k * p.base.strides[d - 1];
      if (d - 1 == p.dim) {
        here = k;
        continue;
      }
      covered = covered && k < p.covered[d - 1];
      index += (i64)k * p.index.strides[d - 1];
      source += (i64)k * p.source.strides[d - 1];
    }
    float v = FLOATS && p.base.at ? load(p.base, base) : 0.0f;
    u64 bits = FLOATS ? 0 : load_bits(p.base, base);
    for (u32 k = 0; covered && k < p.covered[p.dim]; k++) {
      if (index_at(p.index.at, p.index.dtype, index + (i64)k * p.index.strides[p.dim]) != (i64)here) continue;
      i64 from = source + (i64)k * p.source.strides[p.dim];
      if (FLOATS) {
        float s = load(p.source, from);
        v = p.adds ? __fadd_rn(v, s) : s;
      } else {
        bits = load_bits(p.source, from);
      }
    }
    if (FLOATS)
      store(p.out, out, v);
    else
      store_bits(p.out, out, bits);
  }
}

extern "C" __global__ void __launch_bounds__(256) scatter(const __grid_constant__ Scatter p) { scatter_of<true>(p); }
extern "C" __global__ void __launch_bounds__(256) scatter_bits(const __grid_constant__ Scatter p) {
  scatter_of<false>(p);
}

struct Rows {
  u64 fault;
  u32 n;          // indices
  u32 features;
  u32 rows;
  u32 unused;
  u64 index;      // one after the other
  u32 index_dtype;
  u32 g_dtype;
  u64 g;          // [n, features], row-major
  u64 out;        // [rows, features]
  i64 row_stride;
  i64 feature_stride;
  u32 out_dtype;
  u32 unused2;
};

// Each row of a weight's gradient: the gradients of its places added in order. A warp has a row and 128 features.
extern "C" __global__ void __launch_bounds__(32) embedding_backward(const __grid_constant__ Rows p) {
  if (((const Fault*)p.fault)->set) return;
  u32 row = blockIdx.x, lane = threadIdx.x, first = blockIdx.y * 128 + lane;
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
  for (u32 start = 0; start < p.n; start += 32) {
    u32 i = start + lane;
    bool hit = i < p.n && index_at(p.index, p.index_dtype, i) == (i64)row;
    u32 hits = __ballot_sync(0xffffffffu, hit);
    while (hits) {
      u32 place = start + __ffs(hits) - 1;
      hits &= hits - 1;
#pragma unroll
      for (u32 k = 0; k < 4; k++) {
        u32 feature = first + k * 32;
        if (feature < p.features)
          sums[k] = __fadd_rn(sums[k], load(p.g, p.g_dtype, (i64)place * p.features + feature));
      }
    }
  }
#pragma unroll
  for (u32 k = 0; k < 4; k++) {
    u32 feature = first + k * 32;
    if (feature < p.features)
      store(p.out, p.out_dtype, (i64)row * p.row_stride + (i64)feature * p.feature_stride, sums[k]);
  }
}
