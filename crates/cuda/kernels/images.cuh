// Images as operands and results of contractions on tensor cores: where their elements lie.
#pragma once
#include "product.cuh"

// Divides numbers below 2³¹ by one that the host knows: by a product (Granlund and Montgomery, 1994).
struct Divisor {
  u32 by, multiplier, shift;

  // A multiplier of 0 stands for 2³².
  __device__ __forceinline__ u32 quotient(u32 n) const {
    return (__umulhi(n, multiplier) + (multiplier == 0 ? n : 0u)) >> shift;
  }
};

// A number as three, the last running fastest, and how far elements lie apart in each.
struct Places {
  Divisor by[2];  // how many of the last there are, and of the one before
  u32 limit;      // of the last: from there on there is nothing
  u32 unused;
  i64 strides[3];

  __device__ __forceinline__ void parts(u32 n, u32 (&part)[3]) const {
    u32 rest = by[0].quotient(n);
    part[2] = n - rest * by[0].by;
    part[0] = by[1].quotient(rest);
    part[1] = rest - part[0] * by[1].by;
  }
  __device__ __forceinline__ i64 at(const u32 (&part)[3]) const {
    return (i64)part[0] * strides[0] + (i64)part[1] * strides[1] + (i64)part[2] * strides[2];
  }
};

// An image whose channels lie side by side, as a contraction reads it: under tap t of pixel i it has row
// step · i + first + reach · t, and zeros beyond its edges; columns likewise.
struct Source {
  u64 at;
  i64 groups, images, rows, columns;  // strides
  u32 height, width;
  u32 step[2];
  int first[2], reach[2];
  Divisor channels, taps;             // of a group, a multiple of 8; taps beside each other
};

// A convolution: pixels by weights [group][column][tap, channel], or an output's gradient [pixel][group, channel] by
// pixels. Rows of results are pixels or output channels, columns are channels or (tap, channel).
struct TensorConv {
  Product p;          // batches are groups; `a` is that gradient, `b` the weights
  Source source;      // the pixels
  Divisor pixels[2];  // how many beside each other there are, and below each other
  Places rows, columns;
};
