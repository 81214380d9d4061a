// Matrix products in f32 of operands of any dtype and strides, and of 8-bit integers, by the loop of `tile.cuh`.
//
// Shapes: a [..., M, K], b [..., K, N] of any strides; biases [N]; scales [N] of 8-bit integers.
// Tiling: as `tile.cuh`: 64 x 64 results to a block of 256 threads, 16 places at a time; long sums cut between chains
// of 256.
// Needs: at most 64 registers to a thread, 8,704 bytes of shared memory to a block.
// Checked against: products of the reference, a loop over places in f64, and the CPU's bits.
#include "product.cuh"

// Floats, or where the sums are floats 8-bit integers beside them.
__device__ __forceinline__ void element(const Matrix& from, i64 i, float& v) {
  v = from.dtype == I8 ? __int2float_rn(((const i8*)from.at)[i]) : load(from.at, from.dtype, i);
}
__device__ __forceinline__ void element(const Matrix& from, i64 i, int& v) { v = ((const i8*)from.at)[i]; }

// A sum as the result that it stands for.
template <class T>
__device__ __forceinline__ void finish(const Product& p, i64 c0, u32 row, u32 column, T sum) {
  store(p.c.at, p.c.dtype, c0 + (i64)row * p.c.rows + (i64)column * p.c.columns,
        finished(p, column, sum));
}

// Splits go to parts [split][batch][m][n] at c; the whole to c with its bias.
template <class T>
__device__ __forceinline__ void multiply(const Product& p) {
  if (((const Fault*)p.fault)->set) return;
  u32 columns = (p.n + TILE - 1) / TILE;
  u32 row0 = blockIdx.x / columns * TILE, column0 = blockIdx.x % columns * TILE;
#pragma unroll 1
  for (u32 z = blockIdx.z; z < p.count * p.splits; z += gridDim.z) {
    u32 batch = z / p.splits, split = z % p.splits;
    i64 a0 = batch_place(p, p.a, batch), b0 = batch_place(p, p.b, batch);
    u32 first = split * p.per_split, last = min(p.k, first + p.per_split);
    T total[4][4];
    contract(
        total, p.m, p.n, row0, column0, first, last, p.a.columns == 1, p.b.columns != 1,
        [&](u32 i, u32 l) {
          T v;
          element(p.a, a0 + (i64)i * p.a.rows + (i64)l * p.a.columns, v);
          return v;
        },
        [&](u32 l, u32 j) {
          T v;
          element(p.b, b0 + (i64)l * p.b.rows + (i64)j * p.b.columns, v);
          return v;
        });
    if (p.splits > 1) {
      T* to = (T*)p.c.at + ((i64)split * p.count + batch) * p.m * p.n;
      each_result(total, p.m, p.n, row0, column0, [&](u32 i, u32 j, T v) { to[(i64)i * p.n + j] = v; });
    } else {
      i64 c0 = batch_place(p, p.c, batch);
      each_result(total, p.m, p.n, row0, column0, [&](u32 i, u32 j, T v) { finish(p, c0, i, j, v); });
    }
  }
}

// The sums of splits, in order, a thread to a result. `a` has the parts.
template <class T>
__device__ __forceinline__ void add_splits(const Product& p) {
  if (((const Fault*)p.fault)->set) return;
  u32 place = thread_index(), batch = blockIdx.y;
  if (place >= p.m * p.n) return;
  T v = 0;
#pragma unroll 1
  for (u32 split = 0; split < p.splits; split++) {
    T part = ((const T*)p.a.at)[((i64)split * p.count + batch) * p.m * p.n + place];
    v = split == 0 ? part : plus(v, part);
  }
  finish(p, batch_place(p, p.c, batch), place / p.n, place % p.n, v);
}

#define PRODUCT(SUFFIX, TYPE)                                                                              \
  extern "C" __global__ void __launch_bounds__(256) product##SUFFIX(const __grid_constant__ Product p) {   \
    multiply<TYPE>(p);                                                                                     \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                                        \
      sum_of_splits##SUFFIX(const __grid_constant__ Product p) {                                           \
    add_splits<TYPE>(p);                                                                                   \
  }
PRODUCT(, float)
PRODUCT(_of_integers, int)
