// Attention of 16-bit operands on tensor cores, with sums in f32. A block of four warps has 64 queries of a head, 16 to
// a warp, and goes through the keys in tiles. Of a tile it multiplies queries and keys, keeps the largest score and the
// sum of weights of each query, and multiplies weights and values, as FlashAttention-2 does (Dao, 2023).
//
// Queries, a tile of keys and a tile of values are in shared memory, in lines of SIZE features. Keys are copied while
// weights and values are multiplied, and values while queries and keys are: each has one place.
// Scores never leave their registers. A lane has two rows of sums, 8 apart, two neighbours in each fragment of 16 × 8;
// as the left operand of the second product it needs just those (PTX manual, m16n8k16).
//
// Weights are not rounded to 16 bit: they are sums of numbers that are, two of f16 and three of bf16, each of which is
// multiplied. Those of f16 are 2¹⁵ times as large meanwhile, so that small ones keep their digits.
// A value that is not finite makes NaN of a product with 0, also where its key is hidden. Queries whose sums are not
// finite are computed again, an element at a time.
#pragma once
#include "attention.cuh"
#include "tensor.cuh"

constexpr u32 QUERIES = 64, ROWS_OF_WARP = 16;

// Lines of SIZE features in shared memory. Their chunks of 16 bytes are exchanged: the eight that ldmatrix reads at a
// time, one of a line each, have all banks.
template <u32 LINES, u32 SIZE>
struct Lines {
  static constexpr u32 CHUNKS = SIZE / 8, EACH = LINES * CHUNKS / THREADS, BYTES = LINES * SIZE * 2;

  static __device__ __forceinline__ u32 offset(u32 line, u32 chunk) {
    return (line * CHUNKS + (chunk ^ line % 8)) * 16;
  }

  // Where the matrices of a fragment of 16 × 16 from (line, feature) on begin, a line of one for each lane: those of
  // lanes 0-7, 8-15 and so on are next to each other along lines and then along features, or the other way round.
  static __device__ __forceinline__ u32 fragment(u32 line, u32 feature, bool lines_first) {
    u32 lane = threadIdx.x % 32, first = lane / 8 % 2, second = lane / 16;
    line += (lines_first ? first : second) * 8 + lane % 8;
    return offset(line, feature / 8 + (lines_first ? second : first));
  }

#if __CUDA_ARCH__ >= 800
  // Begins to copy lines of so many features, a multiple of 8, and zeros behind them up to a multiple of 16.
  __device__ __forceinline__ void begin(u8* memory, const u16* from, i64 stride, u32 lines, u32 features) {
    u32 to = shared_address(memory), chunks = (features + 15) / 16 * 2;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < LINES * CHUNKS; i += THREADS) {
      u32 line = i / CHUNKS, chunk = i % CHUNKS;
      if (chunk >= chunks) continue;
      bool there = line < lines && chunk * 8 < features;
      copy_chunk(to + offset(line, chunk), there ? from + (i64)line * stride + chunk * 8 : from, there ? 8 : 0);
    }
  }
  __device__ __forceinline__ void finish(u8*, u32) const {}
#else
  uint4 held[EACH];

  __device__ __forceinline__ void begin(u8*, const u16* from, i64 stride, u32 lines, u32 features) {
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      // A thread has the same chunk of lines that lie THREADS / CHUNKS apart.
      u32 line = threadIdx.x / CHUNKS + i * (THREADS / CHUNKS), chunk = threadIdx.x % CHUNKS;
      held[i] = make_uint4(0, 0, 0, 0);
      if (line < lines && chunk * 8 < features) held[i] = *(const uint4*)(from + (i64)line * stride + chunk * 8);
    }
  }
  // Stores what was fetched.
  __device__ __forceinline__ void finish(u8* memory, u32 features) const {
    u32 chunks = (features + 15) / 16 * 2;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      u32 line = threadIdx.x / CHUNKS + i * (THREADS / CHUNKS), chunk = threadIdx.x % CHUNKS;
      if (chunk < chunks) *(uint4*)(memory + offset(line, chunk)) = held[i];
    }
  }
#endif
};

