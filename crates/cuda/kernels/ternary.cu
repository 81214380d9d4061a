// Functions of three tensors and a number, and their derivatives.
// Written by the rows of the operator table (tests/cuda/rows); not to be edited.
//
// Shapes: tensors that broadcast to one shape, of any strides and float dtypes.
// Tiling: none: a thread has an element, and the next one a grid further on.
// Needs: at most 33 registers to a thread, no shared memory.
// Checked against: the rows of the reference in f64, and the CPU's bits.
#include "elementwise.cuh"

__device__ __forceinline__ float Addcmul_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fmul_rn(t3, t1);
  float t5 = __fmul_rn(t4, t2);
  float t6 = __fadd_rn(t0, t5);
  return t6;
}

__device__ __forceinline__ double Addcmul_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __dmul_rn(t3, t1);
  double t5 = __dmul_rn(t4, t2);
  double t6 = __dadd_rn(t0, t5);
  return t6;
}

ELEMENTWISE(Addcmul, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float a = load(p.in[1], at.in[1]);
  float b = load(p.in[2], at.in[2]);
  float y = Addcmul_f(x, a, b, v);
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(Addcmul_f_wide((double)x, (double)a, (double)b, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Addcmul_0_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __uint_as_float(0x3f800000u);
  return t4;
}

__device__ __forceinline__ double Addcmul_0_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __longlong_as_double(0x3ff0000000000000ll);
  return t4;
}

ELEMENTWISE(Addcmul_0_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Addcmul_0_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Addcmul_0_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Addcmul_1_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fmul_rn(t3, t2);
  return t4;
}

__device__ __forceinline__ double Addcmul_1_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __dmul_rn(t3, t2);
  return t4;
}

ELEMENTWISE(Addcmul_1_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Addcmul_1_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Addcmul_1_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Addcmul_2_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fmul_rn(t3, t1);
  return t4;
}

__device__ __forceinline__ double Addcmul_2_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __dmul_rn(t3, t1);
  return t4;
}

ELEMENTWISE(Addcmul_2_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Addcmul_2_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Addcmul_2_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Addcdiv_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fmul_rn(t3, t1);
  float t5 = __fdiv_rn(t4, t2);
  float t6 = __fadd_rn(t0, t5);
  return t6;
}

__device__ __forceinline__ double Addcdiv_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __dmul_rn(t3, t1);
  double t5 = __ddiv_rn(t4, t2);
  double t6 = __dadd_rn(t0, t5);
  return t6;
}

ELEMENTWISE(Addcdiv, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float a = load(p.in[1], at.in[1]);
  float b = load(p.in[2], at.in[2]);
  float y = Addcdiv_f(x, a, b, v);
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(Addcdiv_f_wide((double)x, (double)a, (double)b, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Addcdiv_0_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __uint_as_float(0x3f800000u);
  return t4;
}

__device__ __forceinline__ double Addcdiv_0_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __longlong_as_double(0x3ff0000000000000ll);
  return t4;
}

ELEMENTWISE(Addcdiv_0_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Addcdiv_0_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Addcdiv_0_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Addcdiv_1_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fdiv_rn(t3, t2);
  return t4;
}

__device__ __forceinline__ double Addcdiv_1_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __ddiv_rn(t3, t2);
  return t4;
}

ELEMENTWISE(Addcdiv_1_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Addcdiv_1_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Addcdiv_1_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Addcdiv_2_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fmul_rn(t3, t1);
  float t5 = __fdiv_rn(t4, t2);
  float t6 = __fdiv_rn(t5, t2);
  float t7 = -t6;
  return t7;
}

__device__ __forceinline__ double Addcdiv_2_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __dmul_rn(t3, t1);
  double t5 = __ddiv_rn(t4, t2);
  double t6 = __ddiv_rn(t5, t2);
  double t7 = -t6;
  return t7;
}

ELEMENTWISE(Addcdiv_2_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Addcdiv_2_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Addcdiv_2_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Lerp_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fsub_rn(t1, t0);
  float t5 = fabsf(t2);
  float t6 = __uint_as_float(0x3f000000u);
  bool t7 = t5 < t6;
  float t8 = __fmul_rn(t2, t4);
  float t9 = __fadd_rn(t0, t8);
  float t10 = __uint_as_float(0x3f800000u);
  float t11 = __fsub_rn(t10, t2);
  float t12 = __fmul_rn(t4, t11);
  float t13 = __fsub_rn(t1, t12);
  float t14 = t7 ? t9 : t13;
  return t14;
}

__device__ __forceinline__ double Lerp_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __dsub_rn(t1, t0);
  double t5 = fabs(t2);
  double t6 = __longlong_as_double(0x3fe0000000000000ll);
  bool t7 = t5 < t6;
  double t8 = __dmul_rn(t2, t4);
  double t9 = __dadd_rn(t0, t8);
  double t10 = __longlong_as_double(0x3ff0000000000000ll);
  double t11 = __dsub_rn(t10, t2);
  double t12 = __dmul_rn(t4, t11);
  double t13 = __dsub_rn(t1, t12);
  double t14 = t7 ? t9 : t13;
  return t14;
}

ELEMENTWISE(Lerp, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float a = load(p.in[1], at.in[1]);
  float b = load(p.in[2], at.in[2]);
  float y = Lerp_f(x, a, b, v);
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(Lerp_f_wide((double)x, (double)a, (double)b, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Lerp_0_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = __fsub_rn(t4, t2);
  return t5;
}

__device__ __forceinline__ double Lerp_0_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __longlong_as_double(0x3ff0000000000000ll);
  double t5 = __dsub_rn(t4, t2);
  return t5;
}

ELEMENTWISE(Lerp_0_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Lerp_0_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Lerp_0_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Lerp_1_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  return t2;
}

__device__ __forceinline__ double Lerp_1_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  return t2;
}

ELEMENTWISE(Lerp_1_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Lerp_1_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Lerp_1_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Lerp_2_f(float x, float a, float b, float v) {
  float t0 = x;
  float t1 = a;
  float t2 = b;
  float t3 = v;
  float t4 = __fsub_rn(t1, t0);
  return t4;
}

__device__ __forceinline__ double Lerp_2_f_wide(double x, double a, double b, double v) {
  double t0 = x;
  double t1 = a;
  double t2 = b;
  double t3 = v;
  double t4 = __dsub_rn(t1, t0);
  return t4;
}

ELEMENTWISE(Lerp_2_backward, 4, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float a = load(p.in[2], at.in[2]);
  float b = load(p.in[3], at.in[3]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, Lerp_2_f(x, a, b, v));
  if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(__dmul_rn((double)g, Lerp_2_f_wide((double)x, (double)a, (double)b, p.value)));
  store(p.out, at.out, y);
})
