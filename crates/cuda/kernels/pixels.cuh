// Images as operands of tensor cores: no patches in memory. Chunks are of 8 channels, under one tap of one pixel.
#pragma once
#include "images.cuh"
#include "tensor.cuh"

// A pixel by its number.
__device__ __forceinline__ void pixel(const TensorConv& p, u32 number, u32 (&at)[3]) {
  u32 rest = p.pixels[0].quotient(number);
  at[2] = number - rest * p.pixels[0].by;
  at[0] = p.pixels[1].quotient(rest);
  at[1] = rest - at[0] * p.pixels[1].by;
}

// What of a pixel's place in an image is due to a tap and a channel.
struct Under {
  u32 y, x;
  i64 at;

  __device__ __forceinline__ Under(const Source& of, u32 place) {
    u32 tap = of.channels.quotient(place), channel = place - tap * of.channels.by;
    u32 ky = of.taps.quotient(tap), kx = tap - ky * of.taps.by;
    y = of.first[0] + ky * of.reach[0];
    x = of.first[1] + kx * of.reach[1];
    at = (i64)(int)y * of.rows + (i64)(int)x * of.columns + channel;
  }
};

// Rows are pixels, places (tap, channel). A thread has the same pixels in all stages, and a chunk of each.
template <u32 OUTER>
struct PixelRows {
  using S = Stage<OUTER, true>;
  static constexpr u32 EACH = S::EACH;
  static constexpr bool WHOLE = true, inner = true;
  const Source& of;
  const u16* from;
  u32 there;
  u32 y[EACH], x[EACH];
  i64 at[EACH];

  __device__ __forceinline__ PixelRows(const TensorConv& p, u32 group, u32 row)
      : of(p.source), from((const u16*)of.at + group * of.groups), there(0) {
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      u32 number = row + line(i), at3[3];
      pixel(p, number, at3);
      if (number < p.p.m) there |= 1u << i;
      y[i] = at3[1] * of.step[0];
      x[i] = at3[2] * of.step[1];
      at[i] = (i64)at3[0] * of.images + (i64)y[i] * of.rows + (i64)x[i] * of.columns;
    }
  }

  static __device__ __forceinline__ u32 line(u32 i) { return (threadIdx.x + i * THREADS) / S::CHUNKS; }
  static __device__ __forceinline__ u32 chunk() { return threadIdx.x % S::CHUNKS; }
  static __device__ __forceinline__ u32 offset(u32 i) { return S::offset(line(i), chunk()); }

  template <class F>
  __device__ __forceinline__ void each(u32 first, u32 last, F f) const {
    u32 place = first + chunk() * 8;
    Under tap(of, place);
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      // Above and left of the image it wraps, and is beyond its edges as well.
      bool within = (place < last) & (there >> i & 1) & (y[i] + tap.y < of.height) & (x[i] + tap.x < of.width);
      f(i, offset(i), from + (within ? at[i] + tap.at : 0), within ? 8u : 0u);
    }
  }
};

// Places are pixels, columns are (tap, channel). A thread has the same chunk of them in all stages.
template <u32 OUTER>
struct PixelPlaces {
  using S = Stage<OUTER, false>;
  static constexpr u32 EACH = S::EACH;
  static constexpr bool WHOLE = true, inner = false;
  const TensorConv& p;
  const Source& of;
  const u16* from;
  bool there;
  Under tap;

  __device__ __forceinline__ PixelPlaces(const TensorConv& p, u32 group, u32 column)
      : p(p), of(p.source), from((const u16*)of.at + group * of.groups), there(column + chunk() * 8 < p.p.n),
        tap(of, column + chunk() * 8) {}

  static __device__ __forceinline__ u32 line(u32 i) { return (threadIdx.x + i * THREADS) / S::CHUNKS; }
  static __device__ __forceinline__ u32 chunk() { return threadIdx.x % S::CHUNKS; }
  static __device__ __forceinline__ u32 offset(u32 i) { return S::offset(line(i), chunk()); }

