// Functions of two tensors, or of one and a number, and their derivatives.
// Written by the rows of the operator table (tests/cuda/rows); not to be edited.
//
// Shapes: tensors that broadcast to one shape, of any strides and float dtypes.
// Tiling: none: a thread has an element, and the next one a grid further on.
// Needs: at most 48 registers to a thread, no shared memory.
// Checked against: the rows of the reference in f64, and the CPU's bits.
#include "elementwise.cuh"

__device__ __forceinline__ float Add_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fadd_rn(t0, t1);
  return t2;
}

ELEMENTWISE(Add, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Add_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Add_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x3f800000u);
  return t2;
}

ELEMENTWISE(Add_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Add_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Add_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x3f800000u);
  return t2;
}

ELEMENTWISE(Add_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Add_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sub_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fsub_rn(t0, t1);
  return t2;
}

ELEMENTWISE(Sub, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Sub_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sub_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x3f800000u);
  return t2;
}

ELEMENTWISE(Sub_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Sub_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sub_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0xbf800000u);
  return t2;
}

ELEMENTWISE(Sub_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Sub_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Mul_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fmul_rn(t0, t1);
  return t2;
}

ELEMENTWISE(Mul, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Mul_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Mul_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  return t1;
}

ELEMENTWISE(Mul_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Mul_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Mul_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  return t0;
}

ELEMENTWISE(Mul_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Mul_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Div_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fdiv_rn(t0, t1);
  return t2;
}

ELEMENTWISE(Div, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Div_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Div_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x3f800000u);
  float t3 = __fdiv_rn(t2, t1);
  return t3;
}

__device__ __forceinline__ double Div_left_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x3ff0000000000000ll);
  double t3 = __ddiv_rn(t2, t1);
  return t3;
}

ELEMENTWISE(Div_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Div_left_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Div_left_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Div_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fdiv_rn(t0, t1);
  float t3 = -t2;
  float t4 = __fdiv_rn(t3, t1);
  return t4;
}

__device__ __forceinline__ double Div_right_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __ddiv_rn(t0, t1);
  double t3 = -t2;
  double t4 = __ddiv_rn(t3, t1);
  return t4;
}

ELEMENTWISE(Div_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Div_right_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Div_right_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Maximum_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = larger(t0, t1);
  return t2;
}

ELEMENTWISE(Maximum, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Maximum_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Maximum_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f800000u);
  bool t4 = t1 == t0;
  float t5 = __uint_as_float(0x3f000000u);
  float t6 = __uint_as_float(0x00000000u);
  float t7 = t4 ? t5 : t6;
  float t8 = t2 ? t3 : t7;
  return t8;
}

ELEMENTWISE(Maximum_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Maximum_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Maximum_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t0 < t1;
  float t3 = __uint_as_float(0x3f800000u);
  bool t4 = t0 == t1;
  float t5 = __uint_as_float(0x3f000000u);
  float t6 = __uint_as_float(0x00000000u);
  float t7 = t4 ? t5 : t6;
  float t8 = t2 ? t3 : t7;
  return t8;
}

ELEMENTWISE(Maximum_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Maximum_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Minimum_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = smaller(t0, t1);
  return t2;
}

ELEMENTWISE(Minimum, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Minimum_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Minimum_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t0 < t1;
  float t3 = __uint_as_float(0x3f800000u);
  bool t4 = t0 == t1;
  float t5 = __uint_as_float(0x3f000000u);
  float t6 = __uint_as_float(0x00000000u);
  float t7 = t4 ? t5 : t6;
  float t8 = t2 ? t3 : t7;
  return t8;
}

ELEMENTWISE(Minimum_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Minimum_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Minimum_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f800000u);
  bool t4 = t1 == t0;
  float t5 = __uint_as_float(0x3f000000u);
  float t6 = __uint_as_float(0x00000000u);
  float t7 = t4 ? t5 : t6;
  float t8 = t2 ? t3 : t7;
  return t8;
}

ELEMENTWISE(Minimum_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Minimum_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float ClampMin_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = larger(t0, t1);
  return t2;
}

ELEMENTWISE(ClampMin, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = ClampMin_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float ClampMin_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t1 <= t0;
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t2 ? t3 : t4;
  return t5;
}

ELEMENTWISE(ClampMin_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, ClampMin_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float ClampMin_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t0 < t1;
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t2 ? t3 : t4;
  return t5;
}

ELEMENTWISE(ClampMin_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, ClampMin_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float ClampMax_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = smaller(t0, t1);
  return t2;
}

ELEMENTWISE(ClampMax, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = ClampMax_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float ClampMax_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t0 <= t1;
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t2 ? t3 : t4;
  return t5;
}

ELEMENTWISE(ClampMax_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, ClampMax_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float ClampMax_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t2 ? t3 : t4;
  return t5;
}

ELEMENTWISE(ClampMax_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, ClampMax_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Pow_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __double2float_rn(wide_pow((double)t0, (double)t1));
  return t2;
}

ELEMENTWISE(Pow, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Pow_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Pow_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t1 == t2;
  bool t4 = t1 == t2;
  float t5 = __uint_as_float(0x3f800000u);
  float t6 = __fsub_rn(t1, t5);
  float t7 = __double2float_rn(wide_pow((double)t0, (double)t6));
  float t8 = __fmul_rn(t1, t7);
  float t9 = t3 ? t2 : t8;
  return t9;
}

__device__ __forceinline__ double Pow_left_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x0000000000000000ll);
  bool t3 = t1 == t2;
  bool t4 = t1 == t2;
  double t5 = __longlong_as_double(0x3ff0000000000000ll);
  double t6 = __dsub_rn(t1, t5);
  double t7 = wide_pow(t0, t6);
  double t8 = __dmul_rn(t1, t7);
  double t9 = t3 ? t2 : t8;
  return t9;
}

