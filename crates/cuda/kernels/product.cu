// Matrix products in f32 of operands of any dtype and strides, by the loop of `tile.cuh`. The naive version that they are
// checked against is the reference's in f64, and the CPU's for bits.
#include "tile.cuh"

struct Matrix {
  u64 at;
  u32 dtype;
  u32 unused;
  i64 rows;     // stride
  i64 columns;
  i64 batches[MAX_RANK];
};

struct Product {
  u64 fault;
  u32 m, n, k;
  u32 batch_rank;
  u32 batches[MAX_RANK];
  u32 splits;   // parts of the inner dimension, each a multiple of 256, whose sums a second kernel adds
  u32 per_split;
  Matrix a, b, c;
  Matrix bias;  // no memory: none; strides of columns
};

__device__ __forceinline__ i64 batch_place(const Product& p, const Matrix& matrix, u32 batch) {
  i64 at = 0;
#pragma unroll 1
  for (u32 d = p.batch_rank; d > 0; d--) {
    u32 rest = batch / p.batches[d - 1];
    at += (i64)(batch - rest * p.batches[d - 1]) * matrix.batches[d - 1];
    batch = rest;
  }
  return at;
}

// Splits go to f32 parts [split][batch][m][n] at c; the whole to c with its bias.
extern "C" __global__ void __launch_bounds__(256) product(const __grid_constant__ Product p) {
  if (((const Fault*)p.fault)->set) return;
  u32 batch = blockIdx.z / p.splits, split = blockIdx.z % p.splits;
  u32 columns = (p.n + TILE - 1) / TILE;
  u32 row0 = blockIdx.x / columns * TILE, column0 = blockIdx.x % columns * TILE;
  i64 a0 = batch_place(p, p.a, batch), b0 = batch_place(p, p.b, batch);
  u32 first = split * p.per_split, last = min(p.k, first + p.per_split);
  float total[4][4];
  contract(
      total, p.m, p.n, row0, column0, first, last, p.a.columns == 1, p.b.columns != 1,
      [&](u32 i, u32 l) { return load(p.a.at, p.a.dtype, a0 + (i64)i * p.a.rows + (i64)l * p.a.columns); },
      [&](u32 l, u32 j) { return load(p.b.at, p.b.dtype, b0 + (i64)l * p.b.rows + (i64)j * p.b.columns); });
  if (p.splits > 1) {
    float* to = (float*)p.c.at + ((i64)split * (gridDim.z / p.splits) + batch) * p.m * p.n;
    each_result(total, p.m, p.n, row0, column0, [&](u32 i, u32 j, float v) { to[(i64)i * p.n + j] = v; });
    return;
  }
  i64 c0 = batch_place(p, p.c, batch);
  each_result(total, p.m, p.n, row0, column0, [&](u32 i, u32 j, float v) {
    if (p.bias.at) v = __fadd_rn(v, load(p.bias.at, p.bias.dtype, (i64)j * p.bias.columns));
    store(p.c.at, p.c.dtype, c0 + (i64)i * p.c.rows + (i64)j * p.c.columns, v);
  });
}

// The sums of splits, in order, a thread to a result. `a` has the parts.
extern "C" __global__ void __launch_bounds__(256) sum_of_splits(const __grid_constant__ Product p) {
  if (((const Fault*)p.fault)->set) return;
  u32 place = thread_index(), batch = blockIdx.y;
  if (place >= p.m * p.n) return;
  float v = 0.0f;
#pragma unroll 1
  for (u32 split = 0; split < p.splits; split++) {
    float part = ((const float*)p.a.at)[((i64)split * gridDim.y + batch) * p.m * p.n + place];
    v = split == 0 ? part : __fadd_rn(v, part);
  }
  u32 row = place / p.n, column = place % p.n;
  if (p.bias.at) v = __fadd_rn(v, load(p.bias.at, p.bias.dtype, (i64)column * p.bias.columns));
  i64 at = batch_place(p, p.c, batch) + (i64)row * p.c.rows + (i64)column * p.c.columns;
  store(p.c.at, p.c.dtype, at, v);
}
