// Contractions of 16-bit operands on tensor cores, with sums in f32: capability 8.0 by cp.async and m16n8k16,
// capability 7.5 by registers and m16n8k8. Operands are matrices (`panels.cuh`) or images (`pixels.cuh`).
//
// A block of four warps has a tile of M × N results, a warp a quarter of it, in fragments of 16 × 8. The inner dimension
// goes through shared memory 32 places at a time, in stages: while one is multiplied, those behind it are copied. With
// 128 × 128 that are three stages of 16 KB, and 64 × 64 results to a warp: 128 registers of sums, and 32 products for
// 8 loads of four matrices. With 64 × 64, stages of 8 KB and 32 × 32 results; on 7.5 two of these, as the next waits in
// registers.
//
// An operand says where the chunks of a stage lie, of 16 bytes: of places or of rows (of A; columns of B) side by side.
// Sums are added in the order of places, splits by a kernel behind.
// The naive version that they are checked against is the reference's in f64.
#pragma once
#include "product.cuh"

constexpr u32 DEPTH = 32, THREADS = 128;
#if __CUDA_ARCH__ >= 800
constexpr u32 STAGES = 3;
#else
constexpr u32 STAGES = 2;
#endif

// A stage of an operand: OUTER rows of A or columns of B by DEPTH places, in lines as in memory: of places if they are
// side by side (INNER), else of rows. The chunks of a line, of 16 bytes, are exchanged: the eight that ldmatrix reads
// at a time, one of a line each, have all banks.
template <u32 OUTER, bool INNER>
struct Stage {
  static constexpr u32 CHUNKS = (INNER ? DEPTH : OUTER) / 8;
  static constexpr u32 EACH = OUTER * DEPTH / 8 / THREADS;
  static constexpr u32 BYTES = OUTER * DEPTH * 2;

  static __device__ __forceinline__ u32 offset(u32 line, u32 chunk) {
    u32 turn = INNER ? line / 2 % 4 : line % 8;
    return (line * CHUNKS + (chunk ^ turn)) * 16;
  }

  // The elements of a chunk that are there: none beyond the last line, and of a line up to its end.
  static __device__ __forceinline__ u32 there(u32 line, u32 chunk, u32 outer, u32 places) {
    u32 lines = INNER ? outer : places, length = INNER ? places : outer;
    return line < lines && chunk * 8 < length ? min(8u, length - chunk * 8) : 0u;
  }

  // Where the matrices of a fragment of 16 × 16 from (row, place) on begin, a line of one for each lane: those of lanes
  // 0-7, 8-15 and so on are next to each other along rows and then along places, or the other way round.
  static __device__ __forceinline__ u32 fragment(u32 row, u32 place, bool rows_first) {
    u32 lane = threadIdx.x % 32, first = lane / 8 % 2 * 8, second = lane / 16 * 8;
    row += rows_first ? first : second;
    place += rows_first ? second : first;
    return INNER ? offset(row + lane % 8, place / 8) : offset(place + lane % 8, row / 8);
  }
};

__device__ __forceinline__ u32 shared_address(const void* at) { return (u32)__cvta_generic_to_shared(at); }

// Four matrices of 8 × 8: with INNER a lane has two elements of a line, else of two lines.
template <bool INNER>
__device__ __forceinline__ void load_matrices(u32 (&to)[4], u32 from) {
  if (INNER)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}

// Two neighbours, which a compiler may take apart: the lanes' banks are those of pairs.
__device__ __forceinline__ void store_pair(float* to, const float* pair) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" :: "r"(shared_address(to)), "f"(pair[0]), "f"(pair[1]) : "memory");
}

// c += a · b, of 16 × 16 and 16 × 8.
template <u32 DTYPE>
__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#define SUMS "{%0, %1, %2, %3}"
#if __CUDA_ARCH__ >= 800
  if (DTYPE == BF16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " SUMS ", {%4, %5, %6, %7}, {%8, %9}, " SUMS ";"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 " SUMS ", {%4, %5, %6, %7}, {%8, %9}, " SUMS ";"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 " SUMS ", {%4, %5}, {%6}, " SUMS ";"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 " SUMS ", {%4, %5}, {%6}, " SUMS ";"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
#undef SUMS
}

#if __CUDA_ARCH__ >= 800

// Begins to copy a chunk, and zeros behind it.
__device__ __forceinline__ void copy_chunk(u32 to, const u16* from, u32 elements) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(elements * 2) : "memory");
}

template <class Of>
__device__ __forceinline__ void copy_stage(u32 to, const Of& of, u32 first, u32 last) {
  // Of what is not there nothing is read, wherever that is said to be.
  of.each(first, last, [&](u32, u32 at, const u16* from, u32 elements) { copy_chunk(to + at, from, elements); });
}

__device__ __forceinline__ void end_of_stage() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <u32 LEFT>
__device__ __forceinline__ void wait_for_stages() {
  asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory");
}

#else

// A stage of an operand on its way through registers.
template <class Of>
struct Held {
  uint4 chunks[Of::EACH];

