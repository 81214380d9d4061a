// Multi-tensor passes: all tensors are one list of chunks, so that many small ones cost no more than a large one. The
// numbers that change from step to step are read from the device's memory.
//
// Shapes: lists of tensors side by side: parameters, masters, gradients and states of one size.
// Tiling: a block of 256 threads has a chunk of one tensor, and the next one a grid further on.
// Needs: at most 48 registers to a thread, no shared memory.
// Checked against: steps of the reference, an element at a time, and the CPU's bits.
#include "common.cuh"
#include "sums.cuh"

enum { UNSCALE, SCALE, CLAMP, EMA, ADAGRAD, RMSPROP, LION, SGD, ADAM };

struct Slot {
  u64 param;   // 0: none
  u64 master;  // 0: none
  u64 grad;
  u64 state[3];
  u32 n;
  u32 chunk;  // number of its first chunk
  u32 param_dtype;
  u32 grad_dtype;
  u32 first;
  u32 unused;
};

struct Update {
  u64 fault;
  u64 slots;
  u64 scalars;
  u64 found;   // in unscale a word that is set where a product is not finite; of the norm the chunks' sums
  u32 count;   // of slots
  u32 chunks;
  u32 kind;
  u32 last;    // place of the gradients' factor among the scalars
  // Settings in f32: see `settings` of the host side.
  float a, b, c, d, e;
  u32 flags;
};

enum { CENTRED = 1, MOVES = 2, NESTEROV = 4 };

// The slot that has a chunk: the last that begins no later.
__device__ __forceinline__ const Slot& slot_of(const Update& p, u32 chunk) {
  const Slot* slots = (const Slot*)p.slots;
  u32 low = 0, high = p.count;
  while (high - low > 1) {
    u32 middle = (low + high) / 2;
    if (slots[middle].chunk <= chunk)
      low = middle;
    else
      high = middle;
  }
  return slots[low];
}

struct State {
  float p, s0, s1, s2;
};

__device__ __forceinline__ State step(const Update& u, float lr, float second, float third, bool first, State s,
                                      float g) {
  float p = s.p;
  switch (u.kind) {
    case EMA: s.p = __fadd_rn(p, __fmul_rn(lr, __fsub_rn(g, p))); break;
    case ADAGRAD: {  // a: decay, b: eps, c: initial
      float d = __fadd_rn(g, __fmul_rn(u.a, p));
      s.s0 = __fadd_rn(first ? u.c : s.s0, __fmul_rn(d, d));
      s.p = __fsub_rn(p, __fdiv_rn(__fmul_rn(lr, d), __fadd_rn(__fsqrt_rn(s.s0), u.b)));
      break;
    }
    case RMSPROP: {  // a: alpha, b: 1 − alpha, c: eps, d: decay, e: momentum
      float d = __fadd_rn(g, __fmul_rn(u.d, p));
      float square = __fadd_rn(__fmul_rn(u.a, first ? 0.0f : s.s0), __fmul_rn(__fmul_rn(u.b, d), d));
      s.s0 = square;
      if (u.flags & CENTRED) {
        s.s2 = __fadd_rn(__fmul_rn(u.a, first ? 0.0f : s.s2), __fmul_rn(u.b, d));
        square = __fsub_rn(square, __fmul_rn(s.s2, s.s2));
      }
      float step = __fdiv_rn(d, __fadd_rn(__fsqrt_rn(square), u.c));
      if (u.flags & MOVES) {
        step = __fadd_rn(__fmul_rn(u.e, first ? 0.0f : s.s1), step);
        s.s1 = step;
      }
      s.p = __fsub_rn(p, __fmul_rn(lr, step));
      break;
    }
    case LION: {  // a: b1, b: 1 − b1, c: b2, d: 1 − b2, e: decay
      float m = first ? 0.0f : s.s0;
      float v = __fadd_rn(__fmul_rn(u.a, m), __fmul_rn(u.b, g));
      float sign = v > 0.0f ? 1.0f : v < 0.0f ? -1.0f : v;
      float shrink = __fsub_rn(1.0f, __fmul_rn(lr, u.e));
      s.p = __fsub_rn(__fmul_rn(p, shrink), __fmul_rn(lr, sign));
      s.s0 = __fadd_rn(__fmul_rn(u.c, m), __fmul_rn(u.d, g));
      break;
    }
    case SGD: {  // a: momentum, b: 1 − dampening, c: decay
      float d = __fadd_rn(g, __fmul_rn(u.c, p));
      if (u.flags & MOVES) {
        float m = first ? d : __fadd_rn(__fmul_rn(u.a, s.s0), __fmul_rn(u.b, d));
        s.s0 = m;
        d = u.flags & NESTEROV ? __fadd_rn(d, __fmul_rn(u.a, m)) : m;
      }
      s.p = __fsub_rn(p, __fmul_rn(lr, d));
      break;
    }
    default: {  // ADAM. a: 1 − b1, b: b2, c: 1 − b2, d: eps, e: decay
      float m = first ? 0.0f : s.s0, v = first ? 0.0f : s.s1;
      bool decoupled = u.flags & NESTEROV;
      float shrink = decoupled ? __fsub_rn(1.0f, __fmul_rn(lr, u.e)) : 1.0f;
      float w = __fmul_rn(p, shrink), d = __fadd_rn(g, __fmul_rn(decoupled ? 0.0f : u.e, w));
      m = __fadd_rn(m, __fmul_rn(u.a, __fsub_rn(d, m)));
      v = __fadd_rn(__fmul_rn(u.b, v), __fmul_rn(__fmul_rn(u.c, d), d));
      float by = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), third), u.d);
      s.p = __fsub_rn(w, __fdiv_rn(__fmul_rn(__fdiv_rn(lr, second), m), by));
      s.s0 = m;
      s.s1 = v;
    }
  }
  return s;
}

