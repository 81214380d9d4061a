// Losses of a prediction and a target, their sums, and their derivatives.
// Written by the rows of the operator table (tests/cuda/rows); not to be edited.
//
// Shapes: tensors that broadcast to one shape, of any strides and float dtypes.
// Tiling: none: a thread has an element, and the next one a grid further on.
// Needs: at most 37 registers to a thread, no shared memory.
// Checked against: the rows of the reference in f64, and the CPU's bits.
#include "elementwise.cuh"
#include "sums.cuh"

__device__ __forceinline__ float Mse_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = __fmul_rn(t3, t3);
  return t4;
}

__device__ __forceinline__ double Mse_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = __dmul_rn(t3, t3);
  return t4;
}

ELEMENTWISE(Mse, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = Mse_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(Mse_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Mse_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = __fadd_rn(t3, t3);
  return t4;
}

__device__ __forceinline__ double Mse_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = __dadd_rn(t3, t3);
  return t4;
}

ELEMENTWISE(Mse_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(Mse_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), Mse_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Mse_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = __fadd_rn(t3, t3);
  float t5 = -t4;
  return t5;
}

__device__ __forceinline__ double Mse_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = __dadd_rn(t3, t3);
  double t5 = -t4;
  return t5;
}

ELEMENTWISE(Mse_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(Mse_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), Mse_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(Mse)

__device__ __forceinline__ float L1_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = fabsf(t3);
  return t4;
}

__device__ __forceinline__ double L1_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = fabs(t3);
  return t4;
}

ELEMENTWISE(L1, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = L1_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(L1_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float L1_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = __uint_as_float(0x00000000u);
  bool t5 = t4 < t3;
  float t6 = __uint_as_float(0x3f800000u);
  bool t7 = t3 < t4;
  float t8 = __uint_as_float(0xbf800000u);
  float t9 = t7 ? t8 : t3;
  float t10 = t5 ? t6 : t9;
  return t10;
}

__device__ __forceinline__ double L1_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = __longlong_as_double(0x0000000000000000ll);
  bool t5 = t4 < t3;
  double t6 = __longlong_as_double(0x3ff0000000000000ll);
  bool t7 = t3 < t4;
  double t8 = __longlong_as_double(0xbff0000000000000ll);
  double t9 = t7 ? t8 : t3;
  double t10 = t5 ? t6 : t9;
  return t10;
}

ELEMENTWISE(L1_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(L1_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), L1_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float L1_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = __uint_as_float(0x00000000u);
  bool t5 = t4 < t3;
  float t6 = __uint_as_float(0x3f800000u);
  bool t7 = t3 < t4;
  float t8 = __uint_as_float(0xbf800000u);
  float t9 = t7 ? t8 : t3;
  float t10 = t5 ? t6 : t9;
  float t11 = -t10;
  return t11;
}

__device__ __forceinline__ double L1_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = __longlong_as_double(0x0000000000000000ll);
  bool t5 = t4 < t3;
  double t6 = __longlong_as_double(0x3ff0000000000000ll);
  bool t7 = t3 < t4;
  double t8 = __longlong_as_double(0xbff0000000000000ll);
  double t9 = t7 ? t8 : t3;
  double t10 = t5 ? t6 : t9;
  double t11 = -t10;
  return t11;
}

ELEMENTWISE(L1_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(L1_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), L1_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(L1)

__device__ __forceinline__ float SmoothL1_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = fabsf(t3);
  float t5 = __uint_as_float(0x3f000000u);
  bool t6 = t4 < t2;
  float t7 = __fmul_rn(t5, t4);
  float t8 = __fdiv_rn(t4, t2);
  float t9 = __fmul_rn(t7, t8);
  float t10 = __fmul_rn(t5, t2);
  float t11 = __fsub_rn(t4, t10);
  float t12 = t6 ? t9 : t11;
  return t12;
}

__device__ __forceinline__ double SmoothL1_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = fabs(t3);
  double t5 = __longlong_as_double(0x3fe0000000000000ll);
  bool t6 = t4 < t2;
  double t7 = __dmul_rn(t5, t4);
  double t8 = __ddiv_rn(t4, t2);
  double t9 = __dmul_rn(t7, t8);
  double t10 = __dmul_rn(t5, t2);
  double t11 = __dsub_rn(t4, t10);
  double t12 = t6 ? t9 : t11;
  return t12;
}

ELEMENTWISE(SmoothL1, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = SmoothL1_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(SmoothL1_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float SmoothL1_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = fabsf(t3);
  bool t5 = t4 < t2;
  float t6 = __uint_as_float(0x00000000u);
  bool t7 = t2 == t6;
  float t8 = __fdiv_rn(t3, t2);
  float t9 = __uint_as_float(0x00000000u);
  bool t10 = t9 < t3;
  float t11 = __uint_as_float(0x3f800000u);
  bool t12 = t3 < t9;
  float t13 = __uint_as_float(0xbf800000u);
  float t14 = t12 ? t13 : t3;
  float t15 = t10 ? t11 : t14;
  float t16 = t5 ? t8 : t15;
  return t16;
}

__device__ __forceinline__ double SmoothL1_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = fabs(t3);
  bool t5 = t4 < t2;
  double t6 = __longlong_as_double(0x0000000000000000ll);
  bool t7 = t2 == t6;
  double t8 = __ddiv_rn(t3, t2);
  double t9 = __longlong_as_double(0x0000000000000000ll);
  bool t10 = t9 < t3;
  double t11 = __longlong_as_double(0x3ff0000000000000ll);
  bool t12 = t3 < t9;
  double t13 = __longlong_as_double(0xbff0000000000000ll);
  double t14 = t12 ? t13 : t3;
  double t15 = t10 ? t11 : t14;
  double t16 = t5 ? t8 : t15;
  return t16;
}

ELEMENTWISE(SmoothL1_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(SmoothL1_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), SmoothL1_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float SmoothL1_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = fabsf(t3);
  bool t5 = t4 < t2;
  float t6 = __uint_as_float(0x00000000u);
  bool t7 = t2 == t6;
  float t8 = __fdiv_rn(t3, t2);
  float t9 = __uint_as_float(0x00000000u);
  bool t10 = t9 < t3;
  float t11 = __uint_as_float(0x3f800000u);
  bool t12 = t3 < t9;
  float t13 = __uint_as_float(0xbf800000u);
  float t14 = t12 ? t13 : t3;
  float t15 = t10 ? t11 : t14;
  float t16 = t5 ? t8 : t15;
  float t17 = -t16;
  return t17;
}

__device__ __forceinline__ double SmoothL1_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = fabs(t3);
  bool t5 = t4 < t2;
  double t6 = __longlong_as_double(0x0000000000000000ll);
  bool t7 = t2 == t6;
  double t8 = __ddiv_rn(t3, t2);
  double t9 = __longlong_as_double(0x0000000000000000ll);
  bool t10 = t9 < t3;
  double t11 = __longlong_as_double(0x3ff0000000000000ll);
  bool t12 = t3 < t9;
  double t13 = __longlong_as_double(0xbff0000000000000ll);
  double t14 = t12 ? t13 : t3;
  double t15 = t10 ? t11 : t14;
  double t16 = t5 ? t8 : t15;
  double t17 = -t16;
  return t17;
}

ELEMENTWISE(SmoothL1_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(SmoothL1_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), SmoothL1_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(SmoothL1)

__device__ __forceinline__ float Huber_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = fabsf(t3);
  float t5 = __uint_as_float(0x3f000000u);
  bool t6 = t4 <= t2;
  float t7 = __fmul_rn(t5, t4);
  float t8 = __fmul_rn(t7, t4);
  float t9 = __fmul_rn(t5, t2);
  float t10 = __fsub_rn(t4, t9);
  float t11 = __fmul_rn(t2, t10);
  float t12 = t6 ? t8 : t11;
  return t12;
}

__device__ __forceinline__ double Huber_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = fabs(t3);
  double t5 = __longlong_as_double(0x3fe0000000000000ll);
  bool t6 = t4 <= t2;
  double t7 = __dmul_rn(t5, t4);
  double t8 = __dmul_rn(t7, t4);
  double t9 = __dmul_rn(t5, t2);
  double t10 = __dsub_rn(t4, t9);
  double t11 = __dmul_rn(t2, t10);
  double t12 = t6 ? t8 : t11;
  return t12;
}

ELEMENTWISE(Huber, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = Huber_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(Huber_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Huber_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = -t2;
  float t5 = larger(t3, t4);
  float t6 = smaller(t5, t2);
  return t6;
}

__device__ __forceinline__ double Huber_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = -t2;
  double t5 = wide_max(t3, t4);
  double t6 = wide_min(t5, t2);
  return t6;
}

ELEMENTWISE(Huber_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(Huber_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), Huber_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Huber_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = -t2;
  float t5 = larger(t3, t4);
  float t6 = smaller(t5, t2);
  float t7 = -t6;
  return t7;
}

__device__ __forceinline__ double Huber_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = -t2;
  double t5 = wide_max(t3, t4);
  double t6 = wide_min(t5, t2);
  double t7 = -t6;
  return t7;
}