ELEMENTWISE(Pow_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __double2float_rn(__dmul_rn((double)g, Pow_left_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Pow_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t0 == t2;
  bool t4 = t2 <= t1;
  float t5 = __uint_as_float(0x3f800000u);
  float t6 = t4 ? t5 : t0;
  float t7 = t3 ? t6 : t0;
  float t8 = __double2float_rn(wide_pow((double)t7, (double)t1));
  float t9 = __uint_as_float(0x00800000u);
  bool t10 = t7 < t9;
  float t11 = __uint_as_float(0x4c000000u);
  float t12 = __fmul_rn(t7, t11);
  float t13 = t10 ? t12 : t7;
  int t14 = __float_as_int(t13) - 0x3f3504f3;
  int t15 = t14 >> 23;
  float t16 = __uint_as_float(__float_as_uint(t13) - ((u32)t15 << 23));
  float t17 = __int2float_rn(t15);
  float t18 = __uint_as_float(0x41c80000u);
  float t19 = __uint_as_float(0x00000000u);
  float t20 = t10 ? t18 : t19;
  float t21 = __fsub_rn(t17, t20);
  float t22 = __uint_as_float(0x3f800000u);
  float t23 = __fsub_rn(t16, t22);
  float t24 = __uint_as_float(0x40000000u);
  float t25 = __fadd_rn(t24, t23);
  float t26 = __fdiv_rn(t23, t25);
  float t27 = __fmul_rn(t26, t26);
  float t28 = __uint_as_float(0x3e789e26u);
  float t29 = __uint_as_float(0x3e91e9eeu);
  float t30 = __fmaf_rn(t28, t27, t29);
  float t31 = __uint_as_float(0x3eccce13u);
  float t32 = __fmaf_rn(t30, t27, t31);
  float t33 = __uint_as_float(0x3f2aaaaau);
  float t34 = __fmaf_rn(t32, t27, t33);
  float t35 = __fmul_rn(t34, t27);
  float t36 = __uint_as_float(0x3f000000u);
  float t37 = __fmul_rn(t36, t23);
  float t38 = __fmul_rn(t37, t23);
  float t39 = __uint_as_float(0x3f317180u);
  float t40 = __fadd_rn(t38, t35);
  float t41 = __uint_as_float(0x3717f7d1u);
  float t42 = __fmul_rn(t21, t41);
  float t43 = __fmaf_rn(t26, t40, t42);
  float t44 = __fsub_rn(t38, t43);
  float t45 = __fsub_rn(t23, t44);
  float t46 = __fmaf_rn(t21, t39, t45);
  float t47 = __uint_as_float(0x00000000u);
  bool t48 = t7 == t47;
  float t49 = __uint_as_float(0xff800000u);
  float t50 = t48 ? t49 : t46;
  float t51 = __uint_as_float(0x7f800000u);
  bool t52 = t7 < t51;
  float t53 = t52 ? t50 : t7;
  float t54 = __uint_as_float(0x00000000u);
  bool t55 = t7 < t54;
  float t56 = __uint_as_float(0x7fc00000u);
  float t57 = t55 ? t56 : t53;
  float t58 = __fmul_rn(t8, t57);
  return t58;
}

__device__ __forceinline__ double Pow_right_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x0000000000000000ll);
  bool t3 = t0 == t2;
  bool t4 = t2 <= t1;
  double t5 = __longlong_as_double(0x3ff0000000000000ll);
  double t6 = t4 ? t5 : t0;
  double t7 = t3 ? t6 : t0;
  double t8 = wide_pow(t7, t1);
  double t9 = log(t7);
  double t10 = __dmul_rn(t8, t9);
  return t10;
}

ELEMENTWISE(Pow_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __double2float_rn(__dmul_rn((double)g, Pow_right_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Atan2_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __double2float_rn(wide_atan2((double)t0, (double)t1));
  return t2;
}

ELEMENTWISE(Atan2, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Atan2_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Atan2_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fmul_rn(t1, t1);
  float t3 = __fmaf_rn(t0, t0, t2);
  float t4 = __uint_as_float(0x00000000u);
  bool t5 = t3 == t4;
  bool t6 = t3 == t4;
  float t7 = __fdiv_rn(t1, t3);
  float t8 = t5 ? t4 : t7;
  return t8;
}

__device__ __forceinline__ double Atan2_left_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __dmul_rn(t1, t1);
  double t3 = __dmul_rn(t0, t0);
  double t4 = __dadd_rn(t3, t2);
  double t5 = __longlong_as_double(0x0000000000000000ll);
  bool t6 = t4 == t5;
  bool t7 = t4 == t5;
  double t8 = __ddiv_rn(t1, t4);
  double t9 = t6 ? t5 : t8;
  return t9;
}

ELEMENTWISE(Atan2_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Atan2_left_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Atan2_left_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Atan2_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = -t0;
  float t3 = __fmul_rn(t1, t1);
  float t4 = __fmaf_rn(t0, t0, t3);
  float t5 = __uint_as_float(0x00000000u);
  bool t6 = t4 == t5;
  bool t7 = t4 == t5;
  float t8 = __fdiv_rn(t2, t4);
  float t9 = t6 ? t5 : t8;
  return t9;
}

__device__ __forceinline__ double Atan2_right_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = -t0;
  double t3 = __dmul_rn(t1, t1);
  double t4 = __dmul_rn(t0, t0);
  double t5 = __dadd_rn(t4, t3);
  double t6 = __longlong_as_double(0x0000000000000000ll);
  bool t7 = t5 == t6;
  bool t8 = t5 == t6;
  double t9 = __ddiv_rn(t2, t5);
  double t10 = t7 ? t6 : t9;
  return t10;
}

ELEMENTWISE(Atan2_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Atan2_right_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Atan2_right_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Fmod_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __double2float_rn(wide_fmod((double)t0, (double)t1));
  return t2;
}

ELEMENTWISE(Fmod, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Fmod_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Fmod_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x3f800000u);
  return t2;
}

__device__ __forceinline__ double Fmod_left_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x3ff0000000000000ll);
  return t2;
}

