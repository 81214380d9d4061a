// Sums in the order of the CPU: f32 sums over blocks of 1,024 in 16 interleaved parts that are added by halves, and
// the blocks' sums in f64, in order within a task of 16 blocks, and the tasks in order.
#pragma once
#include "common.cuh"

constexpr u32 BLOCK = 1024;
constexpr u32 TASK = 16 * BLOCK;

// The sum of blocks that lie `1` apart, in the order of tasks.
__device__ __forceinline__ double sum_of_tasks(const double* blocks, u32 count) {
  double total = 0.0;
#pragma unroll 1
  for (u32 task = 0; task < count; task += TASK / BLOCK) {
    double part = 0.0;
#pragma unroll 1
    for (u32 i = task; i < count && i < task + TASK / BLOCK; i++) part = __dadd_rn(part, blocks[i]);
    total = __dadd_rn(total, part);
  }
  return total;
}

// The sums of the blocks of a loss, which `p.out` receives as doubles: 16 threads to a block. A block whose f32 sum
// leaves the range is added in f64.
#define SUM_OF_LOSS(ROW)                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) ROW##_sums(const __grid_constant__ Elementwise p) {  \
    if (((const Fault*)p.fault)->set) return;                                                            \
    float v = __double2float_rn(p.value);                                                                \
    u32 block = thread_index() / 16, lane = threadIdx.x % 16, start = block * BLOCK;                     \
    u32 end = min(p.n, start + BLOCK);                                                                   \
    float sum = 0.0f;                                                                                    \
    for (u32 i = start + lane; i < end; i += 16) {                                                       \
      Places<2> at = places<2>(p, i);                                                                    \
      float x = load(p.in[0], at.in[0]), t = load(p.in[1], at.in[1]);                                    \
      float y = ROW##_f(x, t, v);                                                                        \
      if (!is_finite(y)) y = __double2float_rn(ROW##_f_wide((double)x, (double)t, p.value));             \
      sum = __fadd_rn(sum, y);                                                                           \
    }                                                                                                    \
    sum = sum_of_16(sum);                                                                                \
    if (lane != 0 || start >= p.n) return;                                                               \
    double total = (double)sum;                                                                          \
    if (!is_finite(sum)) {                                                                               \
      total = 0.0;                                                                                       \
      for (u32 i = start; i < end; i++) {                                                                \
        Places<2> at = places<2>(p, i);                                                                  \
        double x = (double)load(p.in[0], at.in[0]), t = (double)load(p.in[1], at.in[1]);                 \
        total = __dadd_rn(total, ROW##_f_wide(x, t, p.value));                                           \
      }                                                                                                  \
    }                                                                                                    \
    ((double*)p.out.at)[block] = total;                                                                  \
  }