ELEMENTWISE(Huber_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(Huber_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), Huber_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(Huber)

__device__ __forceinline__ float BceWithLogits_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __uint_as_float(0x00000000u);
  float t4 = larger(t0, t3);
  float t5 = __fmul_rn(t0, t1);
  float t6 = __fsub_rn(t4, t5);
  float t7 = fabsf(t0);
  float t8 = -t7;
  float t9 = fabsf(t8);
  float t10 = __uint_as_float(0x42ae0000u);
  bool t11 = t9 < t10;
  float t12 = __uint_as_float(0xc2d00000u);
  bool t13 = t8 < t12;
  float t14 = __uint_as_float(0x00000000u);
  float t15 = __uint_as_float(0xc2d00000u);
  bool t16 = t8 < t15;
  float t17 = __uint_as_float(0xc2d00000u);
  float t18 = __uint_as_float(0x42b20000u);
  float t19 = t8 < t17 ? t17 : t8 > t18 ? t18 : t8;
  float t20 = t16 ? t14 : t19;
  float t21 = __uint_as_float(0x3fb8aa3bu);
  float t22 = __uint_as_float(0x4b400000u);
  float t23 = __fmaf_rn(t20, t21, t22);
  float t24 = __uint_as_float(0x4b400000u);
  float t25 = __fsub_rn(t23, t24);
  float t26 = __uint_as_float(0xbf317180u);
  float t27 = __fmaf_rn(t25, t26, t20);
  float t28 = __uint_as_float(0xb717f7d1u);
  float t29 = __fmaf_rn(t25, t28, t27);
  float t30 = __uint_as_float(0x3ab52794u);
  float t31 = __uint_as_float(0x3c091cc0u);
  float t32 = __fmaf_rn(t30, t29, t31);
  float t33 = __uint_as_float(0x3d2aac57u);
  float t34 = __fmaf_rn(t32, t29, t33);
  float t35 = __uint_as_float(0x3e2aaa49u);
  float t36 = __fmaf_rn(t34, t29, t35);
  float t37 = __uint_as_float(0x3efffffeu);
  float t38 = __fmaf_rn(t36, t29, t37);
  float t39 = __fmul_rn(t29, t29);
  float t40 = __fmaf_rn(t39, t38, t29);
  float t41 = __uint_as_float(0x3f800000u);
  float t42 = __fadd_rn(t40, t41);
  float t43 = __uint_as_float(0x3f000000u);
  float t44 = __fmul_rn(t25, t43);
  float t45 = rintf(t44);
  float t46 = __int_as_float(__float_as_int(__fadd_rn(t45, 8388735.0f)) << 23);
  float t47 = __fmul_rn(t42, t46);
  float t48 = __fsub_rn(t25, t45);
  float t49 = __int_as_float(__float_as_int(__fadd_rn(t48, 8388735.0f)) << 23);
  float t50 = __fmul_rn(t47, t49);
  float t51 = t16 ? t14 : t50;
  float t52 = __uint_as_float(0x3f800000u);
  float t53 = __fadd_rn(t52, t51);
  bool t54 = t51 < t52;
  float t55 = __fsub_rn(t53, t52);
  float t56 = __fsub_rn(t51, t55);
  float t57 = __fsub_rn(t53, t51);
  float t58 = __fsub_rn(t52, t57);
  float t59 = t54 ? t56 : t58;
  int t60 = __float_as_int(t53) - 0x3f3504f3;
  int t61 = t60 >> 23;
  float t62 = __uint_as_float(__float_as_uint(t53) - ((u32)t61 << 23));
  float t63 = __int2float_rn(t61);
  float t64 = -t63;
  float t65 = __uint_as_float(0xc2c80000u);
  float t66 = __uint_as_float(0x42c80000u);
  float t67 = t64 < t65 ? t65 : t64 > t66 ? t66 : t64;
  float t68 = __int_as_float(__float_as_int(__fadd_rn(t67, 8388735.0f)) << 23);
  float t69 = __fsub_rn(t62, t52);
  float t70 = __fmaf_rn(t59, t68, t69);
  float t71 = __uint_as_float(0x40000000u);
  float t72 = __fadd_rn(t71, t70);
  float t73 = __fdiv_rn(t70, t72);
  float t74 = __fmul_rn(t73, t73);
  float t75 = __uint_as_float(0x3e789e26u);
  float t76 = __uint_as_float(0x3e91e9eeu);
  float t77 = __fmaf_rn(t75, t74, t76);
  float t78 = __uint_as_float(0x3eccce13u);
  float t79 = __fmaf_rn(t77, t74, t78);
  float t80 = __uint_as_float(0x3f2aaaaau);
  float t81 = __fmaf_rn(t79, t74, t80);
  float t82 = __fmul_rn(t81, t74);
  float t83 = __uint_as_float(0x3f000000u);
  float t84 = __fmul_rn(t83, t70);
  float t85 = __fmul_rn(t84, t70);
  float t86 = __uint_as_float(0x3f317180u);
  float t87 = __fadd_rn(t85, t82);
  float t88 = __uint_as_float(0x3717f7d1u);
  float t89 = __fmul_rn(t63, t88);
  float t90 = __fmaf_rn(t73, t87, t89);
  float t91 = __fsub_rn(t85, t90);
  float t92 = __fsub_rn(t70, t91);
  float t93 = __fmaf_rn(t63, t86, t92);
  float t94 = __uint_as_float(0x00000000u);
  bool t95 = t53 == t94;
  float t96 = __uint_as_float(0xff800000u);
  float t97 = t95 ? t96 : t93;
  float t98 = __uint_as_float(0x7f800000u);
  bool t99 = t53 < t98;
  float t100 = t99 ? t97 : t53;
  float t101 = __uint_as_float(0x00000000u);
  bool t102 = t53 < t101;
  float t103 = __uint_as_float(0x7fc00000u);
  float t104 = t102 ? t103 : t100;
  float t105 = __uint_as_float((__float_as_uint(t104) & 0x7fffffffu) | (__float_as_uint(t51) & 0x80000000u));
  float t106 = __fadd_rn(t6, t105);
  return t106;
}

__device__ __forceinline__ double BceWithLogits_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __longlong_as_double(0x0000000000000000ll);
  double t4 = wide_max(t0, t3);
  double t5 = __dmul_rn(t0, t1);
  double t6 = __dsub_rn(t4, t5);
  double t7 = fabs(t0);
  double t8 = -t7;
  double t9 = wide_exp(t8);
  double t10 = log1p(t9);
  double t11 = __dadd_rn(t6, t10);
  return t11;
}

ELEMENTWISE(BceWithLogits, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = BceWithLogits_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(BceWithLogits_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float BceWithLogits_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __uint_as_float(0x00000000u);
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = fabsf(t0);
  float t6 = -t5;
  float t7 = __uint_as_float(0xc2e00000u);
  float t8 = __uint_as_float(0x00000000u);
  float t9 = t6 < t7 ? t7 : t6 > t8 ? t8 : t6;
  float t10 = __uint_as_float(0x3fb8aa3bu);
  float t11 = __uint_as_float(0x4b400000u);
  float t12 = __fmaf_rn(t9, t10, t11);
  float t13 = __uint_as_float(0x4b400000u);
  float t14 = __fsub_rn(t12, t13);
  float t15 = __uint_as_float(0xbf317180u);
  float t16 = __fmaf_rn(t14, t15, t9);
  float t17 = __uint_as_float(0xb717f7d1u);
  float t18 = __fmaf_rn(t14, t17, t16);
  float t19 = __uint_as_float(0x3ab52794u);
  float t20 = __uint_as_float(0x3c091cc0u);
  float t21 = __fmaf_rn(t19, t18, t20);
  float t22 = __uint_as_float(0x3d2aac57u);
  float t23 = __fmaf_rn(t21, t18, t22);
  float t24 = __uint_as_float(0x3e2aaa49u);
  float t25 = __fmaf_rn(t23, t18, t24);
  float t26 = __uint_as_float(0x3efffffeu);
  float t27 = __fmaf_rn(t25, t18, t26);
  float t28 = __fmul_rn(t18, t18);
  float t29 = __fmaf_rn(t28, t27, t18);
  float t30 = __fadd_rn(t4, t29);
  float t31 = __fsub_rn(t30, t4);
  float t32 = __fsub_rn(t29, t31);
  float t33 = __uint_as_float(0xc2c80000u);
  float t34 = __uint_as_float(0x00000000u);
  float t35 = t14 < t33 ? t33 : t14 > t34 ? t34 : t14;
  float t36 = __int_as_float(__float_as_int(__fadd_rn(t35, 8388735.0f)) << 23);
  float t37 = __fmul_rn(t36, t30);
  float t38 = __fadd_rn(t4, t37);
  float t39 = __fsub_rn(t38, t4);
  float t40 = __fsub_rn(t37, t39);
  float t41 = __fmaf_rn(t36, t32, t40);
  bool t42 = t0 < t3;
  float t43 = t42 ? t30 : t4;
  float t44 = t42 ? t32 : t3;
  float t45 = t42 ? t14 : t3;
  float t46 = __fdiv_rn(t4, t38);
  float t47 = __fmul_rn(t43, t46);
  float t48 = -t47;
  float t49 = __fmaf_rn(t48, t38, t43);
  float t50 = -t47;
  float t51 = __fmaf_rn(t50, t41, t44);
  float t52 = __fadd_rn(t49, t51);
  float t53 = __fmaf_rn(t52, t46, t47);
  float t54 = __uint_as_float(0x3f000000u);
  float t55 = __fmul_rn(t45, t54);
  float t56 = rintf(t55);
  float t57 = __int_as_float(__float_as_int(__fadd_rn(t56, 8388735.0f)) << 23);
  float t58 = __fmul_rn(t53, t57);
  float t59 = __fsub_rn(t45, t56);
  float t60 = __int_as_float(__float_as_int(__fadd_rn(t59, 8388735.0f)) << 23);
  float t61 = __fmul_rn(t58, t60);
  float t62 = __fsub_rn(t61, t1);
  return t62;
}

__device__ __forceinline__ double BceWithLogits_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = wide_sigmoid(t0);
  double t4 = __dsub_rn(t3, t1);
  return t4;
}

ELEMENTWISE(BceWithLogits_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(BceWithLogits_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), BceWithLogits_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float BceWithLogits_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = -t0;
  return t3;
}

__device__ __forceinline__ double BceWithLogits_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = -t0;
  return t3;
}