ELEMENTWISE(Fmod_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __double2float_rn(__dmul_rn((double)g, Fmod_left_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Fmod_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __double2float_rn(wide_fmod((double)t0, (double)t1));
  bool t3 = t2 == t2;
  float t4 = __fsub_rn(t0, t2);
  float t5 = __fdiv_rn(t4, t1);
  float t6 = rintf(t5);
  float t7 = __fdiv_rn(t0, t1);
  float t8 = __uint_as_float(0x00000000u);
  bool t9 = t7 < t8;
  float t10 = -t7;
  float t11 = floorf(t10);
  float t12 = -t11;
  float t13 = floorf(t7);
  float t14 = t9 ? t12 : t13;
  float t15 = t3 ? t6 : t14;
  float t16 = -t15;
  return t16;
}

__device__ __forceinline__ double Fmod_right_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = wide_fmod(t0, t1);
  bool t3 = t2 == t2;
  double t4 = __dsub_rn(t0, t2);
  double t5 = __ddiv_rn(t4, t1);
  double t6 = rint(t5);
  double t7 = __ddiv_rn(t0, t1);
  double t8 = __longlong_as_double(0x0000000000000000ll);
  bool t9 = t7 < t8;
  double t10 = -t7;
  double t11 = floor(t10);
  double t12 = -t11;
  double t13 = floor(t7);
  double t14 = t9 ? t12 : t13;
  double t15 = t3 ? t6 : t14;
  double t16 = -t15;
  return t16;
}

ELEMENTWISE(Fmod_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __double2float_rn(__dmul_rn((double)g, Fmod_right_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Prelu_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __fmul_rn(t1, t0);
  float t5 = t3 ? t0 : t4;
  return t5;
}

ELEMENTWISE(Prelu, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Prelu_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Prelu_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = t3 ? t4 : t1;
  return t5;
}

ELEMENTWISE(Prelu_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Prelu_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Prelu_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t3 ? t4 : t0;
  return t5;
}

ELEMENTWISE(Prelu_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Prelu_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float LeakyRelu_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __fmul_rn(t1, t0);
  float t5 = t3 ? t0 : t4;
  return t5;
}

ELEMENTWISE(LeakyRelu, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = LeakyRelu_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float LeakyRelu_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = t3 ? t4 : t1;
  return t5;
}

ELEMENTWISE(LeakyRelu_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, LeakyRelu_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float LeakyRelu_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t3 ? t4 : t0;
  return t5;
}

ELEMENTWISE(LeakyRelu_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, LeakyRelu_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Elu_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0xc1900000u);
  float t5 = __uint_as_float(0x42b20000u);
  float t6 = t0 < t4 ? t4 : t0 > t5 ? t5 : t0;
  float t7 = __uint_as_float(0x3fb8aa3bu);
  float t8 = __fmul_rn(t6, t7);
  float t9 = rintf(t8);
  float t10 = __uint_as_float(0xbf317180u);
  float t11 = __fmaf_rn(t9, t10, t6);
  float t12 = __uint_as_float(0xb717f7d1u);
  float t13 = __fmul_rn(t9, t12);
  float t14 = __fadd_rn(t11, t13);
  float t15 = __fsub_rn(t11, t14);
  float t16 = __fadd_rn(t15, t13);
  float t17 = __uint_as_float(0x395123b8u);
  float t18 = __uint_as_float(0x3ab69e44u);
  float t19 = __fmaf_rn(t17, t14, t18);
  float t20 = __uint_as_float(0x3c088801u);
  float t21 = __fmaf_rn(t19, t14, t20);
  float t22 = __uint_as_float(0x3d2aaa7bu);
  float t23 = __fmaf_rn(t21, t14, t22);
  float t24 = __uint_as_float(0x3e2aaaabu);
  float t25 = __fmaf_rn(t23, t14, t24);
  float t26 = __uint_as_float(0x3f000000u);
  float t27 = __fmaf_rn(t25, t14, t26);
  float t28 = __fmul_rn(t14, t14);
  float t29 = __fmaf_rn(t28, t27, t16);
  float t30 = __uint_as_float(0x3f800000u);
  float t31 = __fsub_rn(t9, t30);
  float t32 = __int_as_float(__float_as_int(__fadd_rn(t31, 8388735.0f)) << 23);
  float t33 = __uint_as_float(0x3f000000u);
  float t34 = __fsub_rn(t32, t33);
  float t35 = __fmul_rn(t32, t14);
  float t36 = __fadd_rn(t34, t35);
  float t37 = __fsub_rn(t36, t34);
  float t38 = __fsub_rn(t35, t37);
  float t39 = __fmaf_rn(t32, t29, t38);
  float t40 = __fadd_rn(t36, t39);
  float t41 = fabsf(t0);
  float t42 = __uint_as_float(0x33000000u);
  bool t43 = t41 < t42;
  float t44 = __fadd_rn(t40, t40);
  float t45 = t43 ? t0 : t44;
  float t46 = __fmul_rn(t1, t45);
  float t47 = t3 ? t0 : t46;
  return t47;
}

ELEMENTWISE(Elu, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Elu_f(a, b);
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Elu_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = __uint_as_float(0x00000000u);
  bool t6 = t5 < t0;
  float t7 = fabsf(t0);
  float t8 = __uint_as_float(0x42ae0000u);
  bool t9 = t7 < t8;
  float t10 = __uint_as_float(0xc2d00000u);
  bool t11 = t0 < t10;
  float t12 = __uint_as_float(0x00000000u);
  float t13 = __uint_as_float(0xc2d00000u);
  bool t14 = t0 < t13;
  float t15 = __uint_as_float(0xc2d00000u);
  float t16 = __uint_as_float(0x42b20000u);
  float t17 = t0 < t15 ? t15 : t0 > t16 ? t16 : t0;
  float t18 = t14 ? t12 : t17;
  float t19 = __uint_as_float(0x3fb8aa3bu);
  float t20 = __uint_as_float(0x4b400000u);
  float t21 = __fmaf_rn(t18, t19, t20);
  float t22 = __uint_as_float(0x4b400000u);
  float t23 = __fsub_rn(t21, t22);
  float t24 = __uint_as_float(0xbf317180u);
  float t25 = __fmaf_rn(t23, t24, t18);
  float t26 = __uint_as_float(0xb717f7d1u);
  float t27 = __fmaf_rn(t23, t26, t25);
  float t28 = __uint_as_float(0x3ab52794u);
  float t29 = __uint_as_float(0x3c091cc0u);
  float t30 = __fmaf_rn(t28, t27, t29);
  float t31 = __uint_as_float(0x3d2aac57u);
  float t32 = __fmaf_rn(t30, t27, t31);
  float t33 = __uint_as_float(0x3e2aaa49u);
  float t34 = __fmaf_rn(t32, t27, t33);
  float t35 = __uint_as_float(0x3efffffeu);
  float t36 = __fmaf_rn(t34, t27, t35);
  float t37 = __fmul_rn(t27, t27);
  float t38 = __fmaf_rn(t37, t36, t27);
  float t39 = __uint_as_float(0x3f800000u);
  float t40 = __fadd_rn(t38, t39);
  float t41 = __uint_as_float(0x3f000000u);
  float t42 = __fmul_rn(t23, t41);
  float t43 = rintf(t42);
  float t44 = __int_as_float(__float_as_int(__fadd_rn(t43, 8388735.0f)) << 23);
  float t45 = __fmul_rn(t40, t44);
  float t46 = __fsub_rn(t23, t43);
  float t47 = __int_as_float(__float_as_int(__fadd_rn(t46, 8388735.0f)) << 23);
  float t48 = __fmul_rn(t45, t47);
  float t49 = t14 ? t12 : t48;
  float t50 = __fmul_rn(t1, t49);
  float t51 = t3 ? t4 : t50;
  return t51;
}

ELEMENTWISE(Elu_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Elu_left_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Elu_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0x00000000u);
  float t5 = __uint_as_float(0x00000000u);
  bool t6 = t5 < t0;
  float t7 = __uint_as_float(0xc1900000u);
  float t8 = __uint_as_float(0x42b20000u);
  float t9 = t0 < t7 ? t7 : t0 > t8 ? t8 : t0;
  float t10 = __uint_as_float(0x3fb8aa3bu);
  float t11 = __fmul_rn(t9, t10);
  float t12 = rintf(t11);
  float t13 = __uint_as_float(0xbf317180u);
  float t14 = __fmaf_rn(t12, t13, t9);
  float t15 = __uint_as_float(0xb717f7d1u);
  float t16 = __fmul_rn(t12, t15);
  float t17 = __fadd_rn(t14, t16);
  float t18 = __fsub_rn(t14, t17);
  float t19 = __fadd_rn(t18, t16);
  float t20 = __uint_as_float(0x395123b8u);
  float t21 = __uint_as_float(0x3ab69e44u);
  float t22 = __fmaf_rn(t20, t17, t21);
  float t23 = __uint_as_float(0x3c088801u);
  float t24 = __fmaf_rn(t22, t17, t23);
  float t25 = __uint_as_float(0x3d2aaa7bu);
  float t26 = __fmaf_rn(t24, t17, t25);
  float t27 = __uint_as_float(0x3e2aaaabu);
  float t28 = __fmaf_rn(t26, t17, t27);
  float t29 = __uint_as_float(0x3f000000u);
  float t30 = __fmaf_rn(t28, t17, t29);
  float t31 = __fmul_rn(t17, t17);
  float t32 = __fmaf_rn(t31, t30, t19);
  float t33 = __uint_as_float(0x3f800000u);
  float t34 = __fsub_rn(t12, t33);
  float t35 = __int_as_float(__float_as_int(__fadd_rn(t34, 8388735.0f)) << 23);
  float t36 = __uint_as_float(0x3f000000u);
  float t37 = __fsub_rn(t35, t36);
  float t38 = __fmul_rn(t35, t17);
  float t39 = __fadd_rn(t37, t38);
  float t40 = __fsub_rn(t39, t37);
  float t41 = __fsub_rn(t38, t40);
  float t42 = __fmaf_rn(t35, t32, t41);
  float t43 = __fadd_rn(t39, t42);
  float t44 = fabsf(t0);
  float t45 = __uint_as_float(0x33000000u);
  bool t46 = t44 < t45;
  float t47 = __fadd_rn(t43, t43);
  float t48 = t46 ? t0 : t47;
  float t49 = t3 ? t4 : t48;
  return t49;
}

ELEMENTWISE(Elu_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Elu_right_slope(a, b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Celu_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fdiv_rn(t0, t1);
  float t3 = fabsf(t2);
  float t4 = __uint_as_float(0x0da24260u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc1900000u);
  float t7 = __uint_as_float(0x42b20000u);
  float t8 = t2 < t6 ? t6 : t2 > t7 ? t7 : t2;
  float t9 = __uint_as_float(0x3fb8aa3bu);
  float t10 = __fmul_rn(t8, t9);
  float t11 = rintf(t10);
  float t12 = __uint_as_float(0xbf317180u);
  float t13 = __fmaf_rn(t11, t12, t8);
  float t14 = __uint_as_float(0xb717f7d1u);
  float t15 = __fmul_rn(t11, t14);
  float t16 = __fadd_rn(t13, t15);
  float t17 = __fsub_rn(t13, t16);
  float t18 = __fadd_rn(t17, t15);
  float t19 = __uint_as_float(0x395123b8u);
  float t20 = __uint_as_float(0x3ab69e44u);
  float t21 = __fmaf_rn(t19, t16, t20);
  float t22 = __uint_as_float(0x3c088801u);
  float t23 = __fmaf_rn(t21, t16, t22);
  float t24 = __uint_as_float(0x3d2aaa7bu);
  float t25 = __fmaf_rn(t23, t16, t24);
  float t26 = __uint_as_float(0x3e2aaaabu);
  float t27 = __fmaf_rn(t25, t16, t26);
  float t28 = __uint_as_float(0x3f000000u);
  float t29 = __fmaf_rn(t27, t16, t28);
  float t30 = __fmul_rn(t16, t16);
  float t31 = __fmaf_rn(t30, t29, t18);
  float t32 = __uint_as_float(0x3f800000u);
  float t33 = __fsub_rn(t11, t32);
  float t34 = __int_as_float(__float_as_int(__fadd_rn(t33, 8388735.0f)) << 23);
  float t35 = __uint_as_float(0x3f000000u);
  float t36 = __fsub_rn(t34, t35);
  float t37 = __fmul_rn(t34, t16);
  float t38 = __fadd_rn(t36, t37);
  float t39 = __fsub_rn(t38, t36);
  float t40 = __fsub_rn(t37, t39);
  float t41 = __fmaf_rn(t34, t31, t40);
  float t42 = __fadd_rn(t38, t41);
  float t43 = fabsf(t2);
  float t44 = __uint_as_float(0x33000000u);
  bool t45 = t43 < t44;
  float t46 = __fadd_rn(t42, t42);
  float t47 = t45 ? t2 : t46;
  float t48 = __fmul_rn(t1, t47);
  float t49 = t5 ? t0 : t48;
  float t50 = __uint_as_float(0x00000000u);
  bool t51 = t50 < t0;
  float t52 = t51 ? t0 : t49;
  return t52;
}

__device__ __forceinline__ double Celu_f_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __ddiv_rn(t0, t1);
  double t3 = fabs(t2);
  double t4 = __longlong_as_double(0x39b4484bfeebc2a0ll);
  bool t5 = t3 < t4;
  double t6 = wide_expm1(t2);
  double t7 = __dmul_rn(t1, t6);
  double t8 = t5 ? t0 : t7;
  double t9 = __longlong_as_double(0x0000000000000000ll);
  bool t10 = t9 < t0;
  double t11 = t10 ? t0 : t8;
  return t11;
}

ELEMENTWISE(Celu, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Celu_f(a, b);
  if (is_small(y) || !is_finite(y) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(Celu_f_wide((double)a, (double)b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Celu_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x00000000u);
  bool t3 = t2 < t0;
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = __uint_as_float(0x00000000u);
  bool t6 = t5 < t0;
  float t7 = __fdiv_rn(t0, t1);
  float t8 = fabsf(t7);
  float t9 = __uint_as_float(0x42ae0000u);
  bool t10 = t8 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  bool t12 = t7 < t11;
  float t13 = __uint_as_float(0x00000000u);
  float t14 = __uint_as_float(0xc2d00000u);
  bool t15 = t7 < t14;
  float t16 = __uint_as_float(0xc2d00000u);
  float t17 = __uint_as_float(0x42b20000u);
  float t18 = t7 < t16 ? t16 : t7 > t17 ? t17 : t7;
  float t19 = t15 ? t13 : t18;
  float t20 = __uint_as_float(0x3fb8aa3bu);
  float t21 = __uint_as_float(0x4b400000u);
  float t22 = __fmaf_rn(t19, t20, t21);
  float t23 = __uint_as_float(0x4b400000u);
  float t24 = __fsub_rn(t22, t23);
  float t25 = __uint_as_float(0xbf317180u);
  float t26 = __fmaf_rn(t24, t25, t19);
  float t27 = __uint_as_float(0xb717f7d1u);
  float t28 = __fmaf_rn(t24, t27, t26);
  float t29 = __uint_as_float(0x3ab52794u);
  float t30 = __uint_as_float(0x3c091cc0u);
  float t31 = __fmaf_rn(t29, t28, t30);
  float t32 = __uint_as_float(0x3d2aac57u);
  float t33 = __fmaf_rn(t31, t28, t32);
  float t34 = __uint_as_float(0x3e2aaa49u);
  float t35 = __fmaf_rn(t33, t28, t34);
  float t36 = __uint_as_float(0x3efffffeu);
  float t37 = __fmaf_rn(t35, t28, t36);
  float t38 = __fmul_rn(t28, t28);
  float t39 = __fmaf_rn(t38, t37, t28);
  float t40 = __uint_as_float(0x3f800000u);
  float t41 = __fadd_rn(t39, t40);
  float t42 = __uint_as_float(0x3f000000u);
  float t43 = __fmul_rn(t24, t42);
  float t44 = rintf(t43);
  float t45 = __int_as_float(__float_as_int(__fadd_rn(t44, 8388735.0f)) << 23);
  float t46 = __fmul_rn(t41, t45);
  float t47 = __fsub_rn(t24, t44);
  float t48 = __int_as_float(__float_as_int(__fadd_rn(t47, 8388735.0f)) << 23);
  float t49 = __fmul_rn(t46, t48);
  float t50 = t15 ? t13 : t49;
  float t51 = t3 ? t4 : t50;
  return t51;
}

__device__ __forceinline__ double Celu_left_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x0000000000000000ll);
  bool t3 = t2 < t0;
  double t4 = __longlong_as_double(0x3ff0000000000000ll);
  double t5 = __longlong_as_double(0x0000000000000000ll);
  bool t6 = t5 < t0;
  double t7 = __ddiv_rn(t0, t1);
  double t8 = wide_exp(t7);
  double t9 = t3 ? t4 : t8;
  return t9;
}

ELEMENTWISE(Celu_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Celu_left_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Celu_left_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Celu_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x3f800000u);
  float t3 = __uint_as_float(0x00000000u);
  bool t4 = t3 < t0;
  float t5 = __fdiv_rn(t0, t1);
  bool t6 = t2 < t5;
  float t7 = __uint_as_float(0xc47a0000u);
  float t8 = larger(t5, t7);
  bool t9 = t2 < t5;
  bool t10 = t5 <= t2;
  float t11 = __fsub_rn(t2, t5);
  float t12 = fabsf(t5);
  float t13 = __uint_as_float(0x42ae0000u);
  bool t14 = t12 < t13;
  float t15 = __uint_as_float(0xc2d00000u);
  bool t16 = t5 < t15;
  float t17 = __uint_as_float(0x00000000u);
  float t18 = __uint_as_float(0xc2d00000u);
  bool t19 = t5 < t18;
  float t20 = __uint_as_float(0xc2d00000u);
  float t21 = __uint_as_float(0x42b20000u);
  float t22 = t5 < t20 ? t20 : t5 > t21 ? t21 : t5;
  float t23 = t19 ? t17 : t22;
  float t24 = __uint_as_float(0x3fb8aa3bu);
  float t25 = __uint_as_float(0x4b400000u);
  float t26 = __fmaf_rn(t23, t24, t25);
  float t27 = __uint_as_float(0x4b400000u);
  float t28 = __fsub_rn(t26, t27);
  float t29 = __uint_as_float(0xbf317180u);
  float t30 = __fmaf_rn(t28, t29, t23);
  float t31 = __uint_as_float(0xb717f7d1u);
  float t32 = __fmaf_rn(t28, t31, t30);
  float t33 = __uint_as_float(0x3ab52794u);
  float t34 = __uint_as_float(0x3c091cc0u);
  float t35 = __fmaf_rn(t33, t32, t34);
  float t36 = __uint_as_float(0x3d2aac57u);
  float t37 = __fmaf_rn(t35, t32, t36);
  float t38 = __uint_as_float(0x3e2aaa49u);
  float t39 = __fmaf_rn(t37, t32, t38);
  float t40 = __uint_as_float(0x3efffffeu);
  float t41 = __fmaf_rn(t39, t32, t40);
  float t42 = __fmul_rn(t32, t32);
  float t43 = __fmaf_rn(t42, t41, t32);
  float t44 = __uint_as_float(0x3f800000u);
  float t45 = __fadd_rn(t43, t44);
  float t46 = __uint_as_float(0x3f000000u);
  float t47 = __fmul_rn(t28, t46);
  float t48 = rintf(t47);
  float t49 = __int_as_float(__float_as_int(__fadd_rn(t48, 8388735.0f)) << 23);
  float t50 = __fmul_rn(t45, t49);
  float t51 = __fsub_rn(t28, t48);
  float t52 = __int_as_float(__float_as_int(__fadd_rn(t51, 8388735.0f)) << 23);
  float t53 = __fmul_rn(t50, t52);
  float t54 = t19 ? t17 : t53;
  float t55 = __fmul_rn(t11, t54);
  float t56 = __fsub_rn(t55, t2);
  float t57 = __uint_as_float(0xc1900000u);
  float t58 = __uint_as_float(0x42b20000u);
  float t59 = t8 < t57 ? t57 : t8 > t58 ? t58 : t8;
  float t60 = __uint_as_float(0x3fb8aa3bu);
  float t61 = __fmul_rn(t59, t60);
  float t62 = rintf(t61);
  float t63 = __uint_as_float(0xbf317180u);
  float t64 = __fmaf_rn(t62, t63, t59);
  float t65 = __uint_as_float(0xb717f7d1u);
  float t66 = __fmul_rn(t62, t65);
  float t67 = __fadd_rn(t64, t66);
  float t68 = __fsub_rn(t64, t67);
  float t69 = __fadd_rn(t68, t66);
  float t70 = __uint_as_float(0x395123b8u);
  float t71 = __uint_as_float(0x3ab69e44u);
  float t72 = __fmaf_rn(t70, t67, t71);
  float t73 = __uint_as_float(0x3c088801u);
  float t74 = __fmaf_rn(t72, t67, t73);
  float t75 = __uint_as_float(0x3d2aaa7bu);
  float t76 = __fmaf_rn(t74, t67, t75);
  float t77 = __uint_as_float(0x3e2aaaabu);
  float t78 = __fmaf_rn(t76, t67, t77);
  float t79 = __uint_as_float(0x3f000000u);
  float t80 = __fmaf_rn(t78, t67, t79);
  float t81 = __fmul_rn(t67, t67);
  float t82 = __fmaf_rn(t81, t80, t69);
  float t83 = __uint_as_float(0x3f800000u);
  float t84 = __fsub_rn(t62, t83);
  float t85 = __int_as_float(__float_as_int(__fadd_rn(t84, 8388735.0f)) << 23);
  float t86 = __uint_as_float(0x3f000000u);
  float t87 = __fsub_rn(t85, t86);
  float t88 = __fmul_rn(t85, t67);
  float t89 = __fadd_rn(t87, t88);
  float t90 = __fsub_rn(t89, t87);
  float t91 = __fsub_rn(t88, t90);
  float t92 = __fmaf_rn(t85, t82, t91);
  float t93 = __fadd_rn(t89, t92);
  float t94 = fabsf(t8);
  float t95 = __uint_as_float(0x33000000u);
  bool t96 = t94 < t95;
  float t97 = __fadd_rn(t93, t93);
  float t98 = t96 ? t8 : t97;
  float t99 = fabsf(t8);
  float t100 = __uint_as_float(0x42ae0000u);
  bool t101 = t99 < t100;
  float t102 = __uint_as_float(0xc2d00000u);
  bool t103 = t8 < t102;
  float t104 = __uint_as_float(0x00000000u);
  float t105 = __uint_as_float(0xc2d00000u);
  bool t106 = t8 < t105;
  float t107 = __uint_as_float(0xc2d00000u);
  float t108 = __uint_as_float(0x42b20000u);
  float t109 = t8 < t107 ? t107 : t8 > t108 ? t108 : t8;
  float t110 = t106 ? t104 : t109;
  float t111 = __uint_as_float(0x3fb8aa3bu);
  float t112 = __uint_as_float(0x4b400000u);
  float t113 = __fmaf_rn(t110, t111, t112);
  float t114 = __uint_as_float(0x4b400000u);
  float t115 = __fsub_rn(t113, t114);
  float t116 = __uint_as_float(0xbf317180u);
  float t117 = __fmaf_rn(t115, t116, t110);
  float t118 = __uint_as_float(0xb717f7d1u);
  float t119 = __fmaf_rn(t115, t118, t117);
  float t120 = __uint_as_float(0x3ab52794u);
  float t121 = __uint_as_float(0x3c091cc0u);
  float t122 = __fmaf_rn(t120, t119, t121);
  float t123 = __uint_as_float(0x3d2aac57u);
  float t124 = __fmaf_rn(t122, t119, t123);
  float t125 = __uint_as_float(0x3e2aaa49u);
  float t126 = __fmaf_rn(t124, t119, t125);
  float t127 = __uint_as_float(0x3efffffeu);
  float t128 = __fmaf_rn(t126, t119, t127);
  float t129 = __fmul_rn(t119, t119);
  float t130 = __fmaf_rn(t129, t128, t119);
  float t131 = __uint_as_float(0x3f800000u);
  float t132 = __fadd_rn(t130, t131);
  float t133 = __uint_as_float(0x3f000000u);
  float t134 = __fmul_rn(t115, t133);
  float t135 = rintf(t134);
  float t136 = __int_as_float(__float_as_int(__fadd_rn(t135, 8388735.0f)) << 23);
  float t137 = __fmul_rn(t132, t136);
  float t138 = __fsub_rn(t115, t135);
  float t139 = __int_as_float(__float_as_int(__fadd_rn(t138, 8388735.0f)) << 23);
  float t140 = __fmul_rn(t137, t139);
  float t141 = t106 ? t104 : t140;
  float t142 = __fmul_rn(t8, t141);
  float t143 = __fsub_rn(t98, t142);
  float t144 = t6 ? t56 : t143;
  float t145 = __uint_as_float(0x00000000u);
  bool t146 = t145 < t0;
  float t147 = __uint_as_float(0x00000000u);
  float t148 = t146 ? t147 : t144;
  return t148;
}

