// Scaled dot-product attention without a T × S matrix. A warp has a query (or in a gradient by keys, a key): its lanes
// take 32 keys at a time, each the score of one, and then 32 features each of the sum over keys. The running largest
// score rescales what is there, as in FlashAttention (Dao et al. 2022). Of heads with more features, each block has 256,
// and computes the scores anew.
#include "functions.cuh"

constexpr u32 ALL = 0xffffffffu, PARTS = 8, FEATURES = 32 * PARTS;

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

__device__ __forceinline__ float element(const Matrices& m, u32 sample, u32 head, u32 row, u32 feature) {
  i64 at = (i64)sample * m.batch + (i64)head * m.head + (i64)row * m.row + (i64)feature * m.feature;
  return load(m.at, m.dtype, at);
}

__device__ __forceinline__ void put(const Matrices& m, u32 sample, u32 head, u32 row, u32 feature, float v) {
  i64 at = (i64)sample * m.batch + (i64)head * m.head + (i64)row * m.row + (i64)feature * m.feature;
  store(m.at, m.dtype, at, v);
}

// The factor of a weight in training: 0 or 1/(1 − p).
__device__ __forceinline__ float kept(const Attention& p, u32 flat_head, u32 query, u32 key) {
  if (!p.drops) return 1.0f;
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
  return (u64)bits < p.threshold ? 0.0f : p.kept;
}

