// Convolutions of images [N, C, H, W] of any strides and their gradients, as products whose operands are read where they
// lie: no patches in memory. Of a group with few channels a tile would be mostly empty; there a thread has a result.
//
// Forward: rows are output pixels, columns output channels of the group, places (channel, tap).
// By the input: rows are input pixels, columns input channels, places (output channel, tap).
// By the weight: rows are output channels, columns (channel, tap), places output pixels; cut into chains that are added
// in order.
// Of 8-bit integers: forward, in integers.
//
// Those of 16-bit images with channels enough are `pixels.cuh`; here the sums of their splits are added.
//
// Shapes: images [N, C, H, W], weights [O, C / groups, KH, KW], of any strides, dilations, groups and float dtypes,
// or of 8-bit integers.
// Tiling: as `tile.cuh`: 64 x 64 results to a block of 256 threads, 16 places at a time; of few channels a thread to
// a result.
// Needs: at most 64 registers to a thread, 8,704 bytes of shared memory to a block.
// Checked against: convolutions of the reference, a loop over taps in f64.
#include "images.cuh"

struct Image {
  u64 at;
  u32 dtype;
  u32 unused;
  i64 strides[4];
};

struct Conv {
  u64 fault;
  u32 n, inputs, outputs, groups;  // channels of a group
  u32 height, width;               // of the input
  u32 out_height, out_width;
  u32 kernel[2], stride[2], padding[2], dilation[2];
  u32 splits, per_split;
  Image x;       // input, or its gradient
  Image w;       // [outputs, inputs of the group, KH, KW]
  Image y;       // output, or its gradient
  Image bias;    // of the first stride; no memory: none
  Scales scales; // of 8-bit integers
  u64 parts;     // f32 [split][group][outputs][inputs · taps]
};

__device__ __forceinline__ i64 at4(const Image& image, u32 a, u32 b, u32 c, u32 d) {
  return (i64)a * image.strides[0] + (i64)b * image.strides[1] + (i64)c * image.strides[2] + (i64)d * image.strides[3];
}

template <class T>
__device__ __forceinline__ T pixel(const Image& image, u32 a, u32 b, u32 c, u32 d) {
  return load(image.at, image.dtype, at4(image, a, b, c, d));
}
template <>
__device__ __forceinline__ int pixel<int>(const Image& image, u32 a, u32 b, u32 c, u32 d) {
  return ((const i8*)image.at)[at4(image, a, b, c, d)];
}

struct Tap {
  u32 channel, ky, kx;
};

__device__ __forceinline__ Tap tap_of(const Conv& p, u32 place) {
  u32 kx = place % p.kernel[1], rest = place / p.kernel[1];
  return Tap{rest / p.kernel[0], rest % p.kernel[0], kx};
}

struct Pixel {
  u32 n, y, x;
};

__device__ __forceinline__ Pixel pixel_of(u32 place, u32 height, u32 width) {
  u32 x = place % width, rest = place / width;
  return Pixel{rest / height, rest % height, x};
}

// The input under a tap of an output pixel; zero where padding is.
template <class T>
__device__ __forceinline__ T input_at(const Conv& p, u32 group, Pixel o, Tap t) {
  u32 y = o.y * p.stride[0] + t.ky * p.dilation[0] - p.padding[0];
  u32 x = o.x * p.stride[1] + t.kx * p.dilation[1] - p.padding[1];
  // Below zero it wraps, and is beyond the image as well.
  return y < p.height && x < p.width ? pixel<T>(p.x, o.n, group * p.inputs + t.channel, y, x) : T(0);
}

// The gradient of the output pixel that a tap carried from this input pixel to.
__device__ __forceinline__ float output_at(const Conv& p, u32 group, Pixel i, Tap t) {
  u32 y = i.y + p.padding[0] - t.ky * p.dilation[0], x = i.x + p.padding[1] - t.kx * p.dilation[1];
  u32 oy = y / p.stride[0], ox = x / p.stride[1];
  bool there = (int)y >= 0 && (int)x >= 0 && oy * p.stride[0] == y && ox * p.stride[1] == x;
  return there && oy < p.out_height && ox < p.out_width
             ? pixel<float>(p.y, i.n, group * p.outputs + t.channel, oy, ox)
             : 0.0f;
}