#if __CUDA_ARCH__ >= 800
// All copies but the last ones have arrived.
__device__ __forceinline__ void all_but_last() { wait_for_stages<1>(); }
// What has been read is written over next.
__device__ __forceinline__ void all_have_read() { __syncthreads(); }
#else
__device__ __forceinline__ void all_but_last() {}
__device__ __forceinline__ void end_of_stage() {}
// What was fetched is stored behind the next barrier.
__device__ __forceinline__ void all_have_read() {}
#endif

// Numbers of 16 bit that a weight is the sum of.
constexpr u32 PLANES = 3;
// How much larger weights of f16 are meanwhile.
constexpr float LARGER = 32768.0f;

// Two neighbours as such sums: of bf16 exactly, of f16 to 22 bits by the first two.
__device__ __forceinline__ void split(bool bf16, float a, float b, u32 (&to)[PLANES]) {
#pragma unroll
  for (u32 i = 0; i < PLANES; i++) {
    if (bf16) {
      // Cut, not rounded: what is left has 8 bits fewer each time.
      u32 low = __float_as_uint(a), high = __float_as_uint(b);
      to[i] = __byte_perm(low, high, 0x7632);
      a = __fsub_rn(a, __uint_as_float(low & 0xffff0000u));
      b = __fsub_rn(b, __uint_as_float(high & 0xffff0000u));
    } else if (i < 2) {
      u16 low = narrow_f16(a), high = narrow_f16(b);
      to[i] = (u32)high << 16 | low;
      a = __fsub_rn(a, widen_f16(low));
      b = __fsub_rn(b, widen_f16(high));
    } else {
      to[i] = 0;
    }
  }
}

__device__ __forceinline__ float largest_of_row(float v) {
  v = larger(v, __shfl_xor_sync(ALL, v, 1));
  return larger(v, __shfl_xor_sync(ALL, v, 2));
}

__device__ __forceinline__ float sum_of_row(float v) {
  v = __fadd_rn(v, __shfl_xor_sync(ALL, v, 1));
  return __fadd_rn(v, __shfl_xor_sync(ALL, v, 2));
}

// Of f16, or where there is BF16 of either.
template <bool BF16_TOO, u32 SIZE, u32 KEYS>
struct Attending {
  static constexpr u32 SCORES = KEYS / 8, RESULTS = SIZE / 8;
  using OfQueries = Lines<QUERIES, SIZE>;
  using OfKeys = Lines<KEYS, SIZE>;

  float scores[SCORES][4], sums[RESULTS][4];
  // Of the two rows.
  float most[2], total[2];
  bool bf16;

