// Random numbers, dropout and stochastic rounding: Philox4x32-10 by counter, so that every device draws the same.
//
// Shapes: tensors of any shape and strides, of which each element has its own number.
// Tiling: none: a thread has an element, and the next one a grid further on.
// Needs: at most 36 registers to a thread, no shared memory.
// Checked against: draws of the reference, one number at a time, and the CPU's bits.
#include "elementwise.cuh"

struct Draw {
  u64 fault;
  u64 first;  // place of the first element, of outputs that are drawn in parts
  u64 out;
  u64 in;
  u32 dtype;
  u32 in_dtype;
  u32 n;
  u32 rank;
  u32 extents[MAX_RANK];
  i64 strides[MAX_RANK];      // of the operand
  i64 out_strides[MAX_RANK];
  u32 key[2];
  u32 operation;
  u32 iteration[2];
  float scale;
  u64 threshold;
  double low, span;
};

struct Words {
  u32 w[4];
};

__device__ __forceinline__ Words philox(const Draw& p, u32 block) {
  u32 c0 = block, c1 = p.operation, c2 = p.iteration[0], c3 = p.iteration[1];
  u32 k0 = p.key[0], k1 = p.key[1];
#pragma unroll 1
  for (int round = 0; round < 10; round++) {
    if (round > 0) {
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    u64 a = (u64)0xD2511F53u * c0, b = (u64)0xCD9E8D57u * c2;
    u32 next0 = (u32)(b >> 32) ^ c1 ^ k0, next2 = (u32)(a >> 32) ^ c3 ^ k1;
    c1 = (u32)b;
    c3 = (u32)a;
    c0 = next0;
    c2 = next2;
  }
  return Words{{c0, c1, c2, c3}};
}

// 32 random bits of an element.
__device__ __forceinline__ u32 bits_of(const Draw& p, u64 element) {
  Words words = philox(p, (u32)(element / 4));
  u32 i = (u32)element % 4;
  return i == 0 ? words.w[0] : i == 1 ? words.w[1] : i == 2 ? words.w[2] : words.w[3];
}

__device__ __forceinline__ void offsets(const Draw& p, u32 i, i64& in, i64& out) {
  in = out = 0;
#pragma unroll 1
  for (u32 d = p.rank - 1; d > 0; d--) {
    u32 rest = i / p.extents[d], here = i - rest * p.extents[d];
    in += (i64)here * p.strides[d];
    out += (i64)here * p.out_strides[d];
    i = rest;
  }
  in += (i64)i * p.strides[0];
  out += (i64)i * p.out_strides[0];
}

#define DRAW(NAME, ...)                                                                       \
  extern "C" __global__ void __launch_bounds__(256) NAME(const __grid_constant__ Draw p) {    \
    if (((const Fault*)p.fault)->set) return;                                                 \
    for (u32 i = thread_index(); i < p.n; i += thread_count()) {                              \
      i64 in, out;                                                                            \
      offsets(p, i, in, out);                                                                 \
      u64 element = p.first + i;                                                              \
      __VA_ARGS__                                                                             \
    }                                                                                         \
  }

DRAW(dropout, {
  float x = load(p.in, p.in_dtype, in);
  store(p.out, p.dtype, out, (u64)bits_of(p, element) < p.threshold ? 0.0f : __fmul_rn(x, p.scale));
})

DRAW(uniform, {
  float u = __fmul_rn(__uint2float_rn(bits_of(p, element) >> 8), 1.0f / 16777216.0f);
  store_wide(p.out, p.dtype, out, __dadd_rn(p.low, __dmul_rn(p.span, (double)u)));
})

// Box and Muller; two words per element.
DRAW(normal, {
  Words words = philox(p, (u32)(element / 2));
  u32 a = element % 2 ? words.w[2] : words.w[0];
  u32 b = element % 2 ? words.w[3] : words.w[1];
  double u = ((double)a + 1.0) / 4294967296.0;
  double angle = 6.28318530717958647693 * ((double)b / 4294967296.0);
  double radius = sqrt(-2.0 * log(u));
  store_wide(p.out, p.dtype, out, __dadd_rn(p.low, __dmul_rn(p.span, radius * cos(angle))));
})

// The part of the width that 64 bits are of 2^64, beyond the lowest; two words per element. Both numbers are bits.
DRAW(integers, {
  Words words = philox(p, (u32)(element / 2));
  u64 high = element % 2 ? words.w[2] : words.w[0], low = element % 2 ? words.w[3] : words.w[1];
  u64 place = __umul64hi(high << 32 | low, (u64)__double_as_longlong(p.span));
  ((u64*)p.out)[out] = (u64)__double_as_longlong(p.low) + place;
})

// To the neighbour above in magnitude with the probability of the part that is dropped.
DRAW(stochastic, {
  u32 bits = __float_as_uint(load(p.in, p.in_dtype, in)), noise = bits_of(p, element);
  u32 magnitude = bits & 0x7fffffffu, code;
  if (p.dtype == BF16) {
    u32 up = (noise & 0xffffu) < (bits & 0xffffu) ? 1u : 0u;
    code = magnitude > 0x7f800000u ? (bits >> 16) | 0x40u : (bits >> 16) + up;
  } else {
    u32 sign = (bits >> 16) & 0x8000u, exponent = magnitude >> 23;
    u32 significand = (magnitude & 0x007fffffu) | 0x00800000u;
    u32 dropped = max(exponent < 126u ? 126u - exponent : 0u, 13u);
    u32 whole = (significand >> min(dropped, 31u)) + ((exponent > 113u ? exponent - 113u : 0u) << 10);
    u32 left = dropped < 32u ? 32u - dropped : 0u;
    u32 rest = (significand << left) >> min(dropped > 32u ? dropped - 32u : 0u, 31u);
    u32 up = (noise << left) < rest ? 1u : 0u;
    u32 value = magnitude < 0x47800000u ? whole + up : 0x7c00u;
    if (magnitude > 0x7f800000u) value = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    code = sign | value;
  }
  ((u16*)p.out)[out] = (u16)code;
})