// The score of a pair; minus infinity where the key is hidden.
__device__ __forceinline__ float score(const Attention& p, Head h, u32 query, u32 key) {
  if (key >= p.s || query >= p.t || (p.causal && key > query)) return -INFINITE;
  float added = 0.0f;
  if (p.mask_kind) {
    i64 at = (i64)h.sample * p.mask.batch + (i64)h.head * p.mask.head + (i64)query * p.mask.row +
             (i64)key * p.mask.feature;
    if (p.mask_kind == 1)
      added = ((const u8*)p.mask.at)[at] ? 0.0f : -INFINITE;
    else
      added = load(p.mask.at, p.mask.dtype, at);
    // Also where the score is NaN.
    if (added == -INFINITE) return added;
  }
  float sum = 0.0f;
#pragma unroll 1
  for (u32 f = 0; f < p.d; f++)
    sum = __fmaf_rn(element(p.q, h.sample, h.head, query, f), element(p.k, h.sample, h.key_head, key, f), sum);
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

extern "C" __global__ void __launch_bounds__(128) attend(const __grid_constant__ Attention p) {
  if (((const Fault*)p.fault)->set) return;
  u32 lane = threadIdx.x % 32, warps = blockDim.x / 32, first = blockIdx.y * FEATURES;
  u64 number = (u64)blockIdx.x * warps + threadIdx.x / 32;
  // All lanes of a warp have the same query.
  if (number >= (u64)p.samples * p.heads * p.t) return;
  u32 flat = (u32)(number / p.t), query = (u32)(number % p.t);
  Head h = head_of(p, flat);
  float most = -INFINITE, total = 0.0f, sums[PARTS];
#pragma unroll
  for (u32 i = 0; i < PARTS; i++) sums[i] = 0.0f;
  u32 keys = p.causal ? min(p.s, query + 1) : p.s;
#pragma unroll 1
  for (u32 start = 0; start < keys; start += 32) {
    float here = score(p, h, query, start + lane);
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
          sums[i] = __fmaf_rn(w, element(p.v, h.sample, h.key_head, start + j, f), sums[i]);
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
  // Infinite where no key is seen, from which weights follow as 0; of a score that is infinite there are no weights.
  if (lane == 0 && first == 0) {
    double lse = (double)most + log((double)total);
    float value = none ? INFINITE : most == INFINITE ? NOT_A_NUMBER : __double2float_rn(lse);
    ((float*)p.lse)[number] = value;
  }
}

// The weight of a pair, from the saved log-sum-exp.
__device__ __forceinline__ float weight_of(float score, float lse) {
  return score == -INFINITE ? 0.0f : exp_of(__fsub_rn(score, lse));
}

// The gradient of a weight: of what it multiplies, times what dropout made of it.
__device__ __forceinline__ float slope_of(const Attention& p, Head h, u32 query, u32 key, float keeps) {
  float sum = 0.0f;
#pragma unroll 1
  for (u32 f = 0; f < p.e; f++)
    sum = __fmaf_rn(element(p.g, h.sample, h.head, query, f), element(p.v, h.sample, h.key_head, key, f), sum);
  return __fmul_rn(sum, keeps);
}

// The gradient by queries, and the sums that both gradients need.
extern "C" __global__ void __launch_bounds__(128) attend_backward_queries(const __grid_constant__ Attention p) {
  if (((const Fault*)p.fault)->set) return;
  u32 lane = threadIdx.x % 32, warps = blockDim.x / 32, first = blockIdx.y * FEATURES;
  u64 number = (u64)blockIdx.x * warps + threadIdx.x / 32;
  if (number >= (u64)p.samples * p.heads * p.t) return;
  u32 flat = (u32)(number / p.t), query = (u32)(number % p.t);
  Head h = head_of(p, flat);
  float lse = ((const float*)p.lse)[number], sum = 0.0f, sums[PARTS];
  u32 keys = p.causal ? min(p.s, query + 1) : p.s;
#pragma unroll 1
  for (u32 start = 0; start < keys; start += 32) {
    u32 key = start + lane;
    float here = score(p, h, query, key);
    if (here != -INFINITE)
      sum = __fmaf_rn(weight_of(here, lse), slope_of(p, h, query, key, kept(p, flat, query, key)), sum);
  }
  float mean = sum_of_warp(sum);
  if (lane == 0 && first == 0) ((float*)p.means)[number] = mean;
#pragma unroll
  for (u32 i = 0; i < PARTS; i++) sums[i] = 0.0f;
#pragma unroll 1
  for (u32 start = 0; start < keys; start += 32) {
    u32 key = start + lane;
    float here = score(p, h, query, key), slope = 0.0f;
    if (here != -INFINITE) {
      float by = slope_of(p, h, query, key, kept(p, flat, query, key));
      slope = __fmul_rn(__fmul_rn(weight_of(here, lse), __fsub_rn(by, mean)), p.scale);
    }
    u32 seen = __ballot_sync(ALL, here != -INFINITE);
#pragma unroll
    for (u32 i = 0; i < PARTS; i++) {
      if (first + i * 32 >= p.d) break;
      u32 f = first + i * 32 + lane;
#pragma unroll 1
      for (u32 j = 0; j < min(32, keys - start); j++) {
        float w = __shfl_sync(ALL, slope, j);
        if ((seen >> j & 1u) && f < p.d)
          sums[i] = __fmaf_rn(w, element(p.k, h.sample, h.key_head, start + j, f), sums[i]);
      }
    }
  }
#pragma unroll
  for (u32 i = 0; i < PARTS; i++) {
    u32 f = first + i * 32 + lane;
    if (f < p.d) put(p.dq, h.sample, h.head, query, f, sums[i]);
  }
}

// The gradients by keys and values: a warp has a key, and goes through the queries of all heads that share it, in order.
extern "C" __global__ void __launch_bounds__(128) attend_backward_keys(const __grid_constant__ Attention p) {
  if (((const Fault*)p.fault)->set) return;
  u32 lane = threadIdx.x % 32, warps = blockDim.x / 32, key_heads = p.heads / p.shared, first = blockIdx.y * FEATURES;
  u64 number = (u64)blockIdx.x * warps + threadIdx.x / 32;
  if (number >= (u64)p.samples * key_heads * p.s) return;
  u32 flat = (u32)(number / p.s), key = (u32)(number % p.s), sample = flat / key_heads, key_head = flat % key_heads;
  float by_key[PARTS], by_value[PARTS];
#pragma unroll
  for (u32 i = 0; i < PARTS; i++) by_key[i] = by_value[i] = 0.0f;
#pragma unroll 1
  for (u32 head = key_head * p.shared; head < (key_head + 1) * p.shared; head++) {
    Head h{sample, head, key_head};
    u32 of_q = sample * p.heads + head;
#pragma unroll 1
    for (u32 start = p.causal ? key / 32 * 32 : 0; start < p.t; start += 32) {
      u32 query = start + lane;
      float here = score(p, h, query, key), weight = 0.0f, slope = 0.0f;
      if (here != -INFINITE) {
        u64 row = (u64)of_q * p.t + query;
        float keeps = kept(p, of_q, query, key), all = weight_of(here, ((const float*)p.lse)[row]);
        float by = slope_of(p, h, query, key, keeps);
        weight = __fmul_rn(all, keeps);
        slope = __fmul_rn(__fmul_rn(all, __fsub_rn(by, ((const float*)p.means)[row])), p.scale);
      }
      u32 seen = __ballot_sync(ALL, here != -INFINITE);
#pragma unroll
      for (u32 i = 0; i < PARTS; i++) {
        if (first + i * 32 >= max(p.d, p.e)) break;
        u32 f = first + i * 32 + lane;
#pragma unroll 1
        for (u32 j = 0; j < min(32, p.t - start); j++) {
          float of_key = __shfl_sync(ALL, slope, j), of_value = __shfl_sync(ALL, weight, j);
          if (!(seen >> j & 1u)) continue;
          if (f < p.d) by_key[i] = __fmaf_rn(of_key, element(p.q, sample, head, start + j, f), by_key[i]);
          if (f < p.e) by_value[i] = __fmaf_rn(of_value, element(p.g, sample, head, start + j, f), by_value[i]);
        }
      }
    }
  }
#pragma unroll
  for (u32 i = 0; i < PARTS; i++) {
    u32 f = first + i * 32 + lane;
    if (f < p.d) put(p.dk, sample, key_head, key, f, by_key[i]);
    if (f < p.e) put(p.dv, sample, key_head, key, f, by_value[i]);
  }
}