ELEMENTWISE(BceWithLogits_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(BceWithLogits_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), BceWithLogits_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(BceWithLogits)

__device__ __forceinline__ float Bce_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = fabsf(t0);
  float t4 = __uint_as_float(0x0000001au);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0x00800000u);
  bool t7 = t0 < t6;
  float t8 = __uint_as_float(0x4c000000u);
  float t9 = __fmul_rn(t0, t8);
  float t10 = t7 ? t9 : t0;
  int t11 = __float_as_int(t10) - 0x3f3504f3;
  int t12 = t11 >> 23;
  float t13 = __uint_as_float(__float_as_uint(t10) - ((u32)t12 << 23));
  float t14 = __int2float_rn(t12);
  float t15 = __uint_as_float(0x41c80000u);
  float t16 = __uint_as_float(0x00000000u);
  float t17 = t7 ? t15 : t16;
  float t18 = __fsub_rn(t14, t17);
  float t19 = __uint_as_float(0x3f800000u);
  float t20 = __fsub_rn(t13, t19);
  float t21 = __uint_as_float(0x40000000u);
  float t22 = __fadd_rn(t21, t20);
  float t23 = __fdiv_rn(t20, t22);
  float t24 = __fmul_rn(t23, t23);
  float t25 = __uint_as_float(0x3e789e26u);
  float t26 = __uint_as_float(0x3e91e9eeu);
  float t27 = __fmaf_rn(t25, t24, t26);
  float t28 = __uint_as_float(0x3eccce13u);
  float t29 = __fmaf_rn(t27, t24, t28);
  float t30 = __uint_as_float(0x3f2aaaaau);
  float t31 = __fmaf_rn(t29, t24, t30);
  float t32 = __fmul_rn(t31, t24);
  float t33 = __uint_as_float(0x3f000000u);
  float t34 = __fmul_rn(t33, t20);
  float t35 = __fmul_rn(t34, t20);
  float t36 = __uint_as_float(0x3f317180u);
  float t37 = __fadd_rn(t35, t32);
  float t38 = __uint_as_float(0x3717f7d1u);
  float t39 = __fmul_rn(t18, t38);
  float t40 = __fmaf_rn(t23, t37, t39);
  float t41 = __fsub_rn(t35, t40);
  float t42 = __fsub_rn(t20, t41);
  float t43 = __fmaf_rn(t18, t36, t42);
  float t44 = __uint_as_float(0x00000000u);
  bool t45 = t0 == t44;
  float t46 = __uint_as_float(0xff800000u);
  float t47 = t45 ? t46 : t43;
  float t48 = __uint_as_float(0x7f800000u);
  bool t49 = t0 < t48;
  float t50 = t49 ? t47 : t0;
  float t51 = __uint_as_float(0x00000000u);
  bool t52 = t0 < t51;
  float t53 = __uint_as_float(0x7fc00000u);
  float t54 = t52 ? t53 : t50;
  float t55 = __uint_as_float(0xc2c80000u);
  float t56 = larger(t54, t55);
  float t57 = __fmul_rn(t1, t56);
  float t58 = __uint_as_float(0x3f800000u);
  float t59 = __fsub_rn(t58, t1);
  float t60 = -t0;
  float t61 = __uint_as_float(0xbf800000u);
  bool t62 = t60 == t61;
  float t63 = __uint_as_float(0x3f800000u);
  float t64 = __fadd_rn(t63, t60);
  bool t65 = t60 < t63;
  float t66 = __fsub_rn(t64, t63);
  float t67 = __fsub_rn(t60, t66);
  float t68 = __fsub_rn(t64, t60);
  float t69 = __fsub_rn(t63, t68);
  float t70 = t65 ? t67 : t69;
  int t71 = __float_as_int(t64) - 0x3f3504f3;
  int t72 = t71 >> 23;
  float t73 = __uint_as_float(__float_as_uint(t64) - ((u32)t72 << 23));
  float t74 = __int2float_rn(t72);
  float t75 = -t74;
  float t76 = __uint_as_float(0xc2c80000u);
  float t77 = __uint_as_float(0x42c80000u);
  float t78 = t75 < t76 ? t76 : t75 > t77 ? t77 : t75;
  float t79 = __int_as_float(__float_as_int(__fadd_rn(t78, 8388735.0f)) << 23);
  float t80 = __fsub_rn(t73, t63);
  float t81 = __fmaf_rn(t70, t79, t80);
  float t82 = __uint_as_float(0x40000000u);
  float t83 = __fadd_rn(t82, t81);
  float t84 = __fdiv_rn(t81, t83);
  float t85 = __fmul_rn(t84, t84);
  float t86 = __uint_as_float(0x3e789e26u);
  float t87 = __uint_as_float(0x3e91e9eeu);
  float t88 = __fmaf_rn(t86, t85, t87);
  float t89 = __uint_as_float(0x3eccce13u);
  float t90 = __fmaf_rn(t88, t85, t89);
  float t91 = __uint_as_float(0x3f2aaaaau);
  float t92 = __fmaf_rn(t90, t85, t91);
  float t93 = __fmul_rn(t92, t85);
  float t94 = __uint_as_float(0x3f000000u);
  float t95 = __fmul_rn(t94, t81);
  float t96 = __fmul_rn(t95, t81);
  float t97 = __uint_as_float(0x3f317180u);
  float t98 = __fadd_rn(t96, t93);
  float t99 = __uint_as_float(0x3717f7d1u);
  float t100 = __fmul_rn(t74, t99);
  float t101 = __fmaf_rn(t84, t98, t100);
  float t102 = __fsub_rn(t96, t101);
  float t103 = __fsub_rn(t81, t102);
  float t104 = __fmaf_rn(t74, t97, t103);
  float t105 = __uint_as_float(0x00000000u);
  bool t106 = t64 == t105;
  float t107 = __uint_as_float(0xff800000u);
  float t108 = t106 ? t107 : t104;
  float t109 = __uint_as_float(0x7f800000u);
  bool t110 = t64 < t109;
  float t111 = t110 ? t108 : t64;
  float t112 = __uint_as_float(0x00000000u);
  bool t113 = t64 < t112;
  float t114 = __uint_as_float(0x7fc00000u);
  float t115 = t113 ? t114 : t111;
  float t116 = __uint_as_float((__float_as_uint(t115) & 0x7fffffffu) | (__float_as_uint(t60) & 0x80000000u));
  float t117 = __uint_as_float(0xc2c80000u);
  float t118 = larger(t116, t117);
  float t119 = __fmul_rn(t59, t118);
  float t120 = __fadd_rn(t57, t119);
  float t121 = -t120;
  return t121;
}

__device__ __forceinline__ double Bce_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = fabs(t0);
  double t4 = __longlong_as_double(0x36ea6771f0481366ll);
  bool t5 = t3 < t4;
  double t6 = log(t0);
  double t7 = __longlong_as_double(0xc059000000000000ll);
  double t8 = wide_max(t6, t7);
  double t9 = __dmul_rn(t1, t8);
  double t10 = __longlong_as_double(0x3ff0000000000000ll);
  double t11 = __dsub_rn(t10, t1);
  double t12 = -t0;
  double t13 = __longlong_as_double(0xbff0000000000000ll);
  bool t14 = t12 == t13;
  double t15 = log1p(t12);
  double t16 = __longlong_as_double(0xc059000000000000ll);
  double t17 = wide_max(t15, t16);
  double t18 = __dmul_rn(t11, t17);
  double t19 = __dadd_rn(t9, t18);
  double t20 = -t19;
  return t20;
}

ELEMENTWISE(Bce, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = Bce_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(Bce_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Bce_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t0, t1);
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = __fsub_rn(t4, t0);
  float t6 = __fmul_rn(t0, t5);
  float t7 = __uint_as_float(0x2b8cbcccu);
  float t8 = larger(t6, t7);
  float t9 = __fdiv_rn(t3, t8);
  return t9;
}

__device__ __forceinline__ double Bce_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t0, t1);
  double t4 = __longlong_as_double(0x3ff0000000000000ll);
  double t5 = __dsub_rn(t4, t0);
  double t6 = __dmul_rn(t0, t5);
  double t7 = __longlong_as_double(0x3d719799812dea11ll);
  double t8 = wide_max(t6, t7);
  double t9 = __ddiv_rn(t3, t8);
  return t9;
}

