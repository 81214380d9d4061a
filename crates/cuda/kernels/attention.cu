// Scaled dot-product attention without a T × S matrix. A warp has a query (or in a gradient by keys, a key): its lanes
// take 32 keys at a time, each the score of one, and then 32 features each of the sum over keys. The running largest
// score rescales what is there, as in FlashAttention (Dao et al. 2022). Of heads with more features, each block has 256,
// and computes the scores anew.
//
// Shapes: q [..., T, D], k [..., S, D], v [..., S, E] of any strides and float dtypes; heads of q a multiple of those
// of k and v.
// Tiling: a block has 4 queries or keys, a warp each, and takes 32 keys or queries at a time; 256 features to a
// block.
// Needs: at most 56 registers to a thread, no shared memory.
// Checked against: attention of the reference, a matrix of scores in f64.
#include "attention.cuh"

constexpr u32 PARTS = 8, FEATURES = 32 * PARTS;

extern "C" __global__ void __launch_bounds__(128) attend(const __grid_constant__ Attention p) {
  if (((const Fault*)p.fault)->set) return;
  u32 lane = threadIdx.x % 32, warps = blockDim.x / 32, first = blockIdx.y * FEATURES;
  u64 number = (u64)blockIdx.x * warps + threadIdx.x / 32;
  // All lanes of a warp have the same query.
  if (number >= (u64)p.samples * p.heads * p.t) return;
  u32 flat = (u32)(number / p.t), query = (u32)(number % p.t);
  Head h = head_of(p, flat);
  float most, total;
  attend_to_all<ANY, PARTS>(p, h, flat, query, first, lane, most, total);
  if (lane == 0 && first == 0) ((float*)p.lse)[number] = log_sum_exp(most, total);
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