  // The products of a warp's queries with a tile of keys.
  template <u32 DTYPE>
  __device__ __forceinline__ void multiply_keys(const Attention& p, u32 queries, u32 keys, u32 row) {
#pragma unroll 1
    for (u32 f = 0; f < p.d; f += 16) {
      u32 a[4];
      load_matrices<true>(a, queries + OfQueries::fragment(row, f, true));
#pragma unroll
      for (u32 j = 0; j < SCORES / 2; j++) {
        u32 b[4];
        load_matrices<true>(b, keys + OfKeys::fragment(16 * j, f, false));
        multiply<DTYPE>(scores[2 * j], a, b[0], b[1]);
        multiply<DTYPE>(scores[2 * j + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ __forceinline__ void score_keys(const Attention& p, u32 queries, u32 keys, u32 row) {
#pragma unroll
    for (u32 j = 0; j < SCORES; j++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) scores[j][c] = 0.0f;
    if (bf16)
      multiply_keys<BF16>(p, queries, keys, row);
    else
      multiply_keys<F16>(p, queries, keys, row);
  }

  // The fragment of scores that was the first becomes the last: registers have no number that could be computed.
  __device__ __forceinline__ void move_up(const float (&last)[4]) {
#pragma unroll
    for (u32 c = 0; c < 4; c++) {
#pragma unroll
      for (u32 i = 0; i + 1 < SCORES; i++) scores[i][c] = scores[i + 1][c];
      scores[SCORES - 1][c] = last[c];
    }
  }

  // Scales scores, adds the mask, and hides keys: rows are queries from `first` on, keys those from `start` on. Gives
  // the largest of each row.
  __device__ __forceinline__ void finish_scores(const Attention& p, Head h, u32 first, u32 start, float (&largest)[2]) {
    u32 query = first + threadIdx.x % 32 / 4, key = start + threadIdx.x % 4 * 2, end[2];
    i64 masks[2];
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
      u32 row = query + 8 * r;
      end[r] = row >= p.t ? 0u : p.causal ? min(p.s, row + 1) : p.s;
      masks[r] = (i64)h.sample * p.mask.batch + (i64)h.head * p.mask.head + (i64)row * p.mask.row;
    }
#pragma unroll 1
    for (u32 j = 0; j < SCORES; j++, key += 8) {
      float here[4];
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        float added = 0.0f;
        bool hidden = key + c % 2 >= end[c / 2];
        if (!hidden && p.mask_kind) added = added_to(p, masks[c / 2] + (i64)(key + c % 2) * p.mask.feature);
        here[c] = __fadd_rn(__fmul_rn(scores[0][c], p.scale), added);
        // Also where the score is NaN.
        if (hidden || added == -INFINITE) here[c] = -INFINITE;
        largest[c / 2] = larger(largest[c / 2], here[c]);
      }
      move_up(here);
    }
  }

  // Adds products of weights with the values of two fragments.
  template <u32 DTYPE, u32 COUNT>
  __device__ __forceinline__ void add(u32 f, const u32 (&planes)[4][PLANES], const u32 (&b)[4]) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
      u32 a[4] = {planes[0][i], planes[1][i], planes[2][i], planes[3][i]};
      multiply<DTYPE>(sums[f], a, b[0], b[1]);
      multiply<DTYPE>(sums[f + 1], a, b[2], b[3]);
    }
  }

  // Weights of 16 keys at a time, and their products with values.
  __device__ __forceinline__ void multiply_values(const Attention& p, u32 flat, u32 values, u32 first, u32 start) {
    u32 query = first + threadIdx.x % 32 / 4, key = start + threadIdx.x % 4 * 2;
#pragma unroll 1
    for (u32 j = 0; j < KEYS; j += 16) {
      // Rows from 0 and from 8 on, then the same of the keys from 8 on.
      u32 planes[4][PLANES] = {};
#pragma unroll 1
      for (u32 half = 0; half < 2; half++, key += 8) {
        float weights[4];
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
          weights[c] = scores[0][c] == -INFINITE ? 0.0f : exp_of(__fsub_rn(scores[0][c], most[c / 2]));
          total[c / 2] = __fadd_rn(total[c / 2], weights[c]);
          if (!bf16) weights[c] = __fmul_rn(weights[c], LARGER);
        }
        u32 dropped = 0;
#pragma unroll 1
        for (u32 c = 0; c < (p.drops ? 4 : 0); c++)
          dropped |= (u32)is_dropped(p, flat, query + c / 2 * 8, key + c % 2) << c;
#pragma unroll
        for (u32 c = 0; c < 4; c++)
          if (dropped >> c & 1u) weights[c] = 0.0f;
#pragma unroll
        for (u32 r = 0; r < 2; r++) {
#pragma unroll
          for (u32 i = 0; i < PLANES; i++) planes[r][i] = planes[r + 2][i];
          split(bf16, weights[2 * r], weights[2 * r + 1], planes[r + 2]);
        }
        move_up(weights);
      }
#pragma unroll
      for (u32 f = 0; f < RESULTS / 2; f++) {
        if (16 * f >= p.e) break;
        u32 b[4];
        load_matrices<false>(b, values + OfKeys::fragment(j, 16 * f, true));
        if (bf16)
          add<BF16, 3>(2 * f, planes, b);
        else
          add<F16, 2>(2 * f, planes, b);
      }
    }
  }