ELEMENTWISE(Bce_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(Bce_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), Bce_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Bce_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = -t0;
  float t4 = __uint_as_float(0xbf800000u);
  bool t5 = t3 == t4;
  float t6 = __uint_as_float(0x3f800000u);
  float t7 = __fadd_rn(t6, t3);
  bool t8 = t3 < t6;
  float t9 = __fsub_rn(t7, t6);
  float t10 = __fsub_rn(t3, t9);
  float t11 = __fsub_rn(t7, t3);
  float t12 = __fsub_rn(t6, t11);
  float t13 = t8 ? t10 : t12;
  int t14 = __float_as_int(t7) - 0x3f3504f3;
  int t15 = t14 >> 23;
  float t16 = __uint_as_float(__float_as_uint(t7) - ((u32)t15 << 23));
  float t17 = __int2float_rn(t15);
  float t18 = -t17;
  float t19 = __uint_as_float(0xc2c80000u);
  float t20 = __uint_as_float(0x42c80000u);
  float t21 = t18 < t19 ? t19 : t18 > t20 ? t20 : t18;
  float t22 = __int_as_float(__float_as_int(__fadd_rn(t21, 8388735.0f)) << 23);
  float t23 = __fsub_rn(t16, t6);
  float t24 = __fmaf_rn(t13, t22, t23);
  float t25 = __uint_as_float(0x40000000u);
  float t26 = __fadd_rn(t25, t24);
  float t27 = __fdiv_rn(t24, t26);
  float t28 = __fmul_rn(t27, t27);
  float t29 = __uint_as_float(0x3e789e26u);
  float t30 = __uint_as_float(0x3e91e9eeu);
  float t31 = __fmaf_rn(t29, t28, t30);
  float t32 = __uint_as_float(0x3eccce13u);
  float t33 = __fmaf_rn(t31, t28, t32);
  float t34 = __uint_as_float(0x3f2aaaaau);
  float t35 = __fmaf_rn(t33, t28, t34);
  float t36 = __fmul_rn(t35, t28);
  float t37 = __uint_as_float(0x3f000000u);
  float t38 = __fmul_rn(t37, t24);
  float t39 = __fmul_rn(t38, t24);
  float t40 = __uint_as_float(0x3f317180u);
  float t41 = __fadd_rn(t39, t36);
  float t42 = __uint_as_float(0x3717f7d1u);
  float t43 = __fmul_rn(t17, t42);
  float t44 = __fmaf_rn(t27, t41, t43);
  float t45 = __fsub_rn(t39, t44);
  float t46 = __fsub_rn(t24, t45);
  float t47 = __fmaf_rn(t17, t40, t46);
  float t48 = __uint_as_float(0x00000000u);
  bool t49 = t7 == t48;
  float t50 = __uint_as_float(0xff800000u);
  float t51 = t49 ? t50 : t47;
  float t52 = __uint_as_float(0x7f800000u);
  bool t53 = t7 < t52;
  float t54 = t53 ? t51 : t7;
  float t55 = __uint_as_float(0x00000000u);
  bool t56 = t7 < t55;
  float t57 = __uint_as_float(0x7fc00000u);
  float t58 = t56 ? t57 : t54;
  float t59 = __uint_as_float((__float_as_uint(t58) & 0x7fffffffu) | (__float_as_uint(t3) & 0x80000000u));
  float t60 = __uint_as_float(0xc2c80000u);
  float t61 = larger(t59, t60);
  float t62 = fabsf(t0);
  float t63 = __uint_as_float(0x0000001au);
  bool t64 = t62 < t63;
  float t65 = __uint_as_float(0x00800000u);
  bool t66 = t0 < t65;
  float t67 = __uint_as_float(0x4c000000u);
  float t68 = __fmul_rn(t0, t67);
  float t69 = t66 ? t68 : t0;
  int t70 = __float_as_int(t69) - 0x3f3504f3;
  int t71 = t70 >> 23;
  float t72 = __uint_as_float(__float_as_uint(t69) - ((u32)t71 << 23));
  float t73 = __int2float_rn(t71);
  float t74 = __uint_as_float(0x41c80000u);
  float t75 = __uint_as_float(0x00000000u);
  float t76 = t66 ? t74 : t75;
  float t77 = __fsub_rn(t73, t76);
  float t78 = __uint_as_float(0x3f800000u);
  float t79 = __fsub_rn(t72, t78);
  float t80 = __uint_as_float(0x40000000u);
  float t81 = __fadd_rn(t80, t79);
  float t82 = __fdiv_rn(t79, t81);
  float t83 = __fmul_rn(t82, t82);
  float t84 = __uint_as_float(0x3e789e26u);
  float t85 = __uint_as_float(0x3e91e9eeu);
  float t86 = __fmaf_rn(t84, t83, t85);
  float t87 = __uint_as_float(0x3eccce13u);
  float t88 = __fmaf_rn(t86, t83, t87);
  float t89 = __uint_as_float(0x3f2aaaaau);
  float t90 = __fmaf_rn(t88, t83, t89);
  float t91 = __fmul_rn(t90, t83);
  float t92 = __uint_as_float(0x3f000000u);
  float t93 = __fmul_rn(t92, t79);
  float t94 = __fmul_rn(t93, t79);
  float t95 = __uint_as_float(0x3f317180u);
  float t96 = __fadd_rn(t94, t91);
  float t97 = __uint_as_float(0x3717f7d1u);
  float t98 = __fmul_rn(t77, t97);
  float t99 = __fmaf_rn(t82, t96, t98);
  float t100 = __fsub_rn(t94, t99);
  float t101 = __fsub_rn(t79, t100);
  float t102 = __fmaf_rn(t77, t95, t101);
  float t103 = __uint_as_float(0x00000000u);
  bool t104 = t0 == t103;
  float t105 = __uint_as_float(0xff800000u);
  float t106 = t104 ? t105 : t102;
  float t107 = __uint_as_float(0x7f800000u);
  bool t108 = t0 < t107;
  float t109 = t108 ? t106 : t0;
  float t110 = __uint_as_float(0x00000000u);
  bool t111 = t0 < t110;
  float t112 = __uint_as_float(0x7fc00000u);
  float t113 = t111 ? t112 : t109;
  float t114 = __uint_as_float(0xc2c80000u);
  float t115 = larger(t113, t114);
  float t116 = __fsub_rn(t61, t115);
  return t116;
}

__device__ __forceinline__ double Bce_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = -t0;
  double t4 = __longlong_as_double(0xbff0000000000000ll);
  bool t5 = t3 == t4;
  double t6 = log1p(t3);
  double t7 = __longlong_as_double(0xc059000000000000ll);
  double t8 = wide_max(t6, t7);
  double t9 = fabs(t0);
  double t10 = __longlong_as_double(0x36ea6771f0481366ll);
  bool t11 = t9 < t10;
  double t12 = log(t0);
  double t13 = __longlong_as_double(0xc059000000000000ll);
  double t14 = wide_max(t12, t13);
  double t15 = __dsub_rn(t8, t14);
  return t15;
}

ELEMENTWISE(Bce_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(Bce_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), Bce_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(Bce)

__device__ __forceinline__ float KlDiv_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __uint_as_float(0x00800000u);
  bool t4 = t1 < t3;
  float t5 = __uint_as_float(0x4c000000u);
  float t6 = __fmul_rn(t1, t5);
  float t7 = t4 ? t6 : t1;
  int t8 = __float_as_int(t7) - 0x3f3504f3;
  int t9 = t8 >> 23;
  float t10 = __uint_as_float(__float_as_uint(t7) - ((u32)t9 << 23));
  float t11 = __int2float_rn(t9);
  float t12 = __uint_as_float(0x41c80000u);
  float t13 = __uint_as_float(0x00000000u);
  float t14 = t4 ? t12 : t13;
  float t15 = __fsub_rn(t11, t14);
  float t16 = __uint_as_float(0x3f800000u);
  float t17 = __fsub_rn(t10, t16);
  float t18 = __uint_as_float(0x40000000u);
  float t19 = __fadd_rn(t18, t17);
  float t20 = __fdiv_rn(t17, t19);
  float t21 = __fmul_rn(t20, t20);
  float t22 = __uint_as_float(0x3e789e26u);
  float t23 = __uint_as_float(0x3e91e9eeu);
  float t24 = __fmaf_rn(t22, t21, t23);
  float t25 = __uint_as_float(0x3eccce13u);
  float t26 = __fmaf_rn(t24, t21, t25);
  float t27 = __uint_as_float(0x3f2aaaaau);
  float t28 = __fmaf_rn(t26, t21, t27);
  float t29 = __fmul_rn(t28, t21);
  float t30 = __uint_as_float(0x3f000000u);
  float t31 = __fmul_rn(t30, t17);
  float t32 = __fmul_rn(t31, t17);
  float t33 = __uint_as_float(0x3f317180u);
  float t34 = __fadd_rn(t32, t29);
  float t35 = __uint_as_float(0x3717f7d1u);
  float t36 = __fmul_rn(t15, t35);
  float t37 = __fmaf_rn(t20, t34, t36);
  float t38 = __fsub_rn(t32, t37);
  float t39 = __fsub_rn(t17, t38);
  float t40 = __fmaf_rn(t15, t33, t39);
  float t41 = __uint_as_float(0x00000000u);
  bool t42 = t1 == t41;
  float t43 = __uint_as_float(0xff800000u);
  float t44 = t42 ? t43 : t40;
  float t45 = __uint_as_float(0x7f800000u);
  bool t46 = t1 < t45;
  float t47 = t46 ? t44 : t1;
  float t48 = __uint_as_float(0x00000000u);
  bool t49 = t1 < t48;
  float t50 = __uint_as_float(0x7fc00000u);
  float t51 = t49 ? t50 : t47;
  float t52 = __fsub_rn(t51, t0);
  float t53 = __fmul_rn(t1, t52);
  float t54 = __uint_as_float(0x00000000u);
  bool t55 = t1 == t54;
  bool t56 = t0 == t0;
  float t57 = __uint_as_float(0x00000000u);
  float t58 = t56 ? t57 : t0;
  float t59 = t55 ? t58 : t53;
  return t59;
}

__device__ __forceinline__ double KlDiv_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = log(t1);
  double t4 = __dsub_rn(t3, t0);
  double t5 = __dmul_rn(t1, t4);
  double t6 = __longlong_as_double(0x0000000000000000ll);
  bool t7 = t1 == t6;
  bool t8 = t0 == t0;
  double t9 = __longlong_as_double(0x0000000000000000ll);
  double t10 = t8 ? t9 : t0;
  double t11 = t7 ? t10 : t5;
  return t11;
}

ELEMENTWISE(KlDiv, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = KlDiv_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(KlDiv_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float KlDiv_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = -t1;
  return t3;
}

__device__ __forceinline__ double KlDiv_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = -t1;
  return t3;
}

ELEMENTWISE(KlDiv_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(KlDiv_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), KlDiv_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float KlDiv_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __uint_as_float(0x00000000u);
  bool t4 = t1 == t3;
  float t5 = __uint_as_float(0x00800000u);
  bool t6 = t1 < t5;
  float t7 = __uint_as_float(0x4c000000u);
  float t8 = __fmul_rn(t1, t7);
  float t9 = t6 ? t8 : t1;
  int t10 = __float_as_int(t9) - 0x3f3504f3;
  int t11 = t10 >> 23;
  float t12 = __uint_as_float(__float_as_uint(t9) - ((u32)t11 << 23));
  float t13 = __int2float_rn(t11);
  float t14 = __uint_as_float(0x41c80000u);
  float t15 = __uint_as_float(0x00000000u);
  float t16 = t6 ? t14 : t15;
  float t17 = __fsub_rn(t13, t16);
  float t18 = __uint_as_float(0x3f800000u);
  float t19 = __fsub_rn(t12, t18);
  float t20 = __uint_as_float(0x40000000u);
  float t21 = __fadd_rn(t20, t19);
  float t22 = __fdiv_rn(t19, t21);
  float t23 = __fmul_rn(t22, t22);
  float t24 = __uint_as_float(0x3e789e26u);
  float t25 = __uint_as_float(0x3e91e9eeu);
  float t26 = __fmaf_rn(t24, t23, t25);
  float t27 = __uint_as_float(0x3eccce13u);
  float t28 = __fmaf_rn(t26, t23, t27);
  float t29 = __uint_as_float(0x3f2aaaaau);
  float t30 = __fmaf_rn(t28, t23, t29);
  float t31 = __fmul_rn(t30, t23);
  float t32 = __uint_as_float(0x3f000000u);
  float t33 = __fmul_rn(t32, t19);
  float t34 = __fmul_rn(t33, t19);
  float t35 = __uint_as_float(0x3f317180u);
  float t36 = __fadd_rn(t34, t31);
  float t37 = __uint_as_float(0x3717f7d1u);
  float t38 = __fmul_rn(t17, t37);
  float t39 = __fmaf_rn(t22, t36, t38);
  float t40 = __fsub_rn(t34, t39);
  float t41 = __fsub_rn(t19, t40);
  float t42 = __fmaf_rn(t17, t35, t41);
  float t43 = __uint_as_float(0x00000000u);
  bool t44 = t1 == t43;
  float t45 = __uint_as_float(0xff800000u);
  float t46 = t44 ? t45 : t42;
  float t47 = __uint_as_float(0x7f800000u);
  bool t48 = t1 < t47;
  float t49 = t48 ? t46 : t1;
  float t50 = __uint_as_float(0x00000000u);
  bool t51 = t1 < t50;
  float t52 = __uint_as_float(0x7fc00000u);
  float t53 = t51 ? t52 : t49;
  float t54 = __fsub_rn(t53, t0);
  float t55 = __uint_as_float(0x3f800000u);
  float t56 = __fadd_rn(t54, t55);
  float t57 = __uint_as_float(0x00000000u);
  bool t58 = t1 == t57;
  bool t59 = t0 == t0;
  float t60 = __uint_as_float(0x00000000u);
  float t61 = t59 ? t60 : t0;
  float t62 = t58 ? t61 : t56;
  return t62;
}

