// Attention: what kernels with a warp to a query (`attention.cu`) and on tensor cores (`attention_tiles.cuh`) share.
#pragma once
#include "functions.cuh"

constexpr u32 ALL = 0xffffffffu, ANY = 0xffu, ANY_16 = 0xfeu;

struct Matrices {
  u64 at;
  u32 dtype;
  u32 unused;
  i64 batch;  // strides of the flat sample, the head, the row and the feature
  i64 head;
  i64 row;
  i64 feature;
};

struct Attention {
  u64 fault;
  u32 samples, heads, shared;  // heads of q; how many of them share one of k and v
  u32 t, s, d, e;
  u32 causal;
  u32 mask_kind;  // 0 none, 1 bool, 2 float
  u32 drops;
  float scale;
  float kept;     // 1/(1 − p)
  u64 threshold;
  u32 key[2];
  u32 operation;
  u32 iteration[2];
  u32 unused;
  Matrices q, k, v, out, mask;
  Matrices g, dq, dk, dv;
  u64 lse;        // f32 [samples, heads, T]
  u64 means;      // f32, as lse: sums of weights times their gradients
};

struct Head {
  u32 sample, head, key_head;
};

// An element of a format that is known, or else of the matrices' own: any, or any of 16 bit.
template <u32 DTYPE = ANY>
__device__ __forceinline__ float element(const Matrices& m, u32 sample, u32 head, u32 row, u32 feature) {
  i64 at = (i64)sample * m.batch + (i64)head * m.head + (i64)row * m.row + (i64)feature * m.feature;
  if (DTYPE == ANY) return load(m.at, m.dtype, at);
  return load(m.at, DTYPE != ANY_16 ? DTYPE : m.dtype == F16 ? F16 : BF16, at);
}

__device__ __forceinline__ void put(const Matrices& m, u32 sample, u32 head, u32 row, u32 feature, float v) {
  i64 at = (i64)sample * m.batch + (i64)head * m.head + (i64)row * m.row + (i64)feature * m.feature;
  store(m.at, m.dtype, at, v);
}

// Whether a weight is dropped in training.
__device__ __forceinline__ bool is_dropped(const Attention& p, u32 flat_head, u32 query, u32 key) {
  if (!p.drops) return false;
  u64 element = ((u64)flat_head * p.t + query) * p.s + key;
  u32 c0 = (u32)(element / 4), c1 = p.operation, c2 = p.iteration[0], c3 = p.iteration[1];
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
  u32 i = (u32)element % 4, bits = i == 0 ? c0 : i == 1 ? c1 : i == 2 ? c2 : c3;
  return (u64)bits < p.threshold;
}

// The factor of a weight in training: 0 or 1/(1 − p).
__device__ __forceinline__ float kept(const Attention& p, u32 flat_head, u32 query, u32 key) {
  if (!p.drops) return 1.0f;
  return is_dropped(p, flat_head, query, key) ? 0.0f : p.kept;
}

// What a mask adds to the score of a pair; minus infinity where the key is hidden.
__device__ __forceinline__ float added_to(const Attention& p, i64 at) {
  if (p.mask_kind == 1) return ((const u8*)p.mask.at)[at] ? 0.0f : -INFINITE;
  return load(p.mask.at, p.mask.dtype, at);
}

// The score of a pair; minus infinity where the key is hidden.
template <u32 DTYPE = ANY>
__device__ __forceinline__ float score(const Attention& p, Head h, u32 query, u32 key) {
  if (key >= p.s || query >= p.t || (p.causal && key > query)) return -INFINITE;
  float added = 0.0f;
  if (p.mask_kind) {
    i64 at = (i64)h.sample * p.mask.batch + (i64)h.head * p.mask.head + (i64)query * p.mask.row +
             (i64)key * p.mask.feature;
    added = added_to(p, at);
    // Also where the score is NaN.
    if (added == -INFINITE) return added;
  }
  float sum = 0.0f;
#pragma unroll 1
  for (u32 f = 0; f < p.d; f++)
    sum = __fmaf_rn(element<DTYPE>(p.q, h.sample, h.head, query, f),
                    element<DTYPE>(p.k, h.sample, h.key_head, key, f), sum);
  return __fadd_rn(__fmul_rn(sum, p.scale), added);
}

__device__ __forceinline__ float largest_of_warp(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v = larger(v, __shfl_xor_sync(ALL, v, step));
  return v;
}

__device__ __forceinline__ float sum_of_warp(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(ALL, v, step));
  return v;
}

__device__ __forceinline__ Head head_of(const Attention& p, u32 flat) {
  u32 head = flat % p.heads;
  return Head{flat / p.heads, head, head / p.shared};
}

// PARTS · 32 features from `first` on of a query's result, by a warp. Gives the largest score and the sum of weights.
template <u32 DTYPE, u32 PARTS>
__device__ __forceinline__ void attend_to_all(const Attention& p, Head h, u32 flat, u32 query, u32 first, u32 lane,
                                              float& most, float& total) {
  most = -INFINITE, total = 0.0f;
  float sums[PARTS];
#pragma unroll
  for (u32 i = 0; i < PARTS; i++) sums[i] = 0.0f;
  u32 keys = p.causal ? min(p.s, query + 1) : p.s;
#pragma unroll 1
  for (u32 start = 0; start < keys; start += 32) {
    float here = score<DTYPE>(p, h, query, start + lane);
    float next = larger(most, largest_of_warp(here));
    float weight = here == -INFINITE ? 0.0f : exp_of(__fsub_rn(here, next));
    // Nothing is there to be rescaled before the first key that is seen.
    float by = most == -INFINITE ? 0.0f : exp_of(__fsub_rn(most, next));
    total = __fmaf_rn(total, by, sum_of_warp(weight));
    most = next;
    float drawn = weight == 0.0f ? 0.0f : __fmul_rn(weight, kept(p, flat, query, start + lane));
    u32 seen = __ballot_sync(ALL, here != -INFINITE);
#pragma unroll
    for (u32 i = 0; i < PARTS; i++) {
      if (first + i * 32 >= p.e) break;
      u32 f = first + i * 32 + lane;
      sums[i] = __fmul_rn(sums[i], by);
#pragma unroll 1
      for (u32 j = 0; j < min(32, keys - start); j++) {
        float w = __shfl_sync(ALL, drawn, j);
        if ((seen >> j & 1u) && f < p.e)
          sums[i] = __fmaf_rn(w, element<DTYPE>(p.v, h.sample, h.key_head, start + j, f), sums[i]);
      }
    }
  }
  // A query that sees no key gives zeros.
  bool none = most == -INFINITE;
#pragma unroll
  for (u32 i = 0; i < PARTS; i++) {
    u32 f = first + i * 32 + lane;
    if (f < p.e) put(p.out, h.sample, h.head, query, f, none ? 0.0f : __fdiv_rn(sums[i], total));
  }
}

// The logarithm of the sum of the exponentials of a query's scores. Infinite where no key is seen, from which weights
// follow as 0; of a score that is infinite there are no weights.
__device__ __forceinline__ float log_sum_exp(float most, float total) {
  double lse = (double)most + log((double)total);
  return most == -INFINITE ? INFINITE : most == INFINITE ? NOT_A_NUMBER : __double2float_rn(lse);
}
