// Pooling of images, and linear maps of each dimension (flips, padding, interpolation). A thread has a result; gradients
// look for the windows that a pixel is under, in order, so that nothing is added by several threads.
//
// Shapes: images [N, C, H, W] and tensors of any shape and strides; taps of each dimension as lists.
// Tiling: none: a thread has a result.
// Needs: at most 64 registers to a thread, no shared memory.
// Checked against: pooling and resampling of the reference, loops over windows and taps in f64.
#include "common.cuh"

struct Image {
  u64 at;
  u32 dtype;
  u32 unused;
  i64 strides[4];
};

struct Pool {
  u64 fault;
  u32 n, channels, height, width, out_height, out_width;
  u32 kernel[2], stride[2], padding[2], dilation[2];
  u32 max;
  u32 count_padding;
  u64 divisor;  // 0: the number of elements
  Image x;      // input; of its gradient the output
  Image y;      // output, or its gradient
  Image g;      // tensor of the input's shape that elements are selected from; in a gradient of max the input
};

__device__ __forceinline__ float pixel(const Image& image, u32 a, u32 b, i64 c, i64 d) {
  i64 at = (i64)a * image.strides[0] + (i64)b * image.strides[1] + c * image.strides[2] + d * image.strides[3];
  return load(image.at, image.dtype, at);
}

__device__ __forceinline__ void put(const Image& image, u32 a, u32 b, u32 c, u32 d, float v) {
  i64 at = (i64)a * image.strides[0] + (i64)b * image.strides[1] + (i64)c * image.strides[2] + (i64)d * image.strides[3];
  store(image.at, image.dtype, at, v);
}

// Neighbouring threads have neighbouring channels, which lie side by side in channels-last images.
struct Place {
  u32 n, c, y, x;
};

__device__ __forceinline__ Place place_of(u32 i, u32 channels, u32 height, u32 width) {
  u32 c = i % channels, rest = i / channels, x = rest % width;
  rest /= width;
  return Place{rest / height, c, rest % height, x};
}

__device__ __forceinline__ i64 tap(const Pool& p, int d, u32 o, u32 k) {
  return (i64)o * p.stride[d] + (i64)k * p.dilation[d] - p.padding[d];
}

__device__ __forceinline__ double divisor_of(const Pool& p, u32 oy, u32 ox) {
  if (p.divisor) return (double)p.divisor;
  u64 count = 1;
#pragma unroll
  for (int d = 0; d < 2; d++) {
    u64 n = d == 0 ? p.height : p.width, start = (u64)(d == 0 ? oy : ox) * p.stride[d], pad = p.padding[d];
    u64 end = min(start + p.kernel[d], n + 2 * pad);
    if (!p.count_padding) {
      end = min(end, n + pad);
      start = max(start, pad);
    }
    count *= end > start ? end - start : 0;
  }
  return (double)count;
}

// Calls f(y, x) for the taps of an output pixel that lie inside, in row-major order, until it says to stop.
template <class F>
__device__ __forceinline__ void each_tap(const Pool& p, u32 oy, u32 ox, F f) {
#pragma unroll 1
  for (u32 ky = 0; ky < p.kernel[0]; ky++) {
    i64 y = tap(p, 0, oy, ky);
    if (y < 0 || y >= (i64)p.height) continue;
#pragma unroll 1
    for (u32 kx = 0; kx < p.kernel[1]; kx++) {
      i64 x = tap(p, 1, ox, kx);
      if (x >= 0 && x < (i64)p.width) f(y, x);
    }
  }
}

extern "C" __global__ void __launch_bounds__(256) pool(const __grid_constant__ Pool p) {
  if (((const Fault*)p.fault)->set) return;
  u32 count = p.n * p.channels * p.out_height * p.out_width;
  for (u32 i = thread_index(); i < count; i += thread_count()) {
    Place o = place_of(i, p.channels, p.out_height, p.out_width);
    float v = p.max ? -INFINITE : 0.0f;
    each_tap(p, o.y, o.x, [&](i64 y, i64 x) {
      float here = pixel(p.x, o.n, o.c, y, x);
      v = p.max ? larger(here, v) : __fadd_rn(v, here);
    });
    if (!p.max) {
      double factor = 1.0 / divisor_of(p, o.y, o.x);
      v = __fmul_rn(v, __double2float_rn(factor));
      if (!is_finite(v)) {
        double sum = 0.0;
        each_tap(p, o.y, o.x, [&](i64 y, i64 x) { sum = __dadd_rn(sum, (double)pixel(p.x, o.n, o.c, y, x)); });
        v = __double2float_rn(sum * factor);
      }
    }
    put(p.y, o.n, o.c, o.y, o.x, v);
  }
}