__device__ __forceinline__ double KlDiv_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __longlong_as_double(0x0000000000000000ll);
  bool t4 = t1 == t3;
  double t5 = log(t1);
  double t6 = __dsub_rn(t5, t0);
  double t7 = __longlong_as_double(0x3ff0000000000000ll);
  double t8 = __dadd_rn(t6, t7);
  double t9 = __longlong_as_double(0x0000000000000000ll);
  bool t10 = t1 == t9;
  bool t11 = t0 == t0;
  double t12 = __longlong_as_double(0x0000000000000000ll);
  double t13 = t11 ? t12 : t0;
  double t14 = t10 ? t13 : t8;
  return t14;
}

ELEMENTWISE(KlDiv_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(KlDiv_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), KlDiv_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(KlDiv)

__device__ __forceinline__ float KlDivLog_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = fabsf(t1);
  float t4 = __uint_as_float(0x42ae0000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc2d00000u);
  bool t7 = t1 < t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0xc2d00000u);
  bool t10 = t1 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  float t12 = __uint_as_float(0x42b20000u);
  float t13 = t1 < t11 ? t11 : t1 > t12 ? t12 : t1;
  float t14 = t10 ? t8 : t13;
  float t15 = __uint_as_float(0x3fb8aa3bu);
  float t16 = __uint_as_float(0x4b400000u);
  float t17 = __fmaf_rn(t14, t15, t16);
  float t18 = __uint_as_float(0x4b400000u);
  float t19 = __fsub_rn(t17, t18);
  float t20 = __uint_as_float(0xbf317180u);
  float t21 = __fmaf_rn(t19, t20, t14);
  float t22 = __uint_as_float(0xb717f7d1u);
  float t23 = __fmaf_rn(t19, t22, t21);
  float t24 = __uint_as_float(0x3ab52794u);
  float t25 = __uint_as_float(0x3c091cc0u);
  float t26 = __fmaf_rn(t24, t23, t25);
  float t27 = __uint_as_float(0x3d2aac57u);
  float t28 = __fmaf_rn(t26, t23, t27);
  float t29 = __uint_as_float(0x3e2aaa49u);
  float t30 = __fmaf_rn(t28, t23, t29);
  float t31 = __uint_as_float(0x3efffffeu);
  float t32 = __fmaf_rn(t30, t23, t31);
  float t33 = __fmul_rn(t23, t23);
  float t34 = __fmaf_rn(t33, t32, t23);
  float t35 = __uint_as_float(0x3f800000u);
  float t36 = __fadd_rn(t34, t35);
  float t37 = __uint_as_float(0x3f000000u);
  float t38 = __fmul_rn(t19, t37);
  float t39 = rintf(t38);
  float t40 = __int_as_float(__float_as_int(__fadd_rn(t39, 8388735.0f)) << 23);
  float t41 = __fmul_rn(t36, t40);
  float t42 = __fsub_rn(t19, t39);
  float t43 = __int_as_float(__float_as_int(__fadd_rn(t42, 8388735.0f)) << 23);
  float t44 = __fmul_rn(t41, t43);
  float t45 = t10 ? t8 : t44;
  float t46 = __fsub_rn(t1, t0);
  float t47 = __fmul_rn(t45, t46);
  return t47;
}

__device__ __forceinline__ double KlDivLog_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = wide_exp(t1);
  double t4 = __dsub_rn(t1, t0);
  double t5 = __dmul_rn(t3, t4);
  return t5;
}

ELEMENTWISE(KlDivLog, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = KlDivLog_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(KlDivLog_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float KlDivLog_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = fabsf(t1);
  float t4 = __uint_as_float(0x42ae0000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc2d00000u);
  bool t7 = t1 < t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0xc2d00000u);
  bool t10 = t1 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  float t12 = __uint_as_float(0x42b20000u);
  float t13 = t1 < t11 ? t11 : t1 > t12 ? t12 : t1;
  float t14 = t10 ? t8 : t13;
  float t15 = __uint_as_float(0x3fb8aa3bu);
  float t16 = __uint_as_float(0x4b400000u);
  float t17 = __fmaf_rn(t14, t15, t16);
  float t18 = __uint_as_float(0x4b400000u);
  float t19 = __fsub_rn(t17, t18);
  float t20 = __uint_as_float(0xbf317180u);
  float t21 = __fmaf_rn(t19, t20, t14);
  float t22 = __uint_as_float(0xb717f7d1u);
  float t23 = __fmaf_rn(t19, t22, t21);
  float t24 = __uint_as_float(0x3ab52794u);
  float t25 = __uint_as_float(0x3c091cc0u);
  float t26 = __fmaf_rn(t24, t23, t25);
  float t27 = __uint_as_float(0x3d2aac57u);
  float t28 = __fmaf_rn(t26, t23, t27);
  float t29 = __uint_as_float(0x3e2aaa49u);
  float t30 = __fmaf_rn(t28, t23, t29);
  float t31 = __uint_as_float(0x3efffffeu);
  float t32 = __fmaf_rn(t30, t23, t31);
  float t33 = __fmul_rn(t23, t23);
  float t34 = __fmaf_rn(t33, t32, t23);
  float t35 = __uint_as_float(0x3f800000u);
  float t36 = __fadd_rn(t34, t35);
  float t37 = __uint_as_float(0x3f000000u);
  float t38 = __fmul_rn(t19, t37);
  float t39 = rintf(t38);
  float t40 = __int_as_float(__float_as_int(__fadd_rn(t39, 8388735.0f)) << 23);
  float t41 = __fmul_rn(t36, t40);
  float t42 = __fsub_rn(t19, t39);
  float t43 = __int_as_float(__float_as_int(__fadd_rn(t42, 8388735.0f)) << 23);
  float t44 = __fmul_rn(t41, t43);
  float t45 = t10 ? t8 : t44;
  float t46 = -t45;
  return t46;
}

__device__ __forceinline__ double KlDivLog_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = wide_exp(t1);
  double t4 = -t3;
  return t4;
}

ELEMENTWISE(KlDivLog_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(KlDivLog_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), KlDivLog_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float KlDivLog_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = fabsf(t1);
  float t4 = __uint_as_float(0x42ae0000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc2d00000u);
  bool t7 = t1 < t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0xc2d00000u);
  bool t10 = t1 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  float t12 = __uint_as_float(0x42b20000u);
  float t13 = t1 < t11 ? t11 : t1 > t12 ? t12 : t1;
  float t14 = t10 ? t8 : t13;
  float t15 = __uint_as_float(0x3fb8aa3bu);
  float t16 = __uint_as_float(0x4b400000u);
  float t17 = __fmaf_rn(t14, t15, t16);
  float t18 = __uint_as_float(0x4b400000u);
  float t19 = __fsub_rn(t17, t18);
  float t20 = __uint_as_float(0xbf317180u);
  float t21 = __fmaf_rn(t19, t20, t14);
  float t22 = __uint_as_float(0xb717f7d1u);
  float t23 = __fmaf_rn(t19, t22, t21);
  float t24 = __uint_as_float(0x3ab52794u);
  float t25 = __uint_as_float(0x3c091cc0u);
  float t26 = __fmaf_rn(t24, t23, t25);
  float t27 = __uint_as_float(0x3d2aac57u);
  float t28 = __fmaf_rn(t26, t23, t27);
  float t29 = __uint_as_float(0x3e2aaa49u);
  float t30 = __fmaf_rn(t28, t23, t29);
  float t31 = __uint_as_float(0x3efffffeu);
  float t32 = __fmaf_rn(t30, t23, t31);
  float t33 = __fmul_rn(t23, t23);
  float t34 = __fmaf_rn(t33, t32, t23);
  float t35 = __uint_as_float(0x3f800000u);
  float t36 = __fadd_rn(t34, t35);
  float t37 = __uint_as_float(0x3f000000u);
  float t38 = __fmul_rn(t19, t37);
  float t39 = rintf(t38);
  float t40 = __int_as_float(__float_as_int(__fadd_rn(t39, 8388735.0f)) << 23);
  float t41 = __fmul_rn(t36, t40);
  float t42 = __fsub_rn(t19, t39);
  float t43 = __int_as_float(__float_as_int(__fadd_rn(t42, 8388735.0f)) << 23);
  float t44 = __fmul_rn(t41, t43);
  float t45 = t10 ? t8 : t44;
  float t46 = __fsub_rn(t1, t0);
  float t47 = __uint_as_float(0x3f800000u);
  float t48 = __fadd_rn(t46, t47);
  float t49 = __fmul_rn(t45, t48);
  return t49;
}

__device__ __forceinline__ double KlDivLog_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = wide_exp(t1);
  double t4 = __dsub_rn(t1, t0);
  double t5 = __longlong_as_double(0x3ff0000000000000ll);
  double t6 = __dadd_rn(t4, t5);
  double t7 = __dmul_rn(t3, t6);
  return t7;
}