  // Takes over the largest scores, and what is there is rescaled.
  __device__ __forceinline__ void rescale(const float (&largest)[2]) {
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
      float next = larger(most[r], largest_of_row(largest[r]));
      // Nothing is there to be rescaled before the first key that is seen.
      float by = most[r] == -INFINITE ? 0.0f : exp_of(__fsub_rn(most[r], next));
      most[r] = next;
      total[r] = __fmul_rn(total[r], by);
#pragma unroll
      for (u32 i = 0; i < RESULTS; i++) {
        sums[i][2 * r] = __fmul_rn(sums[i][2 * r], by);
        sums[i][2 * r + 1] = __fmul_rn(sums[i][2 * r + 1], by);
      }
    }
  }

  // Results of a warp, through the memory of its queries. Gives for each row whether a sum is not finite.
  __device__ __forceinline__ void store(const Attention& p, Head h, u8* memory, u32 first, u32 row,
                                        bool (&strange)[2]) {
    u32 lane = threadIdx.x % 32, wide = p.out.dtype == F32;
    i64 head = (i64)h.sample * p.out.batch + (i64)h.head * p.out.head;
    float all[2] = {0.0f, 0.0f};
    __syncwarp();
#pragma unroll 1
    for (u32 f = 0; 8 * f < p.e; f++) {
      float v[4];
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        u32 r = c / 2;
        float sum = bf16 ? sums[0][c] : __fmul_rn(sums[0][c], 1.0f / LARGER);
        all[r] = __fmaf_rn(sum, 0.0f, all[r]);
        // A query that sees no key gives zeros.
        v[c] = most[r] == -INFINITE ? 0.0f : __fmul_rn(__fdiv_rn(sum, total[r]), p.kept);
      }
#pragma unroll
      for (u32 r = 0; r < 2; r++) {
        u32 line = row + lane / 4 + 8 * r, feature = 8 * f + lane % 4 * 2;
        if (wide) {
          u64 at = p.out.at + 4 * (head + (i64)(first + lane / 4 + 8 * r) * p.out.row + feature);
          if (first + lane / 4 + 8 * r < p.t) *(float2*)at = make_float2(v[2 * r], v[2 * r + 1]);
        } else {
          u16 low = bf16 ? narrow_bf16(v[2 * r]) : narrow_f16(v[2 * r]);
          u16 high = bf16 ? narrow_bf16(v[2 * r + 1]) : narrow_f16(v[2 * r + 1]);
          *(u32*)(memory + OfQueries::offset(line, f) + lane % 4 * 4) = (u32)high << 16 | low;
        }
      }
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
#pragma unroll
        for (u32 i = 0; i + 1 < RESULTS; i++) sums[i][c] = sums[i + 1][c];
      }
    }
    strange[0] = all[0] != all[0] || !is_finite(total[0]);
    strange[1] = all[1] != all[1] || !is_finite(total[1]);
    if (wide) return;
    __syncwarp();
