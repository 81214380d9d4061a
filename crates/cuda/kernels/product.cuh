// Matrix products: operands, and what is done to a sum before it is stored.
#pragma once
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
  u32 count;    // batches
  u32 inner[2]; // on tensor cores: whether places of A and of B are side by side
  u32 unused;
  Matrix a, b, c;
  Matrix bias;  // no memory: none; strides of columns
  Scales scales;
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

// A sum of a column as the result that it stands for, before it is rounded.
template <class T>
__device__ __forceinline__ float finished(const Product& p, u32 column, T sum) {
  float v = scaled(p.scales, column, sum);
  if (p.bias.at) v = __fadd_rn(v, load(p.bias.at, p.bias.dtype, (i64)column * p.bias.columns));
  return v;
}