ELEMENTWISE(KlDivLog_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(KlDivLog_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), KlDivLog_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(KlDivLog)

__device__ __forceinline__ float PoissonNll_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = fabsf(t0);
  float t4 = __uint_as_float(0x42ae0000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc2d00000u);
  bool t7 = t0 < t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0xc2d00000u);
  bool t10 = t0 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  float t12 = __uint_as_float(0x42b20000u);
  float t13 = t0 < t11 ? t11 : t0 > t12 ? t12 : t0;
  float t14 = t10 ? t8 : t13;
  float t15 = __uint_as_float(0x3fb8aa3bu);
  float t16 = __uint_as_float(0x4b400000u);
  float t17 = __fmaf_rn(t14, t15, t16);
  float t18 = __uint_as_float(0x4b400000u);
  float t19 = __fsub_rn(t17, t18);
  float t20 = __uint_as_float(0xbf317180u);
  float t21 = __fmaf_rn(t19, t20, t14);
  float t22 = __uint_as_float(0xb717f7d1u);
  float t23 = __fmaf_rn(t19, t22, t21);
  float t24 = __uint_as_float(0x3ab52794u);
  float t25 = __uint_as_float(0x3c091cc0u);
  float t26 = __fmaf_rn(t24, t23, t25);
  float t27 = __uint_as_float(0x3d2aac57u);
  float t28 = __fmaf_rn(t26, t23, t27);
  float t29 = __uint_as_float(0x3e2aaa49u);
  float t30 = __fmaf_rn(t28, t23, t29);
  float t31 = __uint_as_float(0x3efffffeu);
  float t32 = __fmaf_rn(t30, t23, t31);
  float t33 = __fmul_rn(t23, t23);
  float t34 = __fmaf_rn(t33, t32, t23);
  float t35 = __uint_as_float(0x3f800000u);
  float t36 = __fadd_rn(t34, t35);
  float t37 = __uint_as_float(0x3f000000u);
  float t38 = __fmul_rn(t19, t37);
  float t39 = rintf(t38);
  float t40 = __int_as_float(__float_as_int(__fadd_rn(t39, 8388735.0f)) << 23);
  float t41 = __fmul_rn(t36, t40);
  float t42 = __fsub_rn(t19, t39);
  float t43 = __int_as_float(__float_as_int(__fadd_rn(t42, 8388735.0f)) << 23);
  float t44 = __fmul_rn(t41, t43);
  float t45 = t10 ? t8 : t44;
  float t46 = __fmul_rn(t1, t0);
  float t47 = __fsub_rn(t45, t46);
  return t47;
}

__device__ __forceinline__ double PoissonNll_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = wide_exp(t0);
  double t4 = __dmul_rn(t1, t0);
  double t5 = __dsub_rn(t3, t4);
  return t5;
}

ELEMENTWISE(PoissonNll, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = PoissonNll_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(PoissonNll_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float PoissonNll_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = fabsf(t0);
  float t4 = __uint_as_float(0x42ae0000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc2d00000u);
  bool t7 = t0 < t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0xc2d00000u);
  bool t10 = t0 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  float t12 = __uint_as_float(0x42b20000u);
  float t13 = t0 < t11 ? t11 : t0 > t12 ? t12 : t0;
  float t14 = t10 ? t8 : t13;
  float t15 = __uint_as_float(0x3fb8aa3bu);
  float t16 = __uint_as_float(0x4b400000u);
  float t17 = __fmaf_rn(t14, t15, t16);
  float t18 = __uint_as_float(0x4b400000u);
  float t19 = __fsub_rn(t17, t18);
  float t20 = __uint_as_float(0xbf317180u);
  float t21 = __fmaf_rn(t19, t20, t14);
  float t22 = __uint_as_float(0xb717f7d1u);
  float t23 = __fmaf_rn(t19, t22, t21);
  float t24 = __uint_as_float(0x3ab52794u);
  float t25 = __uint_as_float(0x3c091cc0u);
  float t26 = __fmaf_rn(t24, t23, t25);
  float t27 = __uint_as_float(0x3d2aac57u);
  float t28 = __fmaf_rn(t26, t23, t27);
  float t29 = __uint_as_float(0x3e2aaa49u);
  float t30 = __fmaf_rn(t28, t23, t29);
  float t31 = __uint_as_float(0x3efffffeu);
  float t32 = __fmaf_rn(t30, t23, t31);
  float t33 = __fmul_rn(t23, t23);
  float t34 = __fmaf_rn(t33, t32, t23);
  float t35 = __uint_as_float(0x3f800000u);
  float t36 = __fadd_rn(t34, t35);
  float t37 = __uint_as_float(0x3f000000u);
  float t38 = __fmul_rn(t19, t37);
  float t39 = rintf(t38);
  float t40 = __int_as_float(__float_as_int(__fadd_rn(t39, 8388735.0f)) << 23);
  float t41 = __fmul_rn(t36, t40);
  float t42 = __fsub_rn(t19, t39);
  float t43 = __int_as_float(__float_as_int(__fadd_rn(t42, 8388735.0f)) << 23);
  float t44 = __fmul_rn(t41, t43);
  float t45 = t10 ? t8 : t44;
  float t46 = __fsub_rn(t45, t1);
  return t46;
}

__device__ __forceinline__ double PoissonNll_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = wide_exp(t0);
  double t4 = __dsub_rn(t3, t1);
  return t4;
}

ELEMENTWISE(PoissonNll_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(PoissonNll_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), PoissonNll_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float PoissonNll_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = -t0;
  return t3;
}

__device__ __forceinline__ double PoissonNll_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = -t0;
  return t3;
}

ELEMENTWISE(PoissonNll_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(PoissonNll_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), PoissonNll_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(PoissonNll)

__device__ __forceinline__ float PoissonNllRate_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fadd_rn(t0, t2);
  float t4 = __uint_as_float(0x00800000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0x4c000000u);
  float t7 = __fmul_rn(t3, t6);
  float t8 = t5 ? t7 : t3;
  int t9 = __float_as_int(t8) - 0x3f3504f3;
  int t10 = t9 >> 23;
  float t11 = __uint_as_float(__float_as_uint(t8) - ((u32)t10 << 23));
  float t12 = __int2float_rn(t10);
  float t13 = __uint_as_float(0x41c80000u);
  float t14 = __uint_as_float(0x00000000u);
  float t15 = t5 ? t13 : t14;
  float t16 = __fsub_rn(t12, t15);
  float t17 = __uint_as_float(0x3f800000u);
  float t18 = __fsub_rn(t11, t17);
  float t19 = __uint_as_float(0x40000000u);
  float t20 = __fadd_rn(t19, t18);
  float t21 = __fdiv_rn(t18, t20);
  float t22 = __fmul_rn(t21, t21);
  float t23 = __uint_as_float(0x3e789e26u);
  float t24 = __uint_as_float(0x3e91e9eeu);
  float t25 = __fmaf_rn(t23, t22, t24);
  float t26 = __uint_as_float(0x3eccce13u);
  float t27 = __fmaf_rn(t25, t22, t26);
  float t28 = __uint_as_float(0x3f2aaaaau);
  float t29 = __fmaf_rn(t27, t22, t28);
  float t30 = __fmul_rn(t29, t22);
  float t31 = __uint_as_float(0x3f000000u);
  float t32 = __fmul_rn(t31, t18);
  float t33 = __fmul_rn(t32, t18);
  float t34 = __uint_as_float(0x3f317180u);
  float t35 = __fadd_rn(t33, t30);
  float t36 = __uint_as_float(0x3717f7d1u);
  float t37 = __fmul_rn(t16, t36);
  float t38 = __fmaf_rn(t21, t35, t37);
  float t39 = __fsub_rn(t33, t38);
  float t40 = __fsub_rn(t18, t39);
  float t41 = __fmaf_rn(t16, t34, t40);
  float t42 = __uint_as_float(0x00000000u);
  bool t43 = t3 == t42;
  float t44 = __uint_as_float(0xff800000u);
  float t45 = t43 ? t44 : t41;
  float t46 = __uint_as_float(0x7f800000u);
  bool t47 = t3 < t46;
  float t48 = t47 ? t45 : t3;
  float t49 = __uint_as_float(0x00000000u);
  bool t50 = t3 < t49;
  float t51 = __uint_as_float(0x7fc00000u);
  float t52 = t50 ? t51 : t48;
  float t53 = __fmul_rn(t1, t52);
  float t54 = __fsub_rn(t0, t53);
  return t54;
}

__device__ __forceinline__ double PoissonNllRate_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dadd_rn(t0, t2);
  double t4 = log(t3);
  double t5 = __dmul_rn(t1, t4);
  double t6 = __dsub_rn(t0, t5);
  return t6;
}

ELEMENTWISE(PoissonNllRate, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = PoissonNllRate_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(PoissonNllRate_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float PoissonNllRate_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fadd_rn(t0, t2);
  float t5 = __fdiv_rn(t1, t4);
  float t6 = __fsub_rn(t3, t5);
  return t6;
}

__device__ __forceinline__ double PoissonNllRate_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __longlong_as_double(0x3ff0000000000000ll);
  double t4 = __dadd_rn(t0, t2);
  double t5 = __ddiv_rn(t1, t4);
  double t6 = __dsub_rn(t3, t5);
  return t6;
}