// Optimisers and averages: one pass that reads gradient, parameter and state and writes parameter and state.
extern "C" __global__ void __launch_bounds__(256) optimise(const __grid_constant__ Update p) {
  if (((const Fault*)p.fault)->set) return;
  const float* scalars = (const float*)p.scalars;
  float lr = scalars[0], factor = scalars[p.last];
  float second = p.kind == ADAM ? scalars[1] : 0.0f, third = p.kind == ADAM ? scalars[2] : 0.0f;
  for (u32 chunk = blockIdx.x; chunk < p.chunks; chunk += gridDim.x) {
    const Slot& slot = slot_of(p, chunk);
    u32 start = (chunk - slot.chunk) * TASK, end = min(slot.n, start + TASK);
    for (u32 i = start + threadIdx.x; i < end; i += blockDim.x) {
      float g = __fmul_rn(load(slot.grad, slot.grad_dtype, i), factor);
      State s;
      s.p = slot.master ? ((const float*)slot.master)[i] : load(slot.param, slot.param_dtype, i);
      bool read = !slot.first;
      s.s0 = read && slot.state[0] ? ((const float*)slot.state[0])[i] : 0.0f;
      s.s1 = read && slot.state[1] ? ((const float*)slot.state[1])[i] : 0.0f;
      s.s2 = read && slot.state[2] ? ((const float*)slot.state[2])[i] : 0.0f;
      s = step(p, lr, second, third, slot.first, s, g);
      if (slot.state[0]) ((float*)slot.state[0])[i] = s.s0;
      if (slot.state[1]) ((float*)slot.state[1])[i] = s.s1;
      if (slot.state[2]) ((float*)slot.state[2])[i] = s.s2;
      if (slot.master) ((float*)slot.master)[i] = s.p;
      store(slot.param, slot.param_dtype, i, s.p);
    }
  }
}

// Multiplies or limits gradients; unscaling notes whether a product is not finite.
extern "C" __global__ void __launch_bounds__(256) scale(const __grid_constant__ Update p) {
  if (((const Fault*)p.fault)->set) return;
  float factor = ((const float*)p.scalars)[p.last];
  for (u32 chunk = blockIdx.x; chunk < p.chunks; chunk += gridDim.x) {
    const Slot& slot = slot_of(p, chunk);
    u32 start = (chunk - slot.chunk) * TASK, end = min(slot.n, start + TASK);
    for (u32 i = start + threadIdx.x; i < end; i += blockDim.x) {
      float g = load(slot.grad, slot.grad_dtype, i);
      if (p.kind == CLAMP)
        g = g > factor ? factor : g < -factor ? -factor : g;
      else
        g = __fmul_rn(g, factor);
      // After the product: a scale below 1 can make it overflow.
      if (p.kind == UNSCALE && !is_finite(g)) atomicOr((u32*)p.found, 1u);
      store(slot.grad, slot.grad_dtype, i, g);
    }
  }
}

// Squares of gradients times the factor, in f64, of each chunk: its blocks of 1,024 in 16 interleaved sums, in order.
extern "C" __global__ void __launch_bounds__(32) squares(const __grid_constant__ Update p) {
  if (((const Fault*)p.fault)->set) return;
  float factor = ((const float*)p.scalars)[p.last];
  u32 lane = threadIdx.x % 16;
  // Both halves of the warp have a chunk of their own.
  u32 chunk = min(blockIdx.x * 2 + threadIdx.x / 16, p.chunks - 1);
  const Slot& slot = slot_of(p, chunk);
  u32 start = (chunk - slot.chunk) * TASK, end = min(slot.n, start + TASK);
  double total = 0.0;
#pragma unroll 1
  for (u32 block = start; block < start + TASK; block += BLOCK) {
    double sum = 0.0;
    for (u32 i = block + lane; i < end && i < block + BLOCK; i += 16) {
      double v = (double)__fmul_rn(load(slot.grad, slot.grad_dtype, i), factor);
      sum = __dadd_rn(sum, __dmul_rn(v, v));
    }
    // The sums of the lanes in order.
    double all = 0.0;
#pragma unroll 1
    for (int i = 0; i < 16; i++) all = __dadd_rn(all, __shfl_sync(0xffffffffu, sum, i, 16));
    if (block < end) total = __dadd_rn(total, all);
  }
  if (lane == 0 && blockIdx.x * 2 + threadIdx.x / 16 < p.chunks) ((double*)p.found)[chunk] = total;
}

// The sum of the chunks' squares, in order, behind the last of them.
extern "C" __global__ void __launch_bounds__(32) sum_of_squares(const __grid_constant__ Update p) {
  if (((const Fault*)p.fault)->set) return;
  if (threadIdx.x != 0) return;
  double* sums = (double*)p.found;
  double total = 0.0;
  for (u32 i = 0; i < p.chunks; i++) total = __dadd_rn(total, sums[i]);
  sums[p.chunks] = total;
}
