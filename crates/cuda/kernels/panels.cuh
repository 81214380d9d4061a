// Matrices as operands of tensor cores: with places or with rows (of A; columns of B) side by side, in lines that begin
// at multiples of 16 bytes. Any other goes to `product.cu`.
#pragma once
#include "tensor.cuh"

// An operand of a block: its first row or column, the strides of those and of places, how many there are from there
// on, and whether places are side by side.
template <u32 OUTER>
struct Panel {
  static constexpr u32 EACH = Stage<OUTER, true>::EACH;
  static constexpr bool WHOLE = false;
  const u16* from;
  i64 of_outer, of_places;
  u32 outer;
  bool inner;

  template <class S, class F>
  __device__ __forceinline__ void each_of(const u16* from, i64 stride, u32 places, F f) const {
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      u32 e = threadIdx.x + i * THREADS, line = e / S::CHUNKS, chunk = e % S::CHUNKS;
      u32 there = S::there(line, chunk, outer, places);
      f(i, S::offset(line, chunk), there ? from + (i64)line * stride + chunk * 8 : from, there);
    }
  }

  // Calls f(which of the thread's, where it goes, where it lies, how many elements are there) of each chunk.
  template <class F>
  __device__ __forceinline__ void each(u32 first, u32 last, F f) const {
    const u16* at = from + (i64)first * of_places;
    u32 places = last > first ? last - first : 0;
    if (inner)
      each_of<Stage<OUTER, true>>(at, of_outer, places, f);
    else
      each_of<Stage<OUTER, false>>(at, of_places, places, f);
  }

  __device__ __forceinline__ u32 offset(u32 i) const {
    using Inner = Stage<OUTER, true>;
    using Outer = Stage<OUTER, false>;
    u32 e = threadIdx.x + i * THREADS;
    return inner ? Inner::offset(e / Inner::CHUNKS, e % Inner::CHUNKS)
                 : Outer::offset(e / Outer::CHUNKS, e % Outer::CHUNKS);
  }
};

// The operands and the result of a product.
struct Matrices {
  const Product& p;

  template <u32 OUTER>
  __device__ __forceinline__ Panel<OUTER> a(u32 batch, u32 row) const {
    const u16* from = (const u16*)p.a.at + batch_place(p, p.a, batch) + (i64)row * p.a.rows;
    return {from, p.a.rows, p.a.columns, p.m - row, p.inner[0] != 0};
  }
  template <u32 OUTER>
  __device__ __forceinline__ Panel<OUTER> b(u32 batch, u32 column) const {
    const u16* from = (const u16*)p.b.at + batch_place(p, p.b, batch) + (i64)column * p.b.columns;
    return {from, p.b.columns, p.b.rows, p.n - column, p.inner[1] != 0};
  }
  __device__ __forceinline__ i64 place(u32 row) const { return (i64)row * p.c.rows; }
  __device__ __forceinline__ bool is_by_4() const { return p.c.rows % 4 == 0; }
  // Which bias a column has.
  __device__ __forceinline__ u32 output(u32, u32 column) const { return column; }
};

#define TENSOR_PRODUCT(NAME, DTYPE, SIZE)                                                                   \
  extern "C" __global__ void __launch_bounds__(128) NAME##_##SIZE(const __grid_constant__ Product p) {      \
    TensorProduct<DTYPE, SIZE, SIZE>::run(p, Matrices{p});                                                  \
  }