ELEMENTWISE(PoissonNllRate_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(PoissonNllRate_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), PoissonNllRate_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float PoissonNllRate_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fadd_rn(t0, t2);
  float t4 = __uint_as_float(0x00800000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0x4c000000u);
  float t7 = __fmul_rn(t3, t6);
  float t8 = t5 ? t7 : t3;
  int t9 = __float_as_int(t8) - 0x3f3504f3;
  int t10 = t9 >> 23;
  float t11 = __uint_as_float(__float_as_uint(t8) - ((u32)t10 << 23));
  float t12 = __int2float_rn(t10);
  float t13 = __uint_as_float(0x41c80000u);
  float t14 = __uint_as_float(0x00000000u);
  float t15 = t5 ? t13 : t14;
  float t16 = __fsub_rn(t12, t15);
  float t17 = __uint_as_float(0x3f800000u);
  float t18 = __fsub_rn(t11, t17);
  float t19 = __uint_as_float(0x40000000u);
  float t20 = __fadd_rn(t19, t18);
  float t21 = __fdiv_rn(t18, t20);
  float t22 = __fmul_rn(t21, t21);
  float t23 = __uint_as_float(0x3e789e26u);
  float t24 = __uint_as_float(0x3e91e9eeu);
  float t25 = __fmaf_rn(t23, t22, t24);
  float t26 = __uint_as_float(0x3eccce13u);
  float t27 = __fmaf_rn(t25, t22, t26);
  float t28 = __uint_as_float(0x3f2aaaaau);
  float t29 = __fmaf_rn(t27, t22, t28);
  float t30 = __fmul_rn(t29, t22);
  float t31 = __uint_as_float(0x3f000000u);
  float t32 = __fmul_rn(t31, t18);
  float t33 = __fmul_rn(t32, t18);
  float t34 = __uint_as_float(0x3f317180u);
  float t35 = __fadd_rn(t33, t30);
  float t36 = __uint_as_float(0x3717f7d1u);
  float t37 = __fmul_rn(t16, t36);
  float t38 = __fmaf_rn(t21, t35, t37);
  float t39 = __fsub_rn(t33, t38);
  float t40 = __fsub_rn(t18, t39);
  float t41 = __fmaf_rn(t16, t34, t40);
  float t42 = __uint_as_float(0x00000000u);
  bool t43 = t3 == t42;
  float t44 = __uint_as_float(0xff800000u);
  float t45 = t43 ? t44 : t41;
  float t46 = __uint_as_float(0x7f800000u);
  bool t47 = t3 < t46;
  float t48 = t47 ? t45 : t3;
  float t49 = __uint_as_float(0x00000000u);
  bool t50 = t3 < t49;
  float t51 = __uint_as_float(0x7fc00000u);
  float t52 = t50 ? t51 : t48;
  float t53 = -t52;
  return t53;
}

__device__ __forceinline__ double PoissonNllRate_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dadd_rn(t0, t2);
  double t4 = log(t3);
  double t5 = -t4;
  return t5;
}

ELEMENTWISE(PoissonNllRate_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(PoissonNllRate_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), PoissonNllRate_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(PoissonNllRate)

__device__ __forceinline__ float HingeEmbedding_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fsub_rn(t2, t0);
  float t4 = __uint_as_float(0x00000000u);
  float t5 = larger(t3, t4);
  float t6 = __uint_as_float(0x00000000u);
  bool t7 = t6 < t1;
  bool t8 = t1 == t1;
  float t9 = t8 ? t5 : t1;
  float t10 = t7 ? t0 : t9;
  return t10;
}

__device__ __forceinline__ double HingeEmbedding_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dsub_rn(t2, t0);
  double t4 = __longlong_as_double(0x0000000000000000ll);
  double t5 = wide_max(t3, t4);
  double t6 = __longlong_as_double(0x0000000000000000ll);
  bool t7 = t6 < t1;
  bool t8 = t1 == t1;
  double t9 = t8 ? t5 : t1;
  double t10 = t7 ? t0 : t9;
  return t10;
}

ELEMENTWISE(HingeEmbedding, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = HingeEmbedding_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(HingeEmbedding_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float HingeEmbedding_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __uint_as_float(0x3f800000u);
  bool t4 = t0 < t2;
  float t5 = __uint_as_float(0xbf800000u);
  bool t6 = t0 == t0;
  float t7 = __uint_as_float(0x00000000u);
  float t8 = t6 ? t7 : t0;
  float t9 = t4 ? t5 : t8;
  float t10 = __uint_as_float(0x00000000u);
  bool t11 = t10 < t1;
  bool t12 = t1 == t1;
  float t13 = t12 ? t9 : t1;
  float t14 = t11 ? t3 : t13;
  return t14;
}

__device__ __forceinline__ double HingeEmbedding_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __longlong_as_double(0x3ff0000000000000ll);
  bool t4 = t0 < t2;
  double t5 = __longlong_as_double(0xbff0000000000000ll);
  bool t6 = t0 == t0;
  double t7 = __longlong_as_double(0x0000000000000000ll);
  double t8 = t6 ? t7 : t0;
  double t9 = t4 ? t5 : t8;
  double t10 = __longlong_as_double(0x0000000000000000ll);
  bool t11 = t10 < t1;
  bool t12 = t1 == t1;
  double t13 = t12 ? t9 : t1;
  double t14 = t11 ? t3 : t13;
  return t14;
}

ELEMENTWISE(HingeEmbedding_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(HingeEmbedding_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), HingeEmbedding_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float HingeEmbedding_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __uint_as_float(0x00000000u);
  return t3;
}

__device__ __forceinline__ double HingeEmbedding_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __longlong_as_double(0x0000000000000000ll);
  return t3;
}

ELEMENTWISE(HingeEmbedding_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(HingeEmbedding_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), HingeEmbedding_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(HingeEmbedding)

__device__ __forceinline__ float SoftMargin_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = __fmul_rn(t1, t0);
  float t4 = -t3;
  float t5 = __uint_as_float(0x00000000u);
  float t6 = larger(t4, t5);
  float t7 = fabsf(t3);
  float t8 = -t7;
  float t9 = fabsf(t8);
  float t10 = __uint_as_float(0x42ae0000u);
  bool t11 = t9 < t10;
  float t12 = __uint_as_float(0xc2d00000u);
  bool t13 = t8 < t12;
  float t14 = __uint_as_float(0x00000000u);
  float t15 = __uint_as_float(0xc2d00000u);
  bool t16 = t8 < t15;
  float t17 = __uint_as_float(0xc2d00000u);
  float t18 = __uint_as_float(0x42b20000u);
  float t19 = t8 < t17 ? t17 : t8 > t18 ? t18 : t8;
  float t20 = t16 ? t14 : t19;
  float t21 = __uint_as_float(0x3fb8aa3bu);
  float t22 = __uint_as_float(0x4b400000u);
  float t23 = __fmaf_rn(t20, t21, t22);
  float t24 = __uint_as_float(0x4b400000u);
  float t25 = __fsub_rn(t23, t24);
  float t26 = __uint_as_float(0xbf317180u);
  float t27 = __fmaf_rn(t25, t26, t20);
  float t28 = __uint_as_float(0xb717f7d1u);
  float t29 = __fmaf_rn(t25, t28, t27);
  float t30 = __uint_as_float(0x3ab52794u);
  float t31 = __uint_as_float(0x3c091cc0u);
  float t32 = __fmaf_rn(t30, t29, t31);
  float t33 = __uint_as_float(0x3d2aac57u);
  float t34 = __fmaf_rn(t32, t29, t33);
  float t35 = __uint_as_float(0x3e2aaa49u);
  float t36 = __fmaf_rn(t34, t29, t35);
  float t37 = __uint_as_float(0x3efffffeu);
  float t38 = __fmaf_rn(t36, t29, t37);
  float t39 = __fmul_rn(t29, t29);
  float t40 = __fmaf_rn(t39, t38, t29);
  float t41 = __uint_as_float(0x3f800000u);
  float t42 = __fadd_rn(t40, t41);
  float t43 = __uint_as_float(0x3f000000u);
  float t44 = __fmul_rn(t25, t43);
  float t45 = rintf(t44);
  float t46 = __int_as_float(__float_as_int(__fadd_rn(t45, 8388735.0f)) << 23);
  float t47 = __fmul_rn(t42, t46);
  float t48 = __fsub_rn(t25, t45);
  float t49 = __int_as_float(__float_as_int(__fadd_rn(t48, 8388735.0f)) << 23);
  float t50 = __fmul_rn(t47, t49);
  float t51 = t16 ? t14 : t50;
  float t52 = __uint_as_float(0x3f800000u);
  float t53 = __fadd_rn(t52, t51);
  bool t54 = t51 < t52;
  float t55 = __fsub_rn(t53, t52);
  float t56 = __fsub_rn(t51, t55);
  float t57 = __fsub_rn(t53, t51);
  float t58 = __fsub_rn(t52, t57);
  float t59 = t54 ? t56 : t58;
  int t60 = __float_as_int(t53) - 0x3f3504f3;
  int t61 = t60 >> 23;
  float t62 = __uint_as_float(__float_as_uint(t53) - ((u32)t61 << 23));
  float t63 = __int2float_rn(t61);
  float t64 = -t63;
  float t65 = __uint_as_float(0xc2c80000u);
  float t66 = __uint_as_float(0x42c80000u);
  float t67 = t64 < t65 ? t65 : t64 > t66 ? t66 : t64;
  float t68 = __int_as_float(__float_as_int(__fadd_rn(t67, 8388735.0f)) << 23);
  float t69 = __fsub_rn(t62, t52);
  float t70 = __fmaf_rn(t59, t68, t69);
  float t71 = __uint_as_float(0x40000000u);
  float t72 = __fadd_rn(t71, t70);
  float t73 = __fdiv_rn(t70, t72);
  float t74 = __fmul_rn(t73, t73);
  float t75 = __uint_as_float(0x3e789e26u);
  float t76 = __uint_as_float(0x3e91e9eeu);
  float t77 = __fmaf_rn(t75, t74, t76);
  float t78 = __uint_as_float(0x3eccce13u);
  float t79 = __fmaf_rn(t77, t74, t78);
  float t80 = __uint_as_float(0x3f2aaaaau);
  float t81 = __fmaf_rn(t79, t74, t80);
  float t82 = __fmul_rn(t81, t74);
  float t83 = __uint_as_float(0x3f000000u);
  float t84 = __fmul_rn(t83, t70);
  float t85 = __fmul_rn(t84, t70);
  float t86 = __uint_as_float(0x3f317180u);
  float t87 = __fadd_rn(t85, t82);
  float t88 = __uint_as_float(0x3717f7d1u);
  float t89 = __fmul_rn(t63, t88);
  float t90 = __fmaf_rn(t73, t87, t89);
  float t91 = __fsub_rn(t85, t90);
  float t92 = __fsub_rn(t70, t91);
  float t93 = __fmaf_rn(t63, t86, t92);
  float t94 = __uint_as_float(0x00000000u);
  bool t95 = t53 == t94;
  float t96 = __uint_as_float(0xff800000u);
  float t97 = t95 ? t96 : t93;
  float t98 = __uint_as_float(0x7f800000u);
  bool t99 = t53 < t98;
  float t100 = t99 ? t97 : t53;
  float t101 = __uint_as_float(0x00000000u);
  bool t102 = t53 < t101;
  float t103 = __uint_as_float(0x7fc00000u);
  float t104 = t102 ? t103 : t100;
  float t105 = __uint_as_float((__float_as_uint(t104) & 0x7fffffffu) | (__float_as_uint(t51) & 0x80000000u));
  float t106 = __fadd_rn(t6, t105);
  return t106;
}