// Where an image is first largest under a window; NaN is larger than all.
__device__ __forceinline__ void first_largest(const Pool& p, const Image& image, u32 n, u32 c, u32 oy, u32 ox, i64& at_y,
                                              i64& at_x) {
  float best = 0.0f;
  bool any = false;
  each_tap(p, oy, ox, [&](i64 y, i64 x) {
    float here = pixel(image, n, c, y, x);
    if (!any || best < here || (here != here && best == best)) {
      best = here;
      at_y = y;
      at_x = x;
    }
    any = true;
  });
}

// The gradient by the input: `y` is the gradient of the output, `g` of a maximum the input, `x` the result.
extern "C" __global__ void __launch_bounds__(256) pool_backward(const __grid_constant__ Pool p) {
  if (((const Fault*)p.fault)->set) return;
  u32 count = p.n * p.channels * p.height * p.width;
  for (u32 i = thread_index(); i < count; i += thread_count()) {
    Place at = place_of(i, p.channels, p.height, p.width);
    float sum = 0.0f;
    // Windows that this pixel is under, by the taps they have here, in the order of windows: large taps first.
#pragma unroll 1
    for (u32 ky = p.kernel[0]; ky > 0; ky--) {
      u64 below = (u64)(ky - 1) * p.dilation[0], end = (u64)at.y + p.padding[0];
      u32 top = (u32)(end - below), oy = top / p.stride[0];
      if (below > end || top != oy * p.stride[0] || oy >= p.out_height) continue;
#pragma unroll 1
      for (u32 kx = p.kernel[1]; kx > 0; kx--) {
        u64 before = (u64)(kx - 1) * p.dilation[1], last = (u64)at.x + p.padding[1];
        u32 left = (u32)(last - before), ox = left / p.stride[1];
        if (before > last || left != ox * p.stride[1] || ox >= p.out_width) continue;
        float g = pixel(p.y, at.n, at.c, oy, ox);
        if (p.max) {
          i64 y = -1, x = -1;
          first_largest(p, p.g, at.n, at.c, oy, ox, y, x);
          if (y == (i64)at.y && x == (i64)at.x) sum = __fadd_rn(sum, g);
        } else {
          sum = __fadd_rn(sum, __fmul_rn(g, __double2float_rn(1.0 / divisor_of(p, oy, ox))));
        }
      }
    }
    put(p.x, at.n, at.c, at.y, at.x, sum);
  }
}

// Of each window the element of `g` where `x` is first largest.
extern "C" __global__ void __launch_bounds__(256) pool_select(const __grid_constant__ Pool p) {
  if (((const Fault*)p.fault)->set) return;
  u32 count = p.n * p.channels * p.out_height * p.out_width;
  for (u32 i = thread_index(); i < count; i += thread_count()) {
    Place o = place_of(i, p.channels, p.out_height, p.out_width);
    i64 y = -1, x = -1;
    first_largest(p, p.x, o.n, o.c, o.y, o.x, y, x);
    put(p.y, o.n, o.c, o.y, o.x, y < 0 ? 0.0f : pixel(p.g, o.n, o.c, y, x));
  }
}

// A tap of a map: an element of the input, and its weight.
struct Tap {
  u64 place;
  double weight;
};

struct Map {
  u64 fault;
  u64 taps;
  u64 starts;  // u32: of each dimension extent + 1 numbers, where the taps of each place begin
  u32 n;
  u32 rank;
  u32 extents[MAX_RANK];  // of the output
  u32 begins[MAX_RANK];   // where a dimension's starts begin
  float fill;
  u32 unused;
  u64 fill_bits;  // in the dtype
  Operand x;
  Operand y;
};

constexpr u32 TAPS_IN_A_CHAIN = 64;