__device__ __forceinline__ double Celu_right_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x3ff0000000000000ll);
  double t3 = __longlong_as_double(0x0000000000000000ll);
  bool t4 = t3 < t0;
  double t5 = __ddiv_rn(t0, t1);
  bool t6 = t2 < t5;
  double t7 = __longlong_as_double(0xc08f400000000000ll);
  double t8 = wide_max(t5, t7);
  bool t9 = t2 < t5;
  bool t10 = t5 <= t2;
  double t11 = __dsub_rn(t2, t5);
  double t12 = wide_exp(t5);
  double t13 = __dmul_rn(t11, t12);
  double t14 = __dsub_rn(t13, t2);
  double t15 = wide_expm1(t8);
  double t16 = wide_exp(t8);
  double t17 = __dmul_rn(t8, t16);
  double t18 = __dsub_rn(t15, t17);
  double t19 = t6 ? t14 : t18;
  double t20 = __longlong_as_double(0x0000000000000000ll);
  bool t21 = t20 < t0;
  double t22 = __longlong_as_double(0x0000000000000000ll);
  double t23 = t21 ? t22 : t19;
  return t23;
}

ELEMENTWISE(Celu_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Celu_right_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Celu_right_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Softplus_f(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __fmul_rn(t0, t1);
  float t3 = __uint_as_float(0x41a00000u);
  bool t4 = t3 < t2;
  float t5 = fabsf(t2);
  float t6 = __uint_as_float(0x42ae0000u);
  bool t7 = t5 < t6;
  float t8 = __uint_as_float(0xc2d00000u);
  bool t9 = t2 < t8;
  float t10 = __uint_as_float(0x00000000u);
  float t11 = __uint_as_float(0xc2d00000u);
  bool t12 = t2 < t11;
  float t13 = __uint_as_float(0xc2d00000u);
  float t14 = __uint_as_float(0x42b20000u);
  float t15 = t2 < t13 ? t13 : t2 > t14 ? t14 : t2;
  float t16 = t12 ? t10 : t15;
  float t17 = __uint_as_float(0x3fb8aa3bu);
  float t18 = __uint_as_float(0x4b400000u);
  float t19 = __fmaf_rn(t16, t17, t18);
  float t20 = __uint_as_float(0x4b400000u);
  float t21 = __fsub_rn(t19, t20);
  float t22 = __uint_as_float(0xbf317180u);
  float t23 = __fmaf_rn(t21, t22, t16);
  float t24 = __uint_as_float(0xb717f7d1u);
  float t25 = __fmaf_rn(t21, t24, t23);
  float t26 = __uint_as_float(0x3ab52794u);
  float t27 = __uint_as_float(0x3c091cc0u);
  float t28 = __fmaf_rn(t26, t25, t27);
  float t29 = __uint_as_float(0x3d2aac57u);
  float t30 = __fmaf_rn(t28, t25, t29);
  float t31 = __uint_as_float(0x3e2aaa49u);
  float t32 = __fmaf_rn(t30, t25, t31);
  float t33 = __uint_as_float(0x3efffffeu);
  float t34 = __fmaf_rn(t32, t25, t33);
  float t35 = __fmul_rn(t25, t25);
  float t36 = __fmaf_rn(t35, t34, t25);
  float t37 = __uint_as_float(0x3f800000u);
  float t38 = __fadd_rn(t36, t37);
  float t39 = __uint_as_float(0x3f000000u);
  float t40 = __fmul_rn(t21, t39);
  float t41 = rintf(t40);
  float t42 = __int_as_float(__float_as_int(__fadd_rn(t41, 8388735.0f)) << 23);
  float t43 = __fmul_rn(t38, t42);
  float t44 = __fsub_rn(t21, t41);
  float t45 = __int_as_float(__float_as_int(__fadd_rn(t44, 8388735.0f)) << 23);
  float t46 = __fmul_rn(t43, t45);
  float t47 = t12 ? t10 : t46;
  float t48 = __uint_as_float(0x3f800000u);
  float t49 = __fadd_rn(t48, t47);
  bool t50 = t47 < t48;
  float t51 = __fsub_rn(t49, t48);
  float t52 = __fsub_rn(t47, t51);
  float t53 = __fsub_rn(t49, t47);
  float t54 = __fsub_rn(t48, t53);
  float t55 = t50 ? t52 : t54;
  int t56 = __float_as_int(t49) - 0x3f3504f3;
  int t57 = t56 >> 23;
  float t58 = __uint_as_float(__float_as_uint(t49) - ((u32)t57 << 23));
  float t59 = __int2float_rn(t57);
  float t60 = -t59;
  float t61 = __uint_as_float(0xc2c80000u);
  float t62 = __uint_as_float(0x42c80000u);
  float t63 = t60 < t61 ? t61 : t60 > t62 ? t62 : t60;
  float t64 = __int_as_float(__float_as_int(__fadd_rn(t63, 8388735.0f)) << 23);
  float t65 = __fsub_rn(t58, t48);
  float t66 = __fmaf_rn(t55, t64, t65);
  float t67 = __uint_as_float(0x40000000u);
  float t68 = __fadd_rn(t67, t66);
  float t69 = __fdiv_rn(t66, t68);
  float t70 = __fmul_rn(t69, t69);
  float t71 = __uint_as_float(0x3e789e26u);
  float t72 = __uint_as_float(0x3e91e9eeu);
  float t73 = __fmaf_rn(t71, t70, t72);
  float t74 = __uint_as_float(0x3eccce13u);
  float t75 = __fmaf_rn(t73, t70, t74);
  float t76 = __uint_as_float(0x3f2aaaaau);
  float t77 = __fmaf_rn(t75, t70, t76);
  float t78 = __fmul_rn(t77, t70);
  float t79 = __uint_as_float(0x3f000000u);
  float t80 = __fmul_rn(t79, t66);
  float t81 = __fmul_rn(t80, t66);
  float t82 = __uint_as_float(0x3f317180u);
  float t83 = __fadd_rn(t81, t78);
  float t84 = __uint_as_float(0x3717f7d1u);
  float t85 = __fmul_rn(t59, t84);
  float t86 = __fmaf_rn(t69, t83, t85);
  float t87 = __fsub_rn(t81, t86);
  float t88 = __fsub_rn(t66, t87);
  float t89 = __fmaf_rn(t59, t82, t88);
  float t90 = __uint_as_float(0x00000000u);
  bool t91 = t49 == t90;
  float t92 = __uint_as_float(0xff800000u);
  float t93 = t91 ? t92 : t89;
  float t94 = __uint_as_float(0x7f800000u);
  bool t95 = t49 < t94;
  float t96 = t95 ? t93 : t49;
  float t97 = __uint_as_float(0x00000000u);
  bool t98 = t49 < t97;
  float t99 = __uint_as_float(0x7fc00000u);
  float t100 = t98 ? t99 : t96;
  float t101 = __uint_as_float((__float_as_uint(t100) & 0x7fffffffu) | (__float_as_uint(t47) & 0x80000000u));
  float t102 = __fdiv_rn(t101, t1);
  float t103 = t4 ? t0 : t102;
  return t103;
}

__device__ __forceinline__ double Softplus_f_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __dmul_rn(t0, t1);
  double t3 = __longlong_as_double(0x4034000000000000ll);
  bool t4 = t3 < t2;
  double t5 = wide_exp(t2);
  double t6 = log1p(t5);
  double t7 = __ddiv_rn(t6, t1);
  double t8 = t4 ? t0 : t7;
  return t8;
}

