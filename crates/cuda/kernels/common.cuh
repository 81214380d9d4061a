// What all kernels share: types, elements of any dtype, places of elements, and the fault that stops what is queued
// behind it. Header-free: NVRTC's own functions are enough. f32 arithmetic is written with the correctly rounded
// intrinsics, since `--fmad=false` alone would leave the choice to a flag.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

// Dtypes as `View` of the host side numbers them.
enum { F32 = 0, F16 = 1, BF16 = 2, I64 = 3, U32 = 4, I8 = 5, BOOL = 6 };

constexpr u32 MAX_RANK = 8;

// An operand: the address of its first element, and how far neighbours lie apart, in elements.
struct Operand {
  u64 at;
  u32 dtype;
  u32 unused;
  i64 strides[MAX_RANK];
};

// Set by the check of an index, read by every kernel queued behind it: nothing runs after an error.
struct Fault {
  u32 set;
  u32 operation;
  i64 index;
  u64 size;
};

#define INFINITE __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fc00000u)

__device__ __forceinline__ float widen_f16(u16 h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}

__device__ __forceinline__ u16 narrow_f16(float f) {
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}

__device__ __forceinline__ float widen_bf16(u16 h) { return __uint_as_float((u32)h << 16); }

// To nearest even in integers: the instruction needs capability 8.0. A NaN stays one.
__device__ __forceinline__ u16 narrow_bf16(float f) {
  u32 bits = __float_as_uint(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)((bits >> 16) | 0x40u);
  return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// A float of any of the three formats, widened exactly.
__device__ __forceinline__ float load(u64 at, u32 dtype, i64 i) {
  if (dtype == F32) return ((const float*)at)[i];
  u16 code = ((const u16*)at)[i];
  return dtype == F16 ? widen_f16(code) : widen_bf16(code);
}

// Rounded once.
__device__ __forceinline__ void store(u64 at, u32 dtype, i64 i, float value) {
  if (dtype == F32)
    ((float*)at)[i] = value;
  else
    ((u16*)at)[i] = dtype == F16 ? narrow_f16(value) : narrow_bf16(value);
}

__device__ __forceinline__ float load(const Operand& from, i64 i) { return load(from.at, from.dtype, i); }
__device__ __forceinline__ void store(const Operand& to, i64 i, float value) { store(to.at, to.dtype, i, value); }

// Integers and booleans exactly, as i64.
__device__ __forceinline__ i64 load_integer(const Operand& from, i64 i) {
  switch (from.dtype) {
    case I64: return ((const i64*)from.at)[i];
    case U32: return (i64)((const u32*)from.at)[i];
    case I8: return (i64)((const i8*)from.at)[i];
    default: return (i64)((const u8*)from.at)[i];
  }
}

// An element as it is, whatever it stands for.
__device__ __forceinline__ u32 size_of(u32 dtype) {
  switch (dtype) {
    case I64: return 8;
    case F32:
    case U32: return 4;
    case F16:
    case BF16: return 2;
    default: return 1;
  }
}
__device__ __forceinline__ u64 load_bits(const Operand& from, i64 i) {
  switch (size_of(from.dtype)) {
    case 8: return ((const u64*)from.at)[i];
    case 4: return ((const u32*)from.at)[i];
    case 2: return ((const u16*)from.at)[i];
    default: return ((const u8*)from.at)[i];
  }
}
__device__ __forceinline__ void store_bits(const Operand& to, i64 i, u64 bits) {
  switch (size_of(to.dtype)) {
    case 8: ((u64*)to.at)[i] = bits; break;
    case 4: ((u32*)to.at)[i] = (u32)bits; break;
    case 2: ((u16*)to.at)[i] = (u16)bits; break;
    default: ((u8*)to.at)[i] = (u8)bits;
  }
}

// A double rounded to odd: rounding it once more, to 16 bit, is as rounding once.
__device__ __forceinline__ float to_odd(double value) {
  float near = __double2float_rn(value);
  if ((double)near == value || value != value || __float_as_uint(near) << 1 == 0xff000000u) {
    // Beyond the largest number, rounding to odd stops at it, which is odd.
    if ((double)near != value && value == value && fabs(value) < __longlong_as_double(0x7ff0000000000000ll))
      return __uint_as_float((__float_as_uint(near) & 0x80000000u) | 0x7f7fffffu);
    return near;
  }
  float down = __double2float_rz(value);
  return __uint_as_float(__float_as_uint(down) | 1u);
}

// A double into any float format, rounded once.
__device__ __forceinline__ void store_wide(u64 at, u32 dtype, i64 i, double value) {
  store(at, dtype, i, dtype == F32 ? __double2float_rn(value) : to_odd(value));
}

// NaN wins; of zeros, the second operand.
__device__ __forceinline__ float larger(float a, float b) { return a != a || a > b ? a : b; }
__device__ __forceinline__ float smaller(float a, float b) { return a != a || a < b ? a : b; }

__device__ __forceinline__ bool is_finite(float x) { return (__float_as_uint(x) & 0x7fffffffu) < 0x7f800000u; }
__device__ __forceinline__ bool is_finite(double x) {
  return (__double_as_longlong(x) & 0x7fffffffffffffffll) < 0x7ff0000000000000ll;
}

// Beyond 2^-40 and 2^40 a product of three may leave the range.
__device__ __forceinline__ bool is_extreme(float x) {
  u32 bits = __float_as_uint(x) & 0x7fffffffu;
  return bits != 0u && bits - ((127u - 40u) << 23) > (80u << 23);
}

__device__ __forceinline__ bool is_small(float x) { return (__float_as_uint(x) & 0x7fffffffu) < (127u - 60u) << 23; }

// The sum of the values of 16 neighbouring threads by halves, in the order of the CPU; the first of them has it.
// All threads of the warp must call it.
__device__ __forceinline__ float sum_of_16(float v) {
  v = __fadd_rn(v, __shfl_down_sync(0xffffffffu, v, 8, 16));
  v = __fadd_rn(v, __shfl_down_sync(0xffffffffu, v, 4, 16));
  v = __fadd_rn(v, __shfl_down_sync(0xffffffffu, v, 2, 16));
  return __fadd_rn(v, __shfl_down_sync(0xffffffffu, v, 1, 16));
}

__device__ __forceinline__ u32 thread_index() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u32 thread_count() { return gridDim.x * blockDim.x; }