template <class T>
__device__ __forceinline__ T weight_at(const Conv& p, u32 output, u32 input, u32 ky, u32 kx) {
  return pixel<T>(p.w, output, input, ky, kx);
}

__device__ __forceinline__ float with_bias(const Conv& p, u32 channel, float v) {
  return p.bias.at ? __fadd_rn(v, load(p.bias.at, p.bias.dtype, (i64)channel * p.bias.strides[0])) : v;
}

// Floats, or 8-bit integers.
template <class T>
struct Forward {
  typedef T Number;
  const Conv& p;
  u32 group;
  __device__ __forceinline__ u32 m() const { return p.n * p.out_height * p.out_width; }
  __device__ __forceinline__ u32 n() const { return p.outputs; }
  __device__ __forceinline__ u32 k() const { return p.inputs * p.kernel[0] * p.kernel[1]; }
  __device__ __forceinline__ T a(u32 i, u32 l) const {
    return input_at<T>(p, group, pixel_of(i, p.out_height, p.out_width), tap_of(p, l));
  }
  __device__ __forceinline__ T b(u32 l, u32 j) const {
    Tap t = tap_of(p, l);
    return weight_at<T>(p, group * p.outputs + j, t.channel, t.ky, t.kx);
  }
  __device__ __forceinline__ void put(u32 i, u32 j, T v) const {
    Pixel o = pixel_of(i, p.out_height, p.out_width);
    u32 channel = group * p.outputs + j;
    store(p.y.at, p.y.dtype, at4(p.y, o.n, channel, o.y, o.x), with_bias(p, channel, scaled(p.scales, channel, v)));
  }
};

struct ByInput {
  typedef float Number;
  const Conv& p;
  u32 group;
  __device__ __forceinline__ u32 m() const { return p.n * p.height * p.width; }
  __device__ __forceinline__ u32 n() const { return p.inputs; }
  __device__ __forceinline__ u32 k() const { return p.outputs * p.kernel[0] * p.kernel[1]; }
  __device__ __forceinline__ float a(u32 i, u32 l) const {
    return output_at(p, group, pixel_of(i, p.height, p.width), tap_of(p, l));
  }
  __device__ __forceinline__ float b(u32 l, u32 j) const {
    Tap t = tap_of(p, l);
    return weight_at<float>(p, group * p.outputs + t.channel, j, t.ky, t.kx);
  }
  __device__ __forceinline__ void put(u32 i, u32 j, float v) const {
    Pixel o = pixel_of(i, p.height, p.width);
    u32 channel = group * p.inputs + j;
    store(p.x.at, p.x.dtype, at4(p.x, o.n, channel, o.y, o.x), with_bias(p, channel, v));
  }
};

struct ByWeight {
  typedef float Number;
  const Conv& p;
  u32 group;
  __device__ __forceinline__ u32 m() const { return p.outputs; }
  __device__ __forceinline__ u32 n() const { return p.inputs * p.kernel[0] * p.kernel[1]; }
  __device__ __forceinline__ u32 k() const { return p.n * p.out_height * p.out_width; }
  __device__ __forceinline__ float a(u32 i, u32 l) const {
    Pixel o = pixel_of(l, p.out_height, p.out_width);
    return pixel<float>(p.y, o.n, group * p.outputs + i, o.y, o.x);
  }
  __device__ __forceinline__ float b(u32 l, u32 j) const {
    return input_at<float>(p, group, pixel_of(l, p.out_height, p.out_width), tap_of(p, j));
  }
  __device__ __forceinline__ void put(u32 i, u32 j, float v) const {
    Tap t = tap_of(p, j);
    store(p.w.at, p.w.dtype, at4(p.w, group * p.outputs + i, t.channel, t.ky, t.kx), v);
  }
};