ELEMENTWISE(Softplus, 2, {
  float a = load_or_value(p, p.in[0], at.in[0]);
  float b = load_or_value(p, p.in[1], at.in[1]);
  float y = Softplus_f(a, b);
  if (is_small(y) || !is_finite(y) || is_extreme(a) || is_extreme(b))
    y = __double2float_rn(Softplus_f_wide((double)a, (double)b));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Softplus_left_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x41a00000u);
  float t3 = __fmul_rn(t0, t1);
  bool t4 = t2 < t3;
  float t5 = __uint_as_float(0x3f800000u);
  float t6 = __fmul_rn(t0, t1);
  float t7 = __uint_as_float(0x00000000u);
  float t8 = __uint_as_float(0x3f800000u);
  float t9 = fabsf(t6);
  float t10 = -t9;
  float t11 = __uint_as_float(0xc2e00000u);
  float t12 = __uint_as_float(0x00000000u);
  float t13 = t10 < t11 ? t11 : t10 > t12 ? t12 : t10;
  float t14 = __uint_as_float(0x3fb8aa3bu);
  float t15 = __uint_as_float(0x4b400000u);
  float t16 = __fmaf_rn(t13, t14, t15);
  float t17 = __uint_as_float(0x4b400000u);
  float t18 = __fsub_rn(t16, t17);
  float t19 = __uint_as_float(0xbf317180u);
  float t20 = __fmaf_rn(t18, t19, t13);
  float t21 = __uint_as_float(0xb717f7d1u);
  float t22 = __fmaf_rn(t18, t21, t20);
  float t23 = __uint_as_float(0x3ab52794u);
  float t24 = __uint_as_float(0x3c091cc0u);
  float t25 = __fmaf_rn(t23, t22, t24);
  float t26 = __uint_as_float(0x3d2aac57u);
  float t27 = __fmaf_rn(t25, t22, t26);
  float t28 = __uint_as_float(0x3e2aaa49u);
  float t29 = __fmaf_rn(t27, t22, t28);
  float t30 = __uint_as_float(0x3efffffeu);
  float t31 = __fmaf_rn(t29, t22, t30);
  float t32 = __fmul_rn(t22, t22);
  float t33 = __fmaf_rn(t32, t31, t22);
  float t34 = __fadd_rn(t8, t33);
  float t35 = __fsub_rn(t34, t8);
  float t36 = __fsub_rn(t33, t35);
  float t37 = __uint_as_float(0xc2c80000u);
  float t38 = __uint_as_float(0x00000000u);
  float t39 = t18 < t37 ? t37 : t18 > t38 ? t38 : t18;
  float t40 = __int_as_float(__float_as_int(__fadd_rn(t39, 8388735.0f)) << 23);
  float t41 = __fmul_rn(t40, t34);
  float t42 = __fadd_rn(t8, t41);
  float t43 = __fsub_rn(t42, t8);
  float t44 = __fsub_rn(t41, t43);
  float t45 = __fmaf_rn(t40, t36, t44);
  bool t46 = t6 < t7;
  float t47 = t46 ? t34 : t8;
  float t48 = t46 ? t36 : t7;
  float t49 = t46 ? t18 : t7;
  float t50 = __fdiv_rn(t8, t42);
  float t51 = __fmul_rn(t47, t50);
  float t52 = -t51;
  float t53 = __fmaf_rn(t52, t42, t47);
  float t54 = -t51;
  float t55 = __fmaf_rn(t54, t45, t48);
  float t56 = __fadd_rn(t53, t55);
  float t57 = __fmaf_rn(t56, t50, t51);
  float t58 = __uint_as_float(0x3f000000u);
  float t59 = __fmul_rn(t49, t58);
  float t60 = rintf(t59);
  float t61 = __int_as_float(__float_as_int(__fadd_rn(t60, 8388735.0f)) << 23);
  float t62 = __fmul_rn(t57, t61);
  float t63 = __fsub_rn(t49, t60);
  float t64 = __int_as_float(__float_as_int(__fadd_rn(t63, 8388735.0f)) << 23);
  float t65 = __fmul_rn(t62, t64);
  float t66 = t4 ? t5 : t65;
  return t66;
}