  __device__ __forceinline__ void fetch(const Of& of, u32 first, u32 last) {
    of.each(first, last, [&](u32 i, u32, const u16* at, u32 there) {
      uint4 held = make_uint4(0, 0, 0, 0);
      if (there == 8) {
        held = *(const uint4*)at;
      } else if (!Of::WHOLE) {
        // From the last element on, so that each moves those behind it up.
#pragma unroll 1
        for (u32 w = there; w > 0; w--) {
          held.w = held.w << 16 | held.z >> 16;
          held.z = held.z << 16 | held.y >> 16;
          held.y = held.y << 16 | held.x >> 16;
          held.x = held.x << 16 | at[w - 1];
        }
      }
      chunks[i] = held;
    });
  }

  __device__ __forceinline__ void store(u8* to, const Of& of) const {
#pragma unroll
    for (u32 i = 0; i < Of::EACH; i++) *(uint4*)(to + of.offset(i)) = chunks[i];
  }
};

#endif

// Where results go: with what is done to sums, unless they are those of a split.
struct Results {
  u64 at;
  u32 dtype;
  i64 columns;
  bool finish;
  u32 batch;
};

// Four results side by side.
__device__ __forceinline__ void store_4(u64 at, u32 dtype, float4 v) {
  if (dtype == F32)
    *(float4*)at = v;
  else if (dtype == F16)
    *(uint2*)at = make_uint2((u32)narrow_f16(v.y) << 16 | narrow_f16(v.x), (u32)narrow_f16(v.w) << 16 | narrow_f16(v.z));
  else
    *(uint2*)at =
        make_uint2((u32)narrow_bf16(v.y) << 16 | narrow_bf16(v.x), (u32)narrow_bf16(v.w) << 16 | narrow_bf16(v.z));
}

template <u32 DTYPE, u32 M, u32 N>
struct TensorProduct {
  static constexpr u32 WARP_M = M / 2, WARP_N = N / 2, ROWS = WARP_M / 16, COLUMNS = WARP_N / 8;
  static constexpr u32 A_BYTES = M * DEPTH * 2, STAGE = (M + N) * DEPTH * 2;
  // Rows of sums on their way out: with 8 more to a row the lanes of a fragment have all banks.
  static constexpr u32 OUT = WARP_N + 8;
  static constexpr u32 BYTES = STAGES * STAGE;
  static_assert(4 * 16 * OUT * 4 <= BYTES && BYTES <= 48 * 1024, "sums go out through the memory of the stages");

  float sums[ROWS][COLUMNS][4];

  template <bool INNER>
  static __device__ __forceinline__ void load_a(u32 (&a)[ROWS][4], u32 from, u32 row, u32 place) {
#pragma unroll
    for (u32 i = 0; i < ROWS; i++)
      load_matrices<INNER>(a[i], from + Stage<M, INNER>::fragment(row + 16 * i, place, true));
  }
  template <bool INNER>
  static __device__ __forceinline__ void load_b(u32 (&b)[COLUMNS / 2][4], u32 from, u32 column, u32 place) {
#pragma unroll
    for (u32 j = 0; j < COLUMNS / 2; j++)
      load_matrices<INNER>(b[j], from + Stage<N, INNER>::fragment(column + 16 * j, place, false));
  }

