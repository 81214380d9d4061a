// Kernels over rows: what lies in some dimensions belongs together. 16 threads have a row, as the CPU's sums have 16
// parts; a warp has two, so that all its threads meet in every shuffle.
#pragma once
#include "common.cuh"
#include "sums.cuh"

constexpr u32 LANES = 16;
constexpr u32 WARP = 0xffffffffu;

// An operand of rows: strides of the dimensions that number rows, and of those within.
struct RowOperand {
  u64 at;
  u32 dtype;
  u32 unused;
  i64 outer[MAX_RANK];
  i64 inner[MAX_RANK];
};

struct Rows {
  u32 rows;
  u32 n;
  u32 outer_rank;
  u32 inner_rank;
  u32 outer[MAX_RANK];
  u32 inner[MAX_RANK];
};

__device__ __forceinline__ i64 place(u32 rank, const u32* extents, const i64* strides, u32 i) {
  i64 at = 0;
#pragma unroll 1
  for (u32 d = rank - 1; d > 0; d--) {
    u32 rest = i / extents[d];
    at += (i64)(i - rest * extents[d]) * strides[d];
    i = rest;
  }
  return at + (i64)i * strides[0];
}

// Where a row begins, and how far an element of it lies from there.
__device__ __forceinline__ i64 row_place(const Rows& r, const RowOperand& o, u32 row) {
  return place(r.outer_rank, r.outer, o.outer, row);
}
__device__ __forceinline__ i64 place_in_row(const Rows& r, const RowOperand& o, u32 i) {
  return place(r.inner_rank, r.inner, o.inner, i);
}

__device__ __forceinline__ float load(const Rows& r, const RowOperand& o, i64 start, u32 i) {
  return load(o.at, o.dtype, start + place_in_row(r, o, i));
}
__device__ __forceinline__ void store(const Rows& r, const RowOperand& o, i64 start, u32 i, float v) {
  store(o.at, o.dtype, start + place_in_row(r, o, i), v);
}

// Of a row beyond the last its threads compute the last once more, and store nothing.
struct Lane {
  u32 row;
  u32 lane;
  bool stores;
};

__device__ __forceinline__ Lane lane_of(const Rows& r) {
  // A block has whole rows: threads are more than 32 bits number.
  u32 row = blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES;
  return Lane{min(row, r.rows - 1), threadIdx.x % LANES, row < r.rows};
}

__device__ __forceinline__ double first_of_16(double v) { return __shfl_sync(WARP, v, 0, LANES); }
__device__ __forceinline__ float first_of_16(float v) { return __shfl_sync(WARP, v, 0, LANES); }
__device__ __forceinline__ u32 first_of_16(u32 v) { return __shfl_sync(WARP, v, 0, LANES); }

__device__ __forceinline__ double sum_of_16(double v) {
  v = __dadd_rn(v, __shfl_down_sync(WARP, v, 8, LANES));
  v = __dadd_rn(v, __shfl_down_sync(WARP, v, 4, LANES));
  v = __dadd_rn(v, __shfl_down_sync(WARP, v, 2, LANES));
  return __dadd_rn(v, __shfl_down_sync(WARP, v, 1, LANES));
}

__device__ __forceinline__ u32 count_of_16(u32 v) {
#pragma unroll
  for (int step = 8; step > 0; step /= 2) v += __shfl_down_sync(WARP, v, step, LANES);
  return v;
}

// The larger or smaller; NaN wins.
__device__ __forceinline__ float extreme(bool largest, float a, float b) {
  return a != a || (b == b && ((a > b) == largest || a == b)) ? a : b;
}

__device__ __forceinline__ float extreme_of_16(bool largest, float v) {
#pragma unroll
  for (int step = 8; step > 0; step /= 2) v = extreme(largest, v, __shfl_down_sync(WARP, v, step, LANES));
  return v;
}