#pragma unroll 1
    for (u32 i = lane; i < ROWS_OF_WARP * OfQueries::CHUNKS; i += 32) {
      u32 line = i / OfQueries::CHUNKS, chunk = i % OfQueries::CHUNKS;
      if (first + line >= p.t || chunk * 8 >= p.e) continue;
      const u16* from = (const u16*)(memory + OfQueries::offset(row + line, chunk));
      u16* to = (u16*)p.out.at + head + (i64)(first + line) * p.out.row + chunk * 8;
      *(uint4*)to = *(const uint4*)from;
    }
  }

  static __device__ __forceinline__ void run(const Attention& p) {
    if (((const Fault*)p.fault)->set) return;
    __shared__ __align__(128) u8 memory[OfQueries::BYTES + 2 * OfKeys::BYTES];
    u8 *of_keys = memory + OfQueries::BYTES, *of_values = of_keys + OfKeys::BYTES;
    u32 tiles = (p.t + QUERIES - 1) / QUERIES, flat = blockIdx.x / tiles, lane = threadIdx.x % 32;
    // Of causal attention the last queries see most keys: they come first.
    u32 block = (tiles - 1 - blockIdx.x % tiles) * QUERIES, row = threadIdx.x / 32 * ROWS_OF_WARP, first = block + row;
    Head h = head_of(p, flat);
    const u16* q = (const u16*)p.q.at + (i64)h.sample * p.q.batch + (i64)h.head * p.q.head + (i64)block * p.q.row;
    const u16* k = (const u16*)p.k.at + (i64)h.sample * p.k.batch + (i64)h.key_head * p.k.head;
    const u16* v = (const u16*)p.v.at + (i64)h.sample * p.v.batch + (i64)h.key_head * p.v.head;
    u32 limit = p.causal ? min(p.s, block + QUERIES) : p.s;
    // What a warp's last query does not see, none of its queries does.
    u32 seen = first >= p.t ? 0u : p.causal ? min(limit, first + ROWS_OF_WARP) : limit;
    OfKeys keys, values;
    {
      OfQueries queries;
      queries.begin(memory, q, p.q.row, p.t - block, p.d);
      queries.finish(memory, p.d);
    }
    keys.begin(of_keys, k, p.k.row, limit, p.d);
    end_of_stage();
    values.begin(of_values, v, p.v.row, limit, p.e);
    end_of_stage();
    Attending own;
    own.bf16 = BF16_TOO && p.q.dtype == BF16;
#pragma unroll
    for (u32 i = 0; i < RESULTS; i++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) own.sums[i][c] = 0.0f;
    own.most[0] = own.most[1] = -INFINITE;
    own.total[0] = own.total[1] = 0.0f;
#pragma unroll 1
    for (u32 start = 0; start < limit; start += KEYS) {
      u32 next = start + KEYS, left = next < limit ? limit - next : 0;
      bool works = start < seen;
      keys.finish(of_keys, p.d);
      all_but_last();
      // Of all threads: keys are there.
      __syncthreads();
      if (works) own.score_keys(p, shared_address(memory), shared_address(of_keys), row);
      all_have_read();
      if (left) keys.begin(of_keys, k + (i64)next * p.k.row, p.k.row, left, p.d);
      end_of_stage();
      if (works) {
        float largest[2] = {-INFINITE, -INFINITE};
        own.finish_scores(p, h, first, start, largest);
        own.rescale(largest);
      }
      values.finish(of_values, p.e);
      all_but_last();
      // Of all threads: values are there.
      __syncthreads();
      if (works) own.multiply_values(p, flat, shared_address(of_values), first, start);
      all_have_read();
      if (left) values.begin(of_values, v + (i64)next * p.v.row, p.v.row, left, p.e);
      end_of_stage();
    }
    if (first >= p.t) return;
    own.total[0] = sum_of_row(own.total[0]);
    own.total[1] = sum_of_row(own.total[1]);
    bool strange[2];
    own.store(p, h, memory, first, row, strange);
    // A lane of the four of a row has one of the two.
    u32 query = first + lane / 4 + lane % 2 * 8;
    if (lane % 4 < 2 && query < p.t)
      ((float*)p.lse)[(u64)flat * p.t + query] =
          log_sum_exp(lane % 2 ? own.most[1] : own.most[0], lane % 2 ? own.total[1] : own.total[0]);
    again(p, h, flat, first, strange);
  }

  // Queries whose sums are not finite, an element at a time.
  static __device__ __forceinline__ void again(const Attention& p, Head h, u32 flat, u32 first,
                                               const bool (&strange)[2]) {
    u32 lane = threadIdx.x % 32, rows[2] = {__ballot_sync(ALL, strange[0]), __ballot_sync(ALL, strange[1])};
    if (!(rows[0] | rows[1])) return;
    __syncwarp();
#pragma unroll 1
    for (u32 i = 0; i < ROWS_OF_WARP; i++) {
      u32 query = first + i;
      if (query >= p.t || !((i < 8 ? rows[0] : rows[1]) >> (i % 8 * 4) & 15u)) continue;
      float most, total;
#pragma unroll 1
      for (u32 f = 0; f < p.e; f += 32) attend_to_all<BF16_TOO ? ANY_16 : F16, 1>(p, h, flat, query, f, lane, most, total);
    }
  }
};

#define ATTENTION(BF16_TOO, SIZE, KEYS)                                                                   \
  extern "C" __global__ void __launch_bounds__(128, 2) attend_##SIZE(const __grid_constant__ Attention p) {  \
    Attending<BF16_TOO, SIZE, KEYS>::run(p);                                                              \
  }