  template <class F>
  __device__ __forceinline__ void each(u32 first, u32 last, F f) const {
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      u32 place = first + line(i), at[3];
      pixel(p, place, at);
      u32 y = at[1] * of.step[0], x = at[2] * of.step[1];
      bool within = there & (place < last) & (y + tap.y < of.height) & (x + tap.x < of.width);
      i64 under = (i64)at[0] * of.images + (i64)y * of.rows + (i64)x * of.columns + tap.at;
      f(i, offset(i), from + (within ? under : 0), within ? 8u : 0u);
    }
  }
};

// A matrix of whole chunks: of places side by side, or else of rows of A.
template <u32 OUTER, bool INNER>
struct Lines {
  using S = Stage<OUTER, INNER>;
  static constexpr u32 EACH = S::EACH;
  static constexpr bool WHOLE = true, inner = INNER;
  const u16* from;
  i64 stride;  // of lines
  u32 outer;   // how many rows or columns there are

  static __device__ __forceinline__ u32 line(u32 i) { return (threadIdx.x + i * THREADS) / S::CHUNKS; }
  static __device__ __forceinline__ u32 chunk() { return threadIdx.x % S::CHUNKS; }
  static __device__ __forceinline__ u32 offset(u32 i) { return S::offset(line(i), chunk()); }

  template <class F>
  __device__ __forceinline__ void each(u32 first, u32 last, F f) const {
    u32 along = chunk() * 8 + (INNER ? first : 0);
    bool there = along < (INNER ? last : outer);
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      u32 across = line(i) + (INNER ? 0 : first);
      bool within = there & (across < (INNER ? outer : last));
      i64 at = (i64)across * stride + along;
      f(i, offset(i), from + (within ? at : 0), within ? 8u : 0u);
    }
  }
};

// Where results are: those of a pixel of a group, or of an output channel.
struct PixelResults {
  const TensorConv& p;

  __device__ __forceinline__ i64 place(u32 row) const {
    u32 at[3];
    p.rows.parts(row, at);
    return p.rows.at(at);
  }
  __device__ __forceinline__ bool is_by_4() const {
    return (p.rows.strides[0] | p.rows.strides[1] | p.rows.strides[2]) % 4 == 0;
  }
  __device__ __forceinline__ u32 output(u32 group, u32 column) const { return group * p.p.n + column; }
};

// Pixels by weights, whose places lie side by side: the convolution, and its gradient by the input.
struct ByWeights : PixelResults {
  template <u32 OUTER>
  __device__ __forceinline__ PixelRows<OUTER> a(u32 group, u32 row) const {
    return PixelRows<OUTER>(p, group, row);
  }
  template <u32 OUTER>
  __device__ __forceinline__ Lines<OUTER, true> b(u32 group, u32 column) const {
    const Matrix& b = p.p.b;
    return {(const u16*)b.at + group * b.batches[0] + (i64)column * b.columns, b.columns, p.p.n - column};
  }
};

// The output's gradient, whose channels lie side by side, by pixels: the gradient by the weight.
struct ByPixels : PixelResults {
  template <u32 OUTER>
  __device__ __forceinline__ Lines<OUTER, false> a(u32 group, u32 row) const {
    const Matrix& a = p.p.a;
    return {(const u16*)a.at + group * a.batches[0] + row, a.columns, p.p.m - row};
  }
  template <u32 OUTER>
  __device__ __forceinline__ PixelPlaces<OUTER> b(u32 group, u32 column) const {
    return PixelPlaces<OUTER>(p, group, column);
  }
};

#define TENSOR_CONV(NAME, DTYPE, SIZE)                                                                            \
  extern "C" __global__ void __launch_bounds__(128) conv_##NAME##_##SIZE(const __grid_constant__ TensorConv p) {   \
    TensorProduct<DTYPE, SIZE, SIZE>::run(p.p, ByWeights{{p}});                                                   \
  }                                                                                                               \
  extern "C" __global__ void __launch_bounds__(128)                                                               \
      weight_##NAME##_##SIZE(const __grid_constant__ TensorConv p) {                                              \
    TensorProduct<DTYPE, SIZE, SIZE>::run(p.p, ByPixels{{p}});                                                    \
  }