// Sum of f(i) for i < n in all threads of a row: f32 within blocks, whose sums are added in f64. A block that leaves
// f32's range is added in f64 by `wide`.
template <class F, class W>
__device__ __forceinline__ double sum_of_row(u32 n, u32 lane, F f, W wide) {
  double total = 0.0, part = 0.0;
#pragma unroll 1
  for (u32 start = 0; start < n; start += BLOCK) {
    if (start % TASK == 0 && start > 0) {
      total = __dadd_rn(total, part);
      part = 0.0;
    }
    u32 end = min(n, start + BLOCK);
    float sum = 0.0f;
#pragma unroll 1
    for (u32 i = start + lane; i < end; i += LANES) sum = __fadd_rn(sum, f(i));
    sum = first_of_16(sum_of_16(sum));
    double block = (double)sum;
    // Both rows of a warp go the same way, so that their threads meet.
    if (__any_sync(WARP, !is_finite(sum))) {
      double again = 0.0;
#pragma unroll 1
      for (u32 i = start + lane; i < end; i += LANES) again = __dadd_rn(again, wide(i));
      again = first_of_16(sum_of_16(again));
      if (!is_finite(sum)) block = again;
    }
    part = __dadd_rn(part, block);
  }
  return __dadd_rn(total, part);
}

// As above, in f64 throughout.
template <class F>
__device__ __forceinline__ double wide_sum_of_row(u32 n, u32 lane, F f) {
  double sum = 0.0;
#pragma unroll 1
  for (u32 i = lane; i < n; i += LANES) sum = __dadd_rn(sum, f(i));
  return first_of_16(sum_of_16(sum));
}

template <class F>
__device__ __forceinline__ float extreme_of_row(bool largest, u32 n, u32 lane, F f) {
  float best = largest ? -INFINITE : INFINITE;
#pragma unroll 1
  for (u32 i = lane; i < n; i += LANES) best = extreme(largest, best, f(i));
  return first_of_16(extreme_of_16(largest, best));
}

// The power of two that numbers up to `largest` are divided by; 1 where there is none.
__device__ __forceinline__ double scale_of(double largest) {
  if (largest == 0.0 || !is_finite(largest)) return 1.0;
  int exponent = (int)((__double_as_longlong(largest) >> 52) & 0x7ff);
  // f32 numbers are normal in f64.
  return __longlong_as_double((i64)exponent << 52);
}

// Mean and squared distances of numbers of any size, in f64: for those whose squares a sum in f32 does not hold.
struct Moments {
  double mean, squares, scale;
  __device__ __forceinline__ double deviation(double divisor) const { return scale * sqrt(squares / divisor); }
  __device__ __forceinline__ double variance(double divisor) const { return squares / divisor * scale * scale; }
};

template <class F>
__device__ __forceinline__ Moments moments_of_row(bool centred, u32 n, u32 lane, F f) {
  float largest = extreme_of_row(true, n, lane, [&](u32 i) { return fabsf(f(i)); });
  double scale = scale_of((double)largest);
  float first = f(0);
  // Counted from the first number, so that the mean of equal ones is each of them.
  double from = centred && is_finite(first) ? (double)first / scale : 0.0, mean = from;
  if (centred) {
    double sum = wide_sum_of_row(n, lane, [&](u32 i) { return (double)f(i) / scale - from; });
    mean = from + sum / (double)n;
  }
  double squares = wide_sum_of_row(n, lane, [&](u32 i) {
    double d = (double)f(i) / scale - mean;
    return __dmul_rn(d, d);
  });
  return Moments{__dmul_rn(mean, scale), squares, scale};
}

// Whether a variance from sums in f32 can be trusted: its squares neither overflowed nor vanished, and the rounding of
// the mean does not matter beside it.
__device__ __forceinline__ bool is_trusted(double mean, double variance) {
  return is_finite(variance) && variance > 1e-30 && variance * 256.0 > mean * mean;
}