// y[i…] = Σ Π weight · x[j…] over the taps of every dimension, in order; `fill` where a dimension has none.
extern "C" __global__ void __launch_bounds__(256) map_dimensions(const __grid_constant__ Map p) {
  if (((const Fault*)p.fault)->set) return;
  const u32* starts = (const u32*)p.starts;
  const Tap* taps = (const Tap*)p.taps;
  for (u32 i = thread_index(); i < p.n; i += thread_count()) {
    u32 first[MAX_RANK] = {}, last[MAX_RANK] = {}, at[MAX_RANK] = {}, rest = i;
    i64 out = 0;
    bool none = false;
#pragma unroll
    for (int d = MAX_RANK - 1; d >= 0; d--) {
      if (d >= (int)p.rank) continue;
      u32 k = rest % p.extents[d];
      rest /= p.extents[d];
      out += (i64)k * p.y.strides[d];
      first[d] = at[d] = starts[p.begins[d] + k];
      last[d] = starts[p.begins[d] + k + 1];
      none = none || first[d] == last[d];
    }
    if (none) {
      store(p.y, out, p.fill);
      continue;
    }
    float sum = 0.0f;
    double total = -0.0;
    u32 terms = 0;
    bool more = true;
#pragma unroll 1
    while (more) {
      // Chains of f32, whose sums are added in f64.
      if (terms == TAPS_IN_A_CHAIN) {
        total = __dadd_rn(total, (double)sum);
        terms = 0;
      }
      double weight = 1.0;
      i64 from = 0;
#pragma unroll
      for (int d = 0; d < (int)MAX_RANK; d++) {
        if (d >= (int)p.rank) continue;
        Tap tap = taps[at[d]];
        weight = __dmul_rn(weight, tap.weight);
        from += (i64)tap.place * p.x.strides[d];
      }
      float term = load(p.x, from);
      if (weight != 1.0) term = __fmul_rn(__double2float_rn(weight), term);
      // The first term is assigned: 0 + (−0) would lose the sign.
      sum = terms == 0 ? term : __fadd_rn(sum, term);
      terms++;
      // The next taps, the last dimension's first.
      more = false;
#pragma unroll
      for (int d = MAX_RANK - 1; d >= 0; d--) {
        if (more || d >= (int)p.rank) continue;
        at[d]++;
        if (at[d] < last[d])
          more = true;
        else
          at[d] = first[d];
      }
    }
    store(p.y, out, __double2float_rn(__dadd_rn(total, (double)sum)));
  }
}

// As above, where a place has one tap of weight 1 or none: bits as they are, of any dtype.
extern "C" __global__ void __launch_bounds__(256) move_dimensions(const __grid_constant__ Map p) {
  if (((const Fault*)p.fault)->set) return;
  const u32* starts = (const u32*)p.starts;
  const Tap* taps = (const Tap*)p.taps;
  for (u32 i = thread_index(); i < p.n; i += thread_count()) {
    u32 rest = i;
    i64 out = 0, from = 0;
    bool none = false;
#pragma unroll 1
    for (u32 d = p.rank; d > 0; d--) {
      u32 k = rest % p.extents[d - 1];
      rest /= p.extents[d - 1];
      out += (i64)k * p.y.strides[d - 1];
      u32 first = starts[p.begins[d - 1] + k];
      if (first == starts[p.begins[d - 1] + k + 1])
        none = true;
      else
        from += (i64)taps[first].place * p.x.strides[d - 1];
    }
    store_bits(p.y, out, none ? p.fill_bits : load_bits(p.x, from));
  }
}

struct Factors {
  u64 fault;
  u64 scratch;  // a double for each element
  u32 rows, n;
  u32 rank;
  u32 unused;
  u32 extents[MAX_RANK];
  i64 along[3];  // strides along the dimension of g, x, dx
  Operand g, x, dx;
};

// The gradient of a running product, exact with zeros among the factors; a thread to a row, without division:
// dx[k] = (product of x before k)·t[k] with t[k] = g[k] + x[k + 1]·t[k + 1].
extern "C" __global__ void __launch_bounds__(256) product_backward(const __grid_constant__ Factors p) {
  if (((const Fault*)p.fault)->set) return;
  u32 row = thread_index();
  if (row >= p.rows) return;
  i64 g = 0, x = 0, dx = 0;
  u32 rest = row;
#pragma unroll 1
  for (u32 d = p.rank; d > 0; d--) {
    u32 k = rest % p.extents[d - 1];
    rest /= p.extents[d - 1];
    g += (i64)k * p.g.strides[d - 1];
    x += (i64)k * p.x.strides[d - 1];
    dx += (i64)k * p.dx.strides[d - 1];
  }
  double before = 1.0, tail = 0.0, *tails = (double*)p.scratch + (u64)row * p.n;
#pragma unroll 1
  for (u32 k = p.n; k > 0; k--) {
    tail = k < p.n ? __dmul_rn((double)load(p.x, x + (i64)k * p.along[1]), tail) : 0.0;
    tail = __dadd_rn((double)load(p.g, g + (i64)(k - 1) * p.along[0]), tail);
    tails[k - 1] = tail;
  }
#pragma unroll 1
  for (u32 k = 0; k < p.n; k++) {
    store(p.dx, dx + (i64)k * p.along[2], __double2float_rn(__dmul_rn(before, tails[k])));
    before = __dmul_rn(before, (double)load(p.x, x + (i64)k * p.along[1]));
  }
}