__device__ __forceinline__ double SoftMargin_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = __dmul_rn(t1, t0);
  double t4 = -t3;
  double t5 = __longlong_as_double(0x0000000000000000ll);
  double t6 = wide_max(t4, t5);
  double t7 = fabs(t3);
  double t8 = -t7;
  double t9 = wide_exp(t8);
  double t10 = log1p(t9);
  double t11 = __dadd_rn(t6, t10);
  return t11;
}

ELEMENTWISE(SoftMargin, 2, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[0], at.in[0]);
  float t = load(p.in[1], at.in[1]);
  float y = SoftMargin_f(x, t, v);
  if (!is_finite(y)) y = __double2float_rn(SoftMargin_f_wide((double)x, (double)t, p.value));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float SoftMargin_prediction_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = -t1;
  float t4 = __fmul_rn(t1, t0);
  float t5 = -t4;
  float t6 = __uint_as_float(0x00000000u);
  float t7 = __uint_as_float(0x3f800000u);
  float t8 = fabsf(t5);
  float t9 = -t8;
  float t10 = __uint_as_float(0xc2e00000u);
  float t11 = __uint_as_float(0x00000000u);
  float t12 = t9 < t10 ? t10 : t9 > t11 ? t11 : t9;
  float t13 = __uint_as_float(0x3fb8aa3bu);
  float t14 = __uint_as_float(0x4b400000u);
  float t15 = __fmaf_rn(t12, t13, t14);
  float t16 = __uint_as_float(0x4b400000u);
  float t17 = __fsub_rn(t15, t16);
  float t18 = __uint_as_float(0xbf317180u);
  float t19 = __fmaf_rn(t17, t18, t12);
  float t20 = __uint_as_float(0xb717f7d1u);
  float t21 = __fmaf_rn(t17, t20, t19);
  float t22 = __uint_as_float(0x3ab52794u);
  float t23 = __uint_as_float(0x3c091cc0u);
  float t24 = __fmaf_rn(t22, t21, t23);
  float t25 = __uint_as_float(0x3d2aac57u);
  float t26 = __fmaf_rn(t24, t21, t25);
  float t27 = __uint_as_float(0x3e2aaa49u);
  float t28 = __fmaf_rn(t26, t21, t27);
  float t29 = __uint_as_float(0x3efffffeu);
  float t30 = __fmaf_rn(t28, t21, t29);
  float t31 = __fmul_rn(t21, t21);
  float t32 = __fmaf_rn(t31, t30, t21);
  float t33 = __fadd_rn(t7, t32);
  float t34 = __fsub_rn(t33, t7);
  float t35 = __fsub_rn(t32, t34);
  float t36 = __uint_as_float(0xc2c80000u);
  float t37 = __uint_as_float(0x00000000u);
  float t38 = t17 < t36 ? t36 : t17 > t37 ? t37 : t17;
  float t39 = __int_as_float(__float_as_int(__fadd_rn(t38, 8388735.0f)) << 23);
  float t40 = __fmul_rn(t39, t33);
  float t41 = __fadd_rn(t7, t40);
  float t42 = __fsub_rn(t41, t7);
  float t43 = __fsub_rn(t40, t42);
  float t44 = __fmaf_rn(t39, t35, t43);
  bool t45 = t5 < t6;
  float t46 = t45 ? t33 : t7;
  float t47 = t45 ? t35 : t6;
  float t48 = t45 ? t17 : t6;
  float t49 = __fdiv_rn(t7, t41);
  float t50 = __fmul_rn(t46, t49);
  float t51 = -t50;
  float t52 = __fmaf_rn(t51, t41, t46);
  float t53 = -t50;
  float t54 = __fmaf_rn(t53, t44, t47);
  float t55 = __fadd_rn(t52, t54);
  float t56 = __fmaf_rn(t55, t49, t50);
  float t57 = __uint_as_float(0x3f000000u);
  float t58 = __fmul_rn(t48, t57);
  float t59 = rintf(t58);
  float t60 = __int_as_float(__float_as_int(__fadd_rn(t59, 8388735.0f)) << 23);
  float t61 = __fmul_rn(t56, t60);
  float t62 = __fsub_rn(t48, t59);
  float t63 = __int_as_float(__float_as_int(__fadd_rn(t62, 8388735.0f)) << 23);
  float t64 = __fmul_rn(t61, t63);
  float t65 = __fmul_rn(t3, t64);
  return t65;
}

__device__ __forceinline__ double SoftMargin_prediction_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = -t1;
  double t4 = __dmul_rn(t1, t0);
  double t5 = -t4;
  double t6 = wide_sigmoid(t5);
  double t7 = __dmul_rn(t3, t6);
  return t7;
}

ELEMENTWISE(SoftMargin_prediction_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(SoftMargin_prediction_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), SoftMargin_prediction_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float SoftMargin_target_f(float x, float t, float v) {
  float t0 = x;
  float t1 = t;
  float t2 = v;
  float t3 = -t0;
  float t4 = __fmul_rn(t1, t0);
  float t5 = -t4;
  float t6 = __uint_as_float(0x00000000u);
  float t7 = __uint_as_float(0x3f800000u);
  float t8 = fabsf(t5);
  float t9 = -t8;
  float t10 = __uint_as_float(0xc2e00000u);
  float t11 = __uint_as_float(0x00000000u);
  float t12 = t9 < t10 ? t10 : t9 > t11 ? t11 : t9;
  float t13 = __uint_as_float(0x3fb8aa3bu);
  float t14 = __uint_as_float(0x4b400000u);
  float t15 = __fmaf_rn(t12, t13, t14);
  float t16 = __uint_as_float(0x4b400000u);
  float t17 = __fsub_rn(t15, t16);
  float t18 = __uint_as_float(0xbf317180u);
  float t19 = __fmaf_rn(t17, t18, t12);
  float t20 = __uint_as_float(0xb717f7d1u);
  float t21 = __fmaf_rn(t17, t20, t19);
  float t22 = __uint_as_float(0x3ab52794u);
  float t23 = __uint_as_float(0x3c091cc0u);
  float t24 = __fmaf_rn(t22, t21, t23);
  float t25 = __uint_as_float(0x3d2aac57u);
  float t26 = __fmaf_rn(t24, t21, t25);
  float t27 = __uint_as_float(0x3e2aaa49u);
  float t28 = __fmaf_rn(t26, t21, t27);
  float t29 = __uint_as_float(0x3efffffeu);
  float t30 = __fmaf_rn(t28, t21, t29);
  float t31 = __fmul_rn(t21, t21);
  float t32 = __fmaf_rn(t31, t30, t21);
  float t33 = __fadd_rn(t7, t32);
  float t34 = __fsub_rn(t33, t7);
  float t35 = __fsub_rn(t32, t34);
  float t36 = __uint_as_float(0xc2c80000u);
  float t37 = __uint_as_float(0x00000000u);
  float t38 = t17 < t36 ? t36 : t17 > t37 ? t37 : t17;
  float t39 = __int_as_float(__float_as_int(__fadd_rn(t38, 8388735.0f)) << 23);
  float t40 = __fmul_rn(t39, t33);
  float t41 = __fadd_rn(t7, t40);
  float t42 = __fsub_rn(t41, t7);
  float t43 = __fsub_rn(t40, t42);
  float t44 = __fmaf_rn(t39, t35, t43);
  bool t45 = t5 < t6;
  float t46 = t45 ? t33 : t7;
  float t47 = t45 ? t35 : t6;
  float t48 = t45 ? t17 : t6;
  float t49 = __fdiv_rn(t7, t41);
  float t50 = __fmul_rn(t46, t49);
  float t51 = -t50;
  float t52 = __fmaf_rn(t51, t41, t46);
  float t53 = -t50;
  float t54 = __fmaf_rn(t53, t44, t47);
  float t55 = __fadd_rn(t52, t54);
  float t56 = __fmaf_rn(t55, t49, t50);
  float t57 = __uint_as_float(0x3f000000u);
  float t58 = __fmul_rn(t48, t57);
  float t59 = rintf(t58);
  float t60 = __int_as_float(__float_as_int(__fadd_rn(t59, 8388735.0f)) << 23);
  float t61 = __fmul_rn(t56, t60);
  float t62 = __fsub_rn(t48, t59);
  float t63 = __int_as_float(__float_as_int(__fadd_rn(t62, 8388735.0f)) << 23);
  float t64 = __fmul_rn(t61, t63);
  float t65 = __fmul_rn(t3, t64);
  return t65;
}

__device__ __forceinline__ double SoftMargin_target_f_wide(double x, double t, double v) {
  double t0 = x;
  double t1 = t;
  double t2 = v;
  double t3 = -t0;
  double t4 = __dmul_rn(t1, t0);
  double t5 = -t4;
  double t6 = wide_sigmoid(t5);
  double t7 = __dmul_rn(t3, t6);
  return t7;
}

ELEMENTWISE(SoftMargin_target_backward, 3, {
  float v = __double2float_rn(p.value);
  float x = load(p.in[1], at.in[1]);
  float t = load(p.in[2], at.in[2]);
  float g = load(p.in[0], at.in[0]);
  float y = __fmul_rn(g, __fmul_rn(SoftMargin_target_f(x, t, v), __double2float_rn(p.factor)));
  if (!is_finite(y)) y = __double2float_rn(__dmul_rn(__dmul_rn((double)g, p.factor), SoftMargin_target_f_wide((double)x, (double)t, p.value)));
  store(p.out, at.out, y);
})

SUM_OF_LOSS(SoftMargin)