__device__ __forceinline__ double Softplus_left_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x4034000000000000ll);
  double t3 = __dmul_rn(t0, t1);
  bool t4 = t2 < t3;
  double t5 = __longlong_as_double(0x3ff0000000000000ll);
  double t6 = __dmul_rn(t0, t1);
  double t7 = wide_sigmoid(t6);
  double t8 = t4 ? t5 : t7;
  return t8;
}

ELEMENTWISE(Softplus_left_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Softplus_left_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Softplus_left_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Softplus_right_slope(float a, float b) {
  float t0 = a;
  float t1 = b;
  float t2 = __uint_as_float(0x41a00000u);
  float t3 = __fmul_rn(t0, t1);
  bool t4 = t2 < t3;
  float t5 = __fmul_rn(t0, t1);
  float t6 = fabsf(t5);
  float t7 = -t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0x00000000u);
  float t10 = __uint_as_float(0x3f800000u);
  float t11 = fabsf(t7);
  float t12 = -t11;
  float t13 = __uint_as_float(0xc2e00000u);
  float t14 = __uint_as_float(0x00000000u);
  float t15 = t12 < t13 ? t13 : t12 > t14 ? t14 : t12;
  float t16 = __uint_as_float(0x3fb8aa3bu);
  float t17 = __uint_as_float(0x4b400000u);
  float t18 = __fmaf_rn(t15, t16, t17);
  float t19 = __uint_as_float(0x4b400000u);
  float t20 = __fsub_rn(t18, t19);
  float t21 = __uint_as_float(0xbf317180u);
  float t22 = __fmaf_rn(t20, t21, t15);
  float t23 = __uint_as_float(0xb717f7d1u);
  float t24 = __fmaf_rn(t20, t23, t22);
  float t25 = __uint_as_float(0x3ab52794u);
  float t26 = __uint_as_float(0x3c091cc0u);
  float t27 = __fmaf_rn(t25, t24, t26);
  float t28 = __uint_as_float(0x3d2aac57u);
  float t29 = __fmaf_rn(t27, t24, t28);
  float t30 = __uint_as_float(0x3e2aaa49u);
  float t31 = __fmaf_rn(t29, t24, t30);
  float t32 = __uint_as_float(0x3efffffeu);
  float t33 = __fmaf_rn(t31, t24, t32);
  float t34 = __fmul_rn(t24, t24);
  float t35 = __fmaf_rn(t34, t33, t24);
  float t36 = __fadd_rn(t10, t35);
  float t37 = __fsub_rn(t36, t10);
  float t38 = __fsub_rn(t35, t37);
  float t39 = __uint_as_float(0xc2c80000u);
  float t40 = __uint_as_float(0x00000000u);
  float t41 = t20 < t39 ? t39 : t20 > t40 ? t40 : t20;
  float t42 = __int_as_float(__float_as_int(__fadd_rn(t41, 8388735.0f)) << 23);
  float t43 = __fmul_rn(t42, t36);
  float t44 = __fadd_rn(t10, t43);
  float t45 = __fsub_rn(t44, t10);
  float t46 = __fsub_rn(t43, t45);
  float t47 = __fmaf_rn(t42, t38, t46);
  bool t48 = t7 < t9;
  float t49 = t48 ? t36 : t10;
  float t50 = t48 ? t38 : t9;
  float t51 = t48 ? t20 : t9;
  float t52 = __fdiv_rn(t10, t44);
  float t53 = __fmul_rn(t49, t52);
  float t54 = -t53;
  float t55 = __fmaf_rn(t54, t44, t49);
  float t56 = -t53;
  float t57 = __fmaf_rn(t56, t47, t50);
  float t58 = __fadd_rn(t55, t57);
  float t59 = __fmaf_rn(t58, t52, t53);
  float t60 = __uint_as_float(0x3f000000u);
  float t61 = __fmul_rn(t51, t60);
  float t62 = rintf(t61);
  float t63 = __int_as_float(__float_as_int(__fadd_rn(t62, 8388735.0f)) << 23);
  float t64 = __fmul_rn(t59, t63);
  float t65 = __fsub_rn(t51, t62);
  float t66 = __int_as_float(__float_as_int(__fadd_rn(t65, 8388735.0f)) << 23);
  float t67 = __fmul_rn(t64, t66);
  float t68 = __fmul_rn(t7, t67);
  float t69 = fabsf(t7);
  float t70 = __uint_as_float(0x42ae0000u);
  bool t71 = t69 < t70;
  float t72 = __uint_as_float(0xc2d00000u);
  bool t73 = t7 < t72;
  float t74 = __uint_as_float(0x00000000u);
  float t75 = __uint_as_float(0xc2d00000u);
  bool t76 = t7 < t75;
  float t77 = __uint_as_float(0xc2d00000u);
  float t78 = __uint_as_float(0x42b20000u);
  float t79 = t7 < t77 ? t77 : t7 > t78 ? t78 : t7;
  float t80 = t76 ? t74 : t79;
  float t81 = __uint_as_float(0x3fb8aa3bu);
  float t82 = __uint_as_float(0x4b400000u);
  float t83 = __fmaf_rn(t80, t81, t82);
  float t84 = __uint_as_float(0x4b400000u);
  float t85 = __fsub_rn(t83, t84);
  float t86 = __uint_as_float(0xbf317180u);
  float t87 = __fmaf_rn(t85, t86, t80);
  float t88 = __uint_as_float(0xb717f7d1u);
  float t89 = __fmaf_rn(t85, t88, t87);
  float t90 = __uint_as_float(0x3ab52794u);
  float t91 = __uint_as_float(0x3c091cc0u);
  float t92 = __fmaf_rn(t90, t89, t91);
  float t93 = __uint_as_float(0x3d2aac57u);
  float t94 = __fmaf_rn(t92, t89, t93);
  float t95 = __uint_as_float(0x3e2aaa49u);
  float t96 = __fmaf_rn(t94, t89, t95);
  float t97 = __uint_as_float(0x3efffffeu);
  float t98 = __fmaf_rn(t96, t89, t97);
  float t99 = __fmul_rn(t89, t89);
  float t100 = __fmaf_rn(t99, t98, t89);
  float t101 = __uint_as_float(0x3f800000u);
  float t102 = __fadd_rn(t100, t101);
  float t103 = __uint_as_float(0x3f000000u);
  float t104 = __fmul_rn(t85, t103);
  float t105 = rintf(t104);
  float t106 = __int_as_float(__float_as_int(__fadd_rn(t105, 8388735.0f)) << 23);
  float t107 = __fmul_rn(t102, t106);
  float t108 = __fsub_rn(t85, t105);
  float t109 = __int_as_float(__float_as_int(__fadd_rn(t108, 8388735.0f)) << 23);
  float t110 = __fmul_rn(t107, t109);
  float t111 = t76 ? t74 : t110;
  float t112 = __uint_as_float(0x3f800000u);
  float t113 = __fadd_rn(t112, t111);
  bool t114 = t111 < t112;
  float t115 = __fsub_rn(t113, t112);
  float t116 = __fsub_rn(t111, t115);
  float t117 = __fsub_rn(t113, t111);
  float t118 = __fsub_rn(t112, t117);
  float t119 = t114 ? t116 : t118;
  int t120 = __float_as_int(t113) - 0x3f3504f3;
  int t121 = t120 >> 23;
  float t122 = __uint_as_float(__float_as_uint(t113) - ((u32)t121 << 23));
  float t123 = __int2float_rn(t121);
  float t124 = -t123;
  float t125 = __uint_as_float(0xc2c80000u);
  float t126 = __uint_as_float(0x42c80000u);
  float t127 = t124 < t125 ? t125 : t124 > t126 ? t126 : t124;
  float t128 = __int_as_float(__float_as_int(__fadd_rn(t127, 8388735.0f)) << 23);
  float t129 = __fsub_rn(t122, t112);
  float t130 = __fmaf_rn(t119, t128, t129);
  float t131 = __uint_as_float(0x40000000u);
  float t132 = __fadd_rn(t131, t130);
  float t133 = __fdiv_rn(t130, t132);
  float t134 = __fmul_rn(t133, t133);
  float t135 = __uint_as_float(0x3e789e26u);
  float t136 = __uint_as_float(0x3e91e9eeu);
  float t137 = __fmaf_rn(t135, t134, t136);
  float t138 = __uint_as_float(0x3eccce13u);
  float t139 = __fmaf_rn(t137, t134, t138);
  float t140 = __uint_as_float(0x3f2aaaaau);
  float t141 = __fmaf_rn(t139, t134, t140);
  float t142 = __fmul_rn(t141, t134);
  float t143 = __uint_as_float(0x3f000000u);
  float t144 = __fmul_rn(t143, t130);
  float t145 = __fmul_rn(t144, t130);
  float t146 = __uint_as_float(0x3f317180u);
  float t147 = __fadd_rn(t145, t142);
  float t148 = __uint_as_float(0x3717f7d1u);
  float t149 = __fmul_rn(t123, t148);
  float t150 = __fmaf_rn(t133, t147, t149);
  float t151 = __fsub_rn(t145, t150);
  float t152 = __fsub_rn(t130, t151);
  float t153 = __fmaf_rn(t123, t146, t152);
  float t154 = __uint_as_float(0x00000000u);
  bool t155 = t113 == t154;
  float t156 = __uint_as_float(0xff800000u);
  float t157 = t155 ? t156 : t153;
  float t158 = __uint_as_float(0x7f800000u);
  bool t159 = t113 < t158;
  float t160 = t159 ? t157 : t113;
  float t161 = __uint_as_float(0x00000000u);
  bool t162 = t113 < t161;
  float t163 = __uint_as_float(0x7fc00000u);
  float t164 = t162 ? t163 : t160;
  float t165 = __uint_as_float((__float_as_uint(t164) & 0x7fffffffu) | (__float_as_uint(t111) & 0x80000000u));
  float t166 = __fsub_rn(t68, t165);
  float t167 = __fmul_rn(t1, t1);
  float t168 = __fdiv_rn(t166, t167);
  float t169 = t4 ? t8 : t168;
  return t169;
}