  // The products of a stage, 16 places at a time.
  template <class A, class B>
  __device__ __forceinline__ void add(u32 stage, const A& of_a, const B& of_b, u32 row, u32 column) {
#pragma unroll
    for (u32 place = 0; place < DEPTH; place += 16) {
      u32 a[ROWS][4], b[COLUMNS / 2][4];
      if (of_a.inner)
        load_a<true>(a, stage, row, place);
      else
        load_a<false>(a, stage, row, place);
      if (of_b.inner)
        load_b<true>(b, stage + A_BYTES, column, place);
      else
        load_b<false>(b, stage + A_BYTES, column, place);
#pragma unroll
      for (u32 i = 0; i < ROWS; i++)
#pragma unroll
        for (u32 j = 0; j < COLUMNS; j++)
          multiply<DTYPE>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }

#if __CUDA_ARCH__ >= 800
  // Copies are begun STAGES - 1 stages ahead of what is multiplied.
  template <class A, class B>
  __device__ __forceinline__ void contract(u8* memory, const A& a, const B& b, u32 first, u32 last, u32 row, u32 column,
                                           bool works) {
    u32 stages = shared_address(memory), next = first, into = 0, ahead = 0, stage = 0;
#pragma unroll 1
    for (u32 from = first; from < last; next += DEPTH) {
      bool multiplies = ahead == STAGES - 1;
      if (multiplies) {
        wait_for_stages<STAGES - 2>();
        // Of all threads: and the stage before has been read, whose place the next copy takes.
        __syncthreads();
      }
      if (next < last) {
        copy_stage(stages + into * STAGE, a, next, last);
        copy_stage(stages + into * STAGE + A_BYTES, b, next, last);
      }
      end_of_stage();
      into = into == STAGES - 1 ? 0 : into + 1;
      if (!multiplies) {
        ahead++;
        continue;
      }
      if (works) add(stages + stage * STAGE, a, b, row, column);
      stage = stage == STAGES - 1 ? 0 : stage + 1;
      from += DEPTH;
    }
  }
#else
  template <class A, class B>
  __device__ __forceinline__ void contract(u8* memory, const A& a, const B& b, u32 first, u32 last, u32 row, u32 column,
                                           bool works) {
    u32 stages = shared_address(memory), stage = 0;
    Held<A> of_a;
    Held<B> of_b;
    of_a.fetch(a, first, last);
    of_b.fetch(b, first, last);
#pragma unroll 1
    for (u32 from = first; from < last; from += DEPTH) {
      of_a.store(memory + stage * STAGE, a);
      of_b.store(memory + stage * STAGE + A_BYTES, b);
      // Of all threads: and the stage before has been read, whose place the next one takes.
      __syncthreads();
      if (from + DEPTH < last) {
        of_a.fetch(a, from + DEPTH, last);
        of_b.fetch(b, from + DEPTH, last);
      }
      if (works) add(stages + stage * STAGE, a, b, row, column);
      stage ^= 1;
    }
  }
#endif

  // Sums leave by 16 rows at a time, through a part of the memory that is the warp's own.
  template <class Of>
  __device__ __forceinline__ void store(const Product& p, const Of& of, const Results& to, u8* memory, u32 row,
                                        u32 column) {
    u32 lane = threadIdx.x % 32, size = to.dtype == F32 ? 4 : 2;
    float* out = (float*)memory + threadIdx.x / 32 * 16 * OUT;
    bool finish = to.finish && (p.bias.at || p.scales.of_outputs);
    bool by_4 = to.columns == 1 && of.is_by_4() && to.at % (4 * size) == 0 && p.n % 4 == 0;
#pragma unroll 1
    for (u32 r = 0; r < ROWS; r++, row += 16) {
      __syncwarp();
#pragma unroll
      for (u32 j = 0; j < COLUMNS; j++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
          store_pair(out + (lane / 4 + 8 * half) * OUT + j * 8 + lane % 4 * 2, &sums[0][j][2 * half]);
      __syncwarp();
      if (finish) {
#pragma unroll 1
        for (u32 e = lane; e < 16 * WARP_N; e += 32) {
          u32 i = e / WARP_N, j = e % WARP_N;
          if (column + j < p.n) out[i * OUT + j] = finished(p, of.output(to.batch, column + j), out[i * OUT + j]);
        }
        __syncwarp();
      }
#pragma unroll 1
      for (u32 e = by_4 ? lane * 4 : lane; e < 16 * WARP_N; e += by_4 ? 128 : 32) {
        u32 i = e / WARP_N, j = e % WARP_N;
        if (row + i >= p.m || column + j >= p.n) continue;
        i64 place = of.place(row + i) + (i64)(column + j) * to.columns;
        if (by_4)
          store_4(to.at + place * size, to.dtype, *(const float4*)(out + i * OUT + j));
        else
          ::store(to.at, to.dtype, place, out[i * OUT + j]);
      }
      // The next rows move up: registers have no number that could be computed.
#pragma unroll
      for (u32 i = 0; i + 1 < ROWS; i++)
#pragma unroll
        for (u32 j = 0; j < COLUMNS; j++)
#pragma unroll
          for (u32 c = 0; c < 4; c++) sums[i][j][c] = sums[i + 1][j][c];
    }
  }

  template <class Of>
  static __device__ __forceinline__ void run(const Product& p, const Of& of) {
    if (((const Fault*)p.fault)->set) return;
    __shared__ __align__(128) u8 memory[BYTES];
    u32 warp = threadIdx.x / 32, tiles = (p.n + N - 1) / N;
    u32 row0 = blockIdx.x / tiles * M, column0 = blockIdx.x % tiles * N;
    u32 row = warp / 2 * WARP_M, column = warp % 2 * WARP_N;
    bool works = row0 + row < p.m && column0 + column < p.n;
#pragma unroll 1
    for (u32 z = blockIdx.z; z < p.count * p.splits; z += gridDim.z) {
      u32 batch = z / p.splits, split = z % p.splits;
      auto of_a = of.template a<M>(batch, row0);
      auto of_b = of.template b<N>(batch, column0);
      u32 first = split * p.per_split, last = min(p.k, first + p.per_split);
      TensorProduct product = {};
      product.contract(memory, of_a, of_b, first, last, row, column, works);
      // What all warps read becomes what each writes.
      __syncthreads();
      Results to = {p.c.at, p.c.dtype, p.c.columns, p.splits == 1, batch};
      u64 place = p.splits == 1 ? batch_place(p, p.c, batch) : ((u64)split * p.count + batch) * p.m * p.n;
      to.at += place * (to.dtype == F32 ? 4 : 2);
      if (works) product.store(p, of, to, memory, row0 + row, column0 + column);
      __syncthreads();
    }
  }
};