// A block per tile, group and split; splits leave their sums to `sums`.
template <class Of>
__device__ __forceinline__ void tiles(const Conv& p, u32 z) {
  u32 group = z / p.splits, split = z % p.splits;
  typedef typename Of::Number T;
  Of of{p, group};
  u32 m = of.m(), n = of.n(), columns = (n + TILE - 1) / TILE;
  u32 row0 = blockIdx.x / columns * TILE, column0 = blockIdx.x % columns * TILE;
  u32 first = split * p.per_split, last = min(of.k(), first + p.per_split);
  T total[4][4];
  contract(
      total, m, n, row0, column0, first, last, false, true, [&](u32 i, u32 l) { return of.a(i, l); },
      [&](u32 l, u32 j) { return of.b(l, j); });
  if (p.splits > 1) {
    T* to = (T*)p.parts + ((u64)split * p.groups + group) * m * n;
    each_result(total, m, n, row0, column0, [&](u32 i, u32 j, T v) { to[(u64)i * n + j] = v; });
  } else {
    each_result(total, m, n, row0, column0, [&](u32 i, u32 j, T v) { of.put(i, j, v); });
  }
}

// A thread per result, with the same chains.
template <class Of>
__device__ __forceinline__ void singly(const Conv& p, u32 z) {
  u32 group = z / p.splits, split = z % p.splits, place = thread_index();
  typedef typename Of::Number T;
  Of of{p, group};
  u32 n = of.n(), first = split * p.per_split, last = min(of.k(), first + p.per_split);
  if (place >= of.m() * n) return;
  u32 i = place / n, j = place % n;
  T total = 0, sum = 0;
#pragma unroll 1
  for (u32 l = first; l < last; l++) {
    sum = fused(of.a(i, l), of.b(l, j), sum);
    if ((l + 1) % CHAIN == 0 || l + 1 == last) {
      total = l / CHAIN == first / CHAIN ? sum : plus(total, sum);
      sum = 0;
    }
  }
  if (p.splits > 1)
    ((T*)p.parts)[(((u64)split * p.groups + group) * of.m() + i) * n + j] = total;
  else
    of.put(i, j, total);
}

template <class Of>
__device__ __forceinline__ void sums(const Conv& p, u32 group) {
  u32 place = thread_index();
  typedef typename Of::Number T;
  Of of{p, group};
  u32 n = of.n();
  if (place >= of.m() * n) return;
  T v = 0;
#pragma unroll 1
  for (u32 split = 0; split < p.splits; split++) {
    T part = ((const T*)p.parts)[((u64)split * p.groups + group) * of.m() * n + place];
    v = split == 0 ? part : plus(v, part);
  }
  of.put(place / n, place % n, v);
}

// A grid has 65,535 blocks in its last dimension: further groups follow.
#define CONV(NAME, COUNT, BODY)                                                             \
  extern "C" __global__ void __launch_bounds__(256) NAME(const __grid_constant__ Conv p) {  \
    if (((const Fault*)p.fault)->set) return;                                               \
    for (u32 z = blockIdx.z; z < (COUNT); z += gridDim.z) BODY(p, z);                       \
  }
#define CONTRACTION(NAME, OF)                               \
  CONV(NAME##_tiles, p.groups * p.splits, tiles<OF>)        \
  CONV(NAME##_singly, p.groups * p.splits, singly<OF>)

CONTRACTION(forward, Forward<float>)
CONTRACTION(quantised, Forward<int>)
CONTRACTION(by_input, ByInput)
CONTRACTION(by_weight, ByWeight)
CONV(by_weight_sums, p.groups, sums<ByWeight>)

// Of contractions on tensor cores: the sums of splits, in order, a thread to a result. `a` has the parts.
extern "C" __global__ void __launch_bounds__(256) sum_of_splits(const __grid_constant__ TensorConv p) {
  const Product& of = p.p;
  u32 place = thread_index(), row = place / of.n, column = place % of.n, i[3], j[3];
  if (((const Fault*)of.fault)->set || place >= of.m * of.n) return;
  p.columns.parts(column, j);
  if (j[2] >= p.columns.limit) return;
  p.rows.parts(row, i);
  for (u32 group = blockIdx.y; group < of.count; group += gridDim.y) {
    float v = 0;
#pragma unroll 1
    for (u32 split = 0; split < of.splits; split++) {
      float part = ((const float*)of.a.at)[((i64)split * of.count + group) * of.m * of.n + place];
      v = split == 0 ? part : plus(v, part);
    }
    store(of.c.at, of.c.dtype, group * of.c.batches[0] + p.rows.at(i) + p.columns.at(j),
          finished(of, group * of.n + column, v));
  }
}