__device__ __forceinline__ double Softplus_right_slope_wide(double a, double b) {
  double t0 = a;
  double t1 = b;
  double t2 = __longlong_as_double(0x4034000000000000ll);
  double t3 = __dmul_rn(t0, t1);
  bool t4 = t2 < t3;
  double t5 = __dmul_rn(t0, t1);
  double t6 = fabs(t5);
  double t7 = -t6;
  double t8 = __longlong_as_double(0x0000000000000000ll);
  double t9 = wide_sigmoid(t7);
  double t10 = __dmul_rn(t7, t9);
  double t11 = wide_exp(t7);
  double t12 = log1p(t11);
  double t13 = __dsub_rn(t10, t12);
  double t14 = __dmul_rn(t1, t1);
  double t15 = __ddiv_rn(t13, t14);
  double t16 = t4 ? t8 : t15;
  return t16;
}

ELEMENTWISE(Softplus_right_backward, 3, {
  float g = load(p.in[0], at.in[0]);
  float a = load_or_value(p, p.in[1], at.in[1]);
  float b = load_or_value(p, p.in[2], at.in[2]);
  float y = __fmul_rn(g, Softplus_right_slope(a, b));
  if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))
    y = __double2float_rn(__dmul_rn((double)g, Softplus_right_slope_wide((double)a, (double)b)));
  store(p.out, at.out, y);
})
