// Functions of one tensor and their derivatives.
// Written by the rows of the operator table (tests/cuda/rows); not to be edited.
//
// Shapes: tensors that broadcast to one shape, of any strides and float dtypes.
// Tiling: none: a thread has an element, and the next one a grid further on.
// Needs: at most 40 registers to a thread, no shared memory.
// Checked against: the rows of the reference in f64, and the CPU's bits.
#include "elementwise.cuh"

__device__ __forceinline__ float Neg_f(float x) {
  float t0 = x;
  float t1 = -t0;
  return t1;
}

ELEMENTWISE(Neg, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Neg_f(x0));
})

__device__ __forceinline__ float Neg_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0xbf800000u);
  return t1;
}

ELEMENTWISE(Neg_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Neg_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Abs_f(float x) {
  float t0 = x;
  float t1 = fabsf(t0);
  return t1;
}

ELEMENTWISE(Abs, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Abs_f(x0));
})

__device__ __forceinline__ float Abs_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f800000u);
  bool t4 = t0 < t1;
  float t5 = __uint_as_float(0xbf800000u);
  float t6 = t4 ? t5 : t0;
  float t7 = t2 ? t3 : t6;
  return t7;
}

ELEMENTWISE(Abs_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Abs_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sign_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f800000u);
  bool t4 = t0 < t1;
  float t5 = __uint_as_float(0xbf800000u);
  float t6 = t4 ? t5 : t0;
  float t7 = t2 ? t3 : t6;
  return t7;
}

ELEMENTWISE(Sign, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Sign_f(x0));
})

__device__ __forceinline__ float Sign_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  return t1;
}

ELEMENTWISE(Sign_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Sign_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Floor_f(float x) {
  float t0 = x;
  float t1 = floorf(t0);
  return t1;
}

ELEMENTWISE(Floor, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Floor_f(x0));
})

__device__ __forceinline__ float Floor_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  return t1;
}

ELEMENTWISE(Floor_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Floor_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Ceil_f(float x) {
  float t0 = x;
  float t1 = -t0;
  float t2 = floorf(t1);
  float t3 = -t2;
  return t3;
}

ELEMENTWISE(Ceil, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Ceil_f(x0));
})

__device__ __forceinline__ float Ceil_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  return t1;
}

ELEMENTWISE(Ceil_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Ceil_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Round_f(float x) {
  float t0 = x;
  float t1 = rintf(t0);
  return t1;
}

ELEMENTWISE(Round, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Round_f(x0));
})

__device__ __forceinline__ float Round_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  return t1;
}

ELEMENTWISE(Round_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Round_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Trunc_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  bool t2 = t0 < t1;
  float t3 = -t0;
  float t4 = floorf(t3);
  float t5 = -t4;
  float t6 = floorf(t0);
  float t7 = t2 ? t5 : t6;
  return t7;
}

ELEMENTWISE(Trunc, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Trunc_f(x0));
})

__device__ __forceinline__ float Trunc_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  return t1;
}

ELEMENTWISE(Trunc_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Trunc_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Square_f(float x) {
  float t0 = x;
  float t1 = __fmul_rn(t0, t0);
  return t1;
}

ELEMENTWISE(Square, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Square_f(x0));
})

__device__ __forceinline__ float Square_df(float x) {
  float t0 = x;
  float t1 = __fadd_rn(t0, t0);
  return t1;
}

__device__ __forceinline__ double Square_df_wide(double x) {
  double t0 = x;
  double t1 = __dadd_rn(t0, t0);
  return t1;
}

ELEMENTWISE(Square_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Square_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Square_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sqrt_f(float x) {
  float t0 = x;
  float t1 = __fsqrt_rn(t0);
  return t1;
}

ELEMENTWISE(Sqrt, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Sqrt_f(x0));
})

__device__ __forceinline__ float Sqrt_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f000000u);
  float t2 = __fdiv_rn(t1, t0);
  return t2;
}

ELEMENTWISE(Sqrt_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Sqrt_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Rsqrt_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fsqrt_rn(t0);
  float t3 = __fdiv_rn(t1, t2);
  return t3;
}

ELEMENTWISE(Rsqrt, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Rsqrt_f(x0));
})

__device__ __forceinline__ float Rsqrt_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0xbf000000u);
  float t2 = __fmul_rn(t0, t0);
  float t3 = __fmul_rn(t2, t0);
  float t4 = __fmul_rn(t1, t3);
  return t4;
}

__device__ __forceinline__ double Rsqrt_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0xbfe0000000000000ll);
  double t2 = __dmul_rn(t0, t0);
  double t3 = __dmul_rn(t2, t0);
  double t4 = __dmul_rn(t1, t3);
  return t4;
}

ELEMENTWISE(Rsqrt_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Rsqrt_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Rsqrt_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Reciprocal_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fdiv_rn(t1, t0);
  return t2;
}

ELEMENTWISE(Reciprocal, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Reciprocal_f(x0));
})

__device__ __forceinline__ float Reciprocal_df(float x) {
  float t0 = x;
  float t1 = __fmul_rn(t0, t0);
  float t2 = -t1;
  return t2;
}

__device__ __forceinline__ double Reciprocal_df_wide(double x) {
  double t0 = x;
  double t1 = __dmul_rn(t0, t0);
  double t2 = -t1;
  return t2;
}

ELEMENTWISE(Reciprocal_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Reciprocal_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Reciprocal_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Exp_f(float x) {
  float t0 = x;
  float t1 = fabsf(t0);
  float t2 = __uint_as_float(0x42ae0000u);
  bool t3 = t1 < t2;
  float t4 = __uint_as_float(0xc2d00000u);
  bool t5 = t0 < t4;
  float t6 = __uint_as_float(0x00000000u);
  float t7 = __uint_as_float(0xc2d00000u);
  bool t8 = t0 < t7;
  float t9 = __uint_as_float(0xc2d00000u);
  float t10 = __uint_as_float(0x42b20000u);
  float t11 = t0 < t9 ? t9 : t0 > t10 ? t10 : t0;
  float t12 = t8 ? t6 : t11;
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
  float t33 = __uint_as_float(0x3f800000u);
  float t34 = __fadd_rn(t32, t33);
  float t35 = __uint_as_float(0x3f000000u);
  float t36 = __fmul_rn(t17, t35);
  float t37 = rintf(t36);
  float t38 = __int_as_float(__float_as_int(__fadd_rn(t37, 8388735.0f)) << 23);
  float t39 = __fmul_rn(t34, t38);
  float t40 = __fsub_rn(t17, t37);
  float t41 = __int_as_float(__float_as_int(__fadd_rn(t40, 8388735.0f)) << 23);
  float t42 = __fmul_rn(t39, t41);
  float t43 = t8 ? t6 : t42;
  return t43;
}

ELEMENTWISE(Exp, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Exp_f(x0));
})

__device__ __forceinline__ float Exp_df(float x) {
  float t0 = x;
  return t0;
}

ELEMENTWISE(Exp_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Exp_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Exp2_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_exp2((double)t0));
  return t1;
}

ELEMENTWISE(Exp2, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Exp2_f(x0));
})

__device__ __forceinline__ float Exp2_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f317218u);
  float t2 = __fmul_rn(t0, t1);
  return t2;
}

ELEMENTWISE(Exp2_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Exp2_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Expm1_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0xc1900000u);
  float t2 = __uint_as_float(0x42b20000u);
  float t3 = t0 < t1 ? t1 : t0 > t2 ? t2 : t0;
  float t4 = __uint_as_float(0x3fb8aa3bu);
  float t5 = __fmul_rn(t3, t4);
  float t6 = rintf(t5);
  float t7 = __uint_as_float(0xbf317180u);
  float t8 = __fmaf_rn(t6, t7, t3);
  float t9 = __uint_as_float(0xb717f7d1u);
  float t10 = __fmul_rn(t6, t9);
  float t11 = __fadd_rn(t8, t10);
  float t12 = __fsub_rn(t8, t11);
  float t13 = __fadd_rn(t12, t10);
  float t14 = __uint_as_float(0x395123b8u);
  float t15 = __uint_as_float(0x3ab69e44u);
  float t16 = __fmaf_rn(t14, t11, t15);
  float t17 = __uint_as_float(0x3c088801u);
  float t18 = __fmaf_rn(t16, t11, t17);
  float t19 = __uint_as_float(0x3d2aaa7bu);
  float t20 = __fmaf_rn(t18, t11, t19);
  float t21 = __uint_as_float(0x3e2aaaabu);
  float t22 = __fmaf_rn(t20, t11, t21);
  float t23 = __uint_as_float(0x3f000000u);
  float t24 = __fmaf_rn(t22, t11, t23);
  float t25 = __fmul_rn(t11, t11);
  float t26 = __fmaf_rn(t25, t24, t13);
  float t27 = __uint_as_float(0x3f800000u);
  float t28 = __fsub_rn(t6, t27);
  float t29 = __int_as_float(__float_as_int(__fadd_rn(t28, 8388735.0f)) << 23);
  float t30 = __uint_as_float(0x3f000000u);
  float t31 = __fsub_rn(t29, t30);
  float t32 = __fmul_rn(t29, t11);
  float t33 = __fadd_rn(t31, t32);
  float t34 = __fsub_rn(t33, t31);
  float t35 = __fsub_rn(t32, t34);
  float t36 = __fmaf_rn(t29, t26, t35);
  float t37 = __fadd_rn(t33, t36);
  float t38 = fabsf(t0);
  float t39 = __uint_as_float(0x33000000u);
  bool t40 = t38 < t39;
  float t41 = __fadd_rn(t37, t37);
  float t42 = t40 ? t0 : t41;
  return t42;
}

ELEMENTWISE(Expm1, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Expm1_f(x0));
})

__device__ __forceinline__ float Expm1_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fadd_rn(t0, t1);
  return t2;
}

ELEMENTWISE(Expm1_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Expm1_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Log_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00800000u);
  bool t2 = t0 < t1;
  float t3 = __uint_as_float(0x4c000000u);
  float t4 = __fmul_rn(t0, t3);
  float t5 = t2 ? t4 : t0;
  int t6 = __float_as_int(t5) - 0x3f3504f3;
  int t7 = t6 >> 23;
  float t8 = __uint_as_float(__float_as_uint(t5) - ((u32)t7 << 23));
  float t9 = __int2float_rn(t7);
  float t10 = __uint_as_float(0x41c80000u);
  float t11 = __uint_as_float(0x00000000u);
  float t12 = t2 ? t10 : t11;
  float t13 = __fsub_rn(t9, t12);
  float t14 = __uint_as_float(0x3f800000u);
  float t15 = __fsub_rn(t8, t14);
  float t16 = __uint_as_float(0x40000000u);
  float t17 = __fadd_rn(t16, t15);
  float t18 = __fdiv_rn(t15, t17);
  float t19 = __fmul_rn(t18, t18);
  float t20 = __uint_as_float(0x3e789e26u);
  float t21 = __uint_as_float(0x3e91e9eeu);
  float t22 = __fmaf_rn(t20, t19, t21);
  float t23 = __uint_as_float(0x3eccce13u);
  float t24 = __fmaf_rn(t22, t19, t23);
  float t25 = __uint_as_float(0x3f2aaaaau);
  float t26 = __fmaf_rn(t24, t19, t25);
  float t27 = __fmul_rn(t26, t19);
  float t28 = __uint_as_float(0x3f000000u);
  float t29 = __fmul_rn(t28, t15);
  float t30 = __fmul_rn(t29, t15);
  float t31 = __uint_as_float(0x3f317180u);
  float t32 = __fadd_rn(t30, t27);
  float t33 = __uint_as_float(0x3717f7d1u);
  float t34 = __fmul_rn(t13, t33);
  float t35 = __fmaf_rn(t18, t32, t34);
  float t36 = __fsub_rn(t30, t35);
  float t37 = __fsub_rn(t15, t36);
  float t38 = __fmaf_rn(t13, t31, t37);
  float t39 = __uint_as_float(0x00000000u);
  bool t40 = t0 == t39;
  float t41 = __uint_as_float(0xff800000u);
  float t42 = t40 ? t41 : t38;
  float t43 = __uint_as_float(0x7f800000u);
  bool t44 = t0 < t43;
  float t45 = t44 ? t42 : t0;
  float t46 = __uint_as_float(0x00000000u);
  bool t47 = t0 < t46;
  float t48 = __uint_as_float(0x7fc00000u);
  float t49 = t47 ? t48 : t45;
  return t49;
}

ELEMENTWISE(Log, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Log_f(x0));
})

__device__ __forceinline__ float Log_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fdiv_rn(t1, t0);
  return t2;
}

__device__ __forceinline__ double Log_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0x3ff0000000000000ll);
  double t2 = __ddiv_rn(t1, t0);
  return t2;
}

ELEMENTWISE(Log_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Log_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Log_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Log2_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_log2((double)t0));
  return t1;
}

ELEMENTWISE(Log2, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Log2_f(x0));
})

__device__ __forceinline__ float Log2_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f317218u);
  float t2 = __fmul_rn(t0, t1);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fdiv_rn(t3, t2);
  return t4;
}

__device__ __forceinline__ double Log2_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0x3fe62e42fefa39efll);
  double t2 = __dmul_rn(t0, t1);
  double t3 = __longlong_as_double(0x3ff0000000000000ll);
  double t4 = __ddiv_rn(t3, t2);
  return t4;
}

ELEMENTWISE(Log2_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Log2_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Log2_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Log10_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_log10((double)t0));
  return t1;
}

ELEMENTWISE(Log10, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Log10_f(x0));
})

__device__ __forceinline__ float Log10_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x40135d8eu);
  float t2 = __fmul_rn(t0, t1);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fdiv_rn(t3, t2);
  return t4;
}

__device__ __forceinline__ double Log10_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0x40026bb1bbb55516ll);
  double t2 = __dmul_rn(t0, t1);
  double t3 = __longlong_as_double(0x3ff0000000000000ll);
  double t4 = __ddiv_rn(t3, t2);
  return t4;
}

ELEMENTWISE(Log10_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Log10_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Log10_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Log1p_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fadd_rn(t1, t0);
  bool t3 = t0 < t1;
  float t4 = __fsub_rn(t2, t1);
  float t5 = __fsub_rn(t0, t4);
  float t6 = __fsub_rn(t2, t0);
  float t7 = __fsub_rn(t1, t6);
  float t8 = t3 ? t5 : t7;
  int t9 = __float_as_int(t2) - 0x3f3504f3;
  int t10 = t9 >> 23;
  float t11 = __uint_as_float(__float_as_uint(t2) - ((u32)t10 << 23));
  float t12 = __int2float_rn(t10);
  float t13 = -t12;
  float t14 = __uint_as_float(0xc2c80000u);
  float t15 = __uint_as_float(0x42c80000u);
  float t16 = t13 < t14 ? t14 : t13 > t15 ? t15 : t13;
  float t17 = __int_as_float(__float_as_int(__fadd_rn(t16, 8388735.0f)) << 23);
  float t18 = __fsub_rn(t11, t1);
  float t19 = __fmaf_rn(t8, t17, t18);
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
  float t38 = __fmul_rn(t12, t37);
  float t39 = __fmaf_rn(t22, t36, t38);
  float t40 = __fsub_rn(t34, t39);
  float t41 = __fsub_rn(t19, t40);
  float t42 = __fmaf_rn(t12, t35, t41);
  float t43 = __uint_as_float(0x00000000u);
  bool t44 = t2 == t43;
  float t45 = __uint_as_float(0xff800000u);
  float t46 = t44 ? t45 : t42;
  float t47 = __uint_as_float(0x7f800000u);
  bool t48 = t2 < t47;
  float t49 = t48 ? t46 : t2;
  float t50 = __uint_as_float(0x00000000u);
  bool t51 = t2 < t50;
  float t52 = __uint_as_float(0x7fc00000u);
  float t53 = t51 ? t52 : t49;
  float t54 = __uint_as_float((__float_as_uint(t53) & 0x7fffffffu) | (__float_as_uint(t0) & 0x80000000u));
  return t54;
}

ELEMENTWISE(Log1p, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Log1p_f(x0));
})

__device__ __forceinline__ float Log1p_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fadd_rn(t1, t0);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fdiv_rn(t3, t2);
  return t4;
}

ELEMENTWISE(Log1p_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Log1p_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sin_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_sin((double)t0));
  return t1;
}

ELEMENTWISE(Sin, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Sin_f(x0));
})

__device__ __forceinline__ float Sin_df(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_cos((double)t0));
  return t1;
}

ELEMENTWISE(Sin_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Sin_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Cos_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_cos((double)t0));
  return t1;
}

ELEMENTWISE(Cos, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Cos_f(x0));
})

__device__ __forceinline__ float Cos_df(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_sin((double)t0));
  float t2 = -t1;
  return t2;
}

ELEMENTWISE(Cos_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Cos_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Tan_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_tan((double)t0));
  return t1;
}

ELEMENTWISE(Tan, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Tan_f(x0));
})

__device__ __forceinline__ float Tan_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fmaf_rn(t0, t0, t1);
  return t2;
}

ELEMENTWISE(Tan_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Tan_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Asin_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_asin((double)t0));
  return t1;
}

ELEMENTWISE(Asin, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Asin_f(x0));
})

__device__ __forceinline__ float Asin_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fsub_rn(t1, t0);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fadd_rn(t3, t0);
  float t5 = __fmul_rn(t2, t4);
  float t6 = __uint_as_float(0x3f800000u);
  float t7 = __fsqrt_rn(t5);
  float t8 = __fdiv_rn(t6, t7);
  return t8;
}

ELEMENTWISE(Asin_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Asin_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Acos_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_acos((double)t0));
  return t1;
}

ELEMENTWISE(Acos, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Acos_f(x0));
})

__device__ __forceinline__ float Acos_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fsub_rn(t1, t0);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fadd_rn(t3, t0);
  float t5 = __fmul_rn(t2, t4);
  float t6 = __uint_as_float(0x3f800000u);
  float t7 = __fsqrt_rn(t5);
  float t8 = __fdiv_rn(t6, t7);
  float t9 = -t8;
  return t9;
}

ELEMENTWISE(Acos_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Acos_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Atan_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_atan((double)t0));
  return t1;
}

ELEMENTWISE(Atan, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Atan_f(x0));
})

__device__ __forceinline__ float Atan_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fmaf_rn(t0, t0, t1);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fdiv_rn(t3, t2);
  return t4;
}

__device__ __forceinline__ double Atan_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0x3ff0000000000000ll);
  double t2 = __dmul_rn(t0, t0);
  double t3 = __dadd_rn(t2, t1);
  double t4 = __longlong_as_double(0x3ff0000000000000ll);
  double t5 = __ddiv_rn(t4, t3);
  return t5;
}

ELEMENTWISE(Atan_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Atan_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Atan_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sinh_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_sinh((double)t0));
  return t1;
}

ELEMENTWISE(Sinh, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Sinh_f(x0));
})

__device__ __forceinline__ float Sinh_df(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_cosh((double)t0));
  return t1;
}

__device__ __forceinline__ double Sinh_df_wide(double x) {
  double t0 = x;
  double t1 = wide_cosh(t0);
  return t1;
}

ELEMENTWISE(Sinh_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Sinh_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Sinh_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Cosh_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_cosh((double)t0));
  return t1;
}

ELEMENTWISE(Cosh, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Cosh_f(x0));
})

__device__ __forceinline__ float Cosh_df(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_sinh((double)t0));
  return t1;
}

__device__ __forceinline__ double Cosh_df_wide(double x) {
  double t0 = x;
  double t1 = wide_sinh(t0);
  return t1;
}

ELEMENTWISE(Cosh_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Cosh_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Cosh_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Asinh_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_asinh((double)t0));
  return t1;
}

ELEMENTWISE(Asinh, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Asinh_f(x0));
})

__device__ __forceinline__ float Asinh_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fmaf_rn(t0, t0, t1);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fsqrt_rn(t2);
  float t5 = __fdiv_rn(t3, t4);
  return t5;
}

__device__ __forceinline__ double Asinh_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0x3ff0000000000000ll);
  double t2 = __dmul_rn(t0, t0);
  double t3 = __dadd_rn(t2, t1);
  double t4 = __longlong_as_double(0x3ff0000000000000ll);
  double t5 = __dsqrt_rn(t3);
  double t6 = __ddiv_rn(t4, t5);
  return t6;
}

ELEMENTWISE(Asinh_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Asinh_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Asinh_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Acosh_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_acosh((double)t0));
  return t1;
}

ELEMENTWISE(Acosh, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Acosh_f(x0));
})

__device__ __forceinline__ float Acosh_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fsub_rn(t0, t1);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fadd_rn(t0, t3);
  float t5 = __fmul_rn(t2, t4);
  float t6 = __uint_as_float(0x3f800000u);
  float t7 = __fsqrt_rn(t5);
  float t8 = __fdiv_rn(t6, t7);
  return t8;
}

__device__ __forceinline__ double Acosh_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0x3ff0000000000000ll);
  double t2 = __dsub_rn(t0, t1);
  double t3 = __longlong_as_double(0x3ff0000000000000ll);
  double t4 = __dadd_rn(t0, t3);
  double t5 = __dmul_rn(t2, t4);
  double t6 = __longlong_as_double(0x3ff0000000000000ll);
  double t7 = __dsqrt_rn(t5);
  double t8 = __ddiv_rn(t6, t7);
  return t8;
}

ELEMENTWISE(Acosh_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Acosh_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Acosh_df_wide((double)x1)));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Atanh_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_atanh((double)t0));
  return t1;
}

ELEMENTWISE(Atanh, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Atanh_f(x0));
})

__device__ __forceinline__ float Atanh_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fsub_rn(t1, t0);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fadd_rn(t3, t0);
  float t5 = __fmul_rn(t2, t4);
  float t6 = __uint_as_float(0x3f800000u);
  float t7 = __fdiv_rn(t6, t5);
  return t7;
}

ELEMENTWISE(Atanh_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Atanh_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Tanh_f(float x) {
  float t0 = x;
  float t1 = fabsf(t0);
  float t2 = __uint_as_float(0x00000000u);
  float t3 = __uint_as_float(0x41200000u);
  float t4 = t1 < t2 ? t2 : t1 > t3 ? t3 : t1;
  float t5 = __fmul_rn(t4, t4);
  float t6 = __uint_as_float(0xbbbb4915u);
  float t7 = __uint_as_float(0x3ca9284fu);
  float t8 = __fmaf_rn(t6, t5, t7);
  float t9 = __uint_as_float(0xbd5c21a0u);
  float t10 = __fmaf_rn(t8, t5, t9);
  float t11 = __uint_as_float(0x3e0883b0u);
  float t12 = __fmaf_rn(t10, t5, t11);
  float t13 = __uint_as_float(0xbeaaaa9au);
  float t14 = __fmaf_rn(t12, t5, t13);
  float t15 = __fmul_rn(t4, t5);
  float t16 = __fmaf_rn(t15, t14, t4);
  float t17 = __uint_as_float(0x3f800000u);
  float t18 = __uint_as_float(0x40000000u);
  float t19 = __fadd_rn(t4, t4);
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
  float t42 = __int_as_float(__float_as_int(__fadd_rn(t24, 8388735.0f)) << 23);
  float t43 = __fmul_rn(t41, t42);
  float t44 = __uint_as_float(0x3f800000u);
  float t45 = __fadd_rn(t43, t44);
  float t46 = __fdiv_rn(t18, t45);
  float t47 = __fsub_rn(t17, t46);
  float t48 = __uint_as_float(0x3f200000u);
  bool t49 = t4 < t48;
  float t50 = t49 ? t16 : t47;
  float t51 = __uint_as_float((__float_as_uint(t50) & 0x7fffffffu) | (__float_as_uint(t0) & 0x80000000u));
  return t51;
}

ELEMENTWISE(Tanh, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Tanh_f(x0));
})

__device__ __forceinline__ float Tanh_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fsub_rn(t1, t0);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __fadd_rn(t3, t0);
  float t5 = __fmul_rn(t2, t4);
  return t5;
}

ELEMENTWISE(Tanh_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Tanh_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Erf_f(float x) {
  float t0 = x;
  float t1 = fabsf(t0);
  float t2 = __uint_as_float(0x40800000u);
  float t3 = smaller(t1, t2);
  float t4 = __fmul_rn(t3, t3);
  float t5 = __uint_as_float(0xb7910000u);
  float t6 = __uint_as_float(0x39c8e7d9u);
  float t7 = __fmaf_rn(t5, t3, t6);
  float t8 = __uint_as_float(0xbb7e8a1cu);
  float t9 = __uint_as_float(0x3cc6b1a1u);
  float t10 = __fmaf_rn(t8, t3, t9);
  float t11 = __fmaf_rn(t7, t4, t10);
  float t12 = __uint_as_float(0xbddaae5cu);
  float t13 = __fmaf_rn(t11, t3, t12);
  float t14 = __uint_as_float(0xbf228550u);
  float t15 = __fmaf_rn(t13, t3, t14);
  float t16 = __uint_as_float(0xbe03ce86u);
  float t17 = __fmaf_rn(t15, t3, t16);
  float t18 = __uint_as_float(0x3f800000u);
  float t19 = -t3;
  float t20 = __fmaf_rn(t17, t3, t19);
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
  float t43 = __int_as_float(__float_as_int(__fadd_rn(t25, 8388735.0f)) << 23);
  float t44 = __fmul_rn(t42, t43);
  float t45 = __fsub_rn(t18, t44);
  float t46 = __uint_as_float((__float_as_uint(t45) & 0x7fffffffu) | (__float_as_uint(t0) & 0x80000000u));
  float t47 = __uint_as_float(0xba1c7000u);
  float t48 = __uint_as_float(0x3ba38d2cu);
  float t49 = __fmaf_rn(t47, t4, t48);
  float t50 = __uint_as_float(0xbcdb48d9u);
  float t51 = __fmaf_rn(t49, t4, t50);
  float t52 = __uint_as_float(0x3de70e22u);
  float t53 = __fmaf_rn(t51, t4, t52);
  float t54 = __uint_as_float(0xbec09380u);
  float t55 = __fmaf_rn(t53, t4, t54);
  float t56 = __uint_as_float(0x3e0375d4u);
  float t57 = __fmaf_rn(t55, t4, t56);
  float t58 = __uint_as_float(0x3f6d8000u);
  bool t59 = t3 < t58;
  float t60 = __fmaf_rn(t57, t0, t0);
  bool t61 = t0 == t0;
  float t62 = t61 ? t46 : t0;
  float t63 = t59 ? t60 : t62;
  return t63;
}

ELEMENTWISE(Erf, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Erf_f(x0));
})

__device__ __forceinline__ float Erf_df(float x) {
  float t0 = x;
  float t1 = __fmul_rn(t0, t0);
  float t2 = -t1;
  float t3 = fabsf(t2);
  float t4 = __uint_as_float(0x42ae0000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc2d00000u);
  bool t7 = t2 < t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0xc2d00000u);
  bool t10 = t2 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  float t12 = __uint_as_float(0x42b20000u);
  float t13 = t2 < t11 ? t11 : t2 > t12 ? t12 : t2;
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
  float t46 = __uint_as_float(0x3f906ebbu);
  float t47 = __fmul_rn(t45, t46);
  return t47;
}

ELEMENTWISE(Erf_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Erf_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Erfc_f(float x) {
  float t0 = x;
  float t1 = fabsf(t0);
  float t2 = __uint_as_float(0x41280000u);
  float t3 = smaller(t1, t2);
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = __uint_as_float(0x40000000u);
  float t6 = __fadd_rn(t3, t5);
  float t7 = __fdiv_rn(t4, t6);
  float t8 = __fsub_rn(t3, t5);
  float t9 = __fmul_rn(t8, t7);
  float t10 = -t3;
  float t11 = __fadd_rn(t9, t4);
  float t12 = __uint_as_float(0xc0000000u);
  float t13 = __fmaf_rn(t11, t12, t3);
  float t14 = __fmaf_rn(t9, t10, t13);
  float t15 = __fmaf_rn(t7, t14, t9);
  float t16 = __uint_as_float(0xb9d25000u);
  float t17 = __uint_as_float(0xbaa15130u);
  float t18 = __fmaf_rn(t16, t15, t17);
  float t19 = __uint_as_float(0x3aac2b8au);
  float t20 = __fmaf_rn(t18, t15, t19);
  float t21 = __uint_as_float(0x3c0d6e62u);
  float t22 = __fmaf_rn(t20, t15, t21);
  float t23 = __uint_as_float(0xbc040dc1u);
  float t24 = __fmaf_rn(t22, t15, t23);
  float t25 = __uint_as_float(0xbd5e05b5u);
  float t26 = __fmaf_rn(t24, t15, t25);
  float t27 = __uint_as_float(0x3e27fe23u);
  float t28 = __fmaf_rn(t26, t15, t27);
  float t29 = __uint_as_float(0xbe2a0420u);
  float t30 = __fmaf_rn(t28, t15, t29);
  float t31 = __uint_as_float(0xbdbdfb0bu);
  float t32 = __fmaf_rn(t30, t15, t31);
  float t33 = __uint_as_float(0x3e8dd01du);
  float t34 = __fmaf_rn(t32, t15, t33);
  float t35 = __fmaf_rn(t5, t3, t4);
  float t36 = __fdiv_rn(t4, t35);
  float t37 = __fmaf_rn(t34, t36, t36);
  float t38 = -t3;
  float t39 = __uint_as_float(0x3f000000u);
  float t40 = __fmaf_rn(t37, t38, t39);
  float t41 = __fsub_rn(t34, t37);
  float t42 = __fmaf_rn(t40, t5, t41);
  float t43 = __fmaf_rn(t42, t36, t37);
  float t44 = __fmul_rn(t3, t3);
  float t45 = -t3;
  float t46 = __fmaf_rn(t45, t3, t44);
  float t47 = -t44;
  float t48 = __fmaf_rn(t46, t43, t43);
  float t49 = __uint_as_float(0xc3160000u);
  float t50 = __uint_as_float(0x00000000u);
  float t51 = t47 < t49 ? t49 : t47 > t50 ? t50 : t47;
  float t52 = __uint_as_float(0x3fb8aa3bu);
  float t53 = __uint_as_float(0x4b400000u);
  float t54 = __fmaf_rn(t51, t52, t53);
  float t55 = __uint_as_float(0x4b400000u);
  float t56 = __fsub_rn(t54, t55);
  float t57 = __uint_as_float(0xbf317180u);
  float t58 = __fmaf_rn(t56, t57, t51);
  float t59 = __uint_as_float(0xb717f7d1u);
  float t60 = __fmaf_rn(t56, t59, t58);
  float t61 = __uint_as_float(0x3ab52794u);
  float t62 = __uint_as_float(0x3c091cc0u);
  float t63 = __fmaf_rn(t61, t60, t62);
  float t64 = __uint_as_float(0x3d2aac57u);
  float t65 = __fmaf_rn(t63, t60, t64);
  float t66 = __uint_as_float(0x3e2aaa49u);
  float t67 = __fmaf_rn(t65, t60, t66);
  float t68 = __uint_as_float(0x3efffffeu);
  float t69 = __fmaf_rn(t67, t60, t68);
  float t70 = __fmul_rn(t60, t60);
  float t71 = __fmaf_rn(t70, t69, t60);
  float t72 = __uint_as_float(0x3f800000u);
  float t73 = __fadd_rn(t71, t72);
  float t74 = __fmul_rn(t73, t48);
  float t75 = __uint_as_float(0x3f000000u);
  float t76 = __fmul_rn(t56, t75);
  float t77 = rintf(t76);
  float t78 = __int_as_float(__float_as_int(__fadd_rn(t77, 8388735.0f)) << 23);
  float t79 = __fmul_rn(t74, t78);
  float t80 = __fsub_rn(t56, t77);
  float t81 = __int_as_float(__float_as_int(__fadd_rn(t80, 8388735.0f)) << 23);
  float t82 = __fmul_rn(t79, t81);
  float t83 = __uint_as_float(0x4121999au);
  bool t84 = t83 < t3;
  float t85 = __uint_as_float(0x00000000u);
  float t86 = t84 ? t85 : t82;
  float t87 = __uint_as_float(0x00000000u);
  bool t88 = t0 < t87;
  float t89 = __uint_as_float(0x40000000u);
  float t90 = __fsub_rn(t89, t86);
  float t91 = t88 ? t90 : t86;
  bool t92 = t0 == t0;
  float t93 = t92 ? t91 : t0;
  return t93;
}

ELEMENTWISE(Erfc, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Erfc_f(x0));
})

__device__ __forceinline__ float Erfc_df(float x) {
  float t0 = x;
  float t1 = __fmul_rn(t0, t0);
  float t2 = -t1;
  float t3 = fabsf(t2);
  float t4 = __uint_as_float(0x42ae0000u);
  bool t5 = t3 < t4;
  float t6 = __uint_as_float(0xc2d00000u);
  bool t7 = t2 < t6;
  float t8 = __uint_as_float(0x00000000u);
  float t9 = __uint_as_float(0xc2d00000u);
  bool t10 = t2 < t9;
  float t11 = __uint_as_float(0xc2d00000u);
  float t12 = __uint_as_float(0x42b20000u);
  float t13 = t2 < t11 ? t11 : t2 > t12 ? t12 : t2;
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
  float t46 = __uint_as_float(0xbf906ebbu);
  float t47 = __fmul_rn(t45, t46);
  return t47;
}

ELEMENTWISE(Erfc_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Erfc_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Erfinv_f(float x) {
  float t0 = x;
  float t1 = __double2float_rn(wide_erfinv((double)t0));
  return t1;
}

ELEMENTWISE(Erfinv, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Erfinv_f(x0));
})

__device__ __forceinline__ float Erfinv_df(float x) {
  float t0 = x;
  float t1 = __fmul_rn(t0, t0);
  float t2 = fabsf(t1);
  float t3 = __uint_as_float(0x42ae0000u);
  bool t4 = t2 < t3;
  float t5 = __uint_as_float(0xc2d00000u);
  bool t6 = t1 < t5;
  float t7 = __uint_as_float(0x00000000u);
  float t8 = __uint_as_float(0xc2d00000u);
  bool t9 = t1 < t8;
  float t10 = __uint_as_float(0xc2d00000u);
  float t11 = __uint_as_float(0x42b20000u);
  float t12 = t1 < t10 ? t10 : t1 > t11 ? t11 : t1;
  float t13 = t9 ? t7 : t12;
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
  float t34 = __uint_as_float(0x3f800000u);
  float t35 = __fadd_rn(t33, t34);
  float t36 = __uint_as_float(0x3f000000u);
  float t37 = __fmul_rn(t18, t36);
  float t38 = rintf(t37);
  float t39 = __int_as_float(__float_as_int(__fadd_rn(t38, 8388735.0f)) << 23);
  float t40 = __fmul_rn(t35, t39);
  float t41 = __fsub_rn(t18, t38);
  float t42 = __int_as_float(__float_as_int(__fadd_rn(t41, 8388735.0f)) << 23);
  float t43 = __fmul_rn(t40, t42);
  float t44 = t9 ? t7 : t43;
  float t45 = __uint_as_float(0x3f62dfc5u);
  float t46 = __fmul_rn(t44, t45);
  return t46;
}

ELEMENTWISE(Erfinv_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Erfinv_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Sigmoid_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  float t2 = __uint_as_float(0x3f800000u);
  float t3 = fabsf(t0);
  float t4 = -t3;
  float t5 = __uint_as_float(0xc2e00000u);
  float t6 = __uint_as_float(0x00000000u);
  float t7 = t4 < t5 ? t5 : t4 > t6 ? t6 : t4;
  float t8 = __uint_as_float(0x3fb8aa3bu);
  float t9 = __uint_as_float(0x4b400000u);
  float t10 = __fmaf_rn(t7, t8, t9);
  float t11 = __uint_as_float(0x4b400000u);
  float t12 = __fsub_rn(t10, t11);
  float t13 = __uint_as_float(0xbf317180u);
  float t14 = __fmaf_rn(t12, t13, t7);
  float t15 = __uint_as_float(0xb717f7d1u);
  float t16 = __fmaf_rn(t12, t15, t14);
  float t17 = __uint_as_float(0x3ab52794u);
  float t18 = __uint_as_float(0x3c091cc0u);
  float t19 = __fmaf_rn(t17, t16, t18);
  float t20 = __uint_as_float(0x3d2aac57u);
  float t21 = __fmaf_rn(t19, t16, t20);
  float t22 = __uint_as_float(0x3e2aaa49u);
  float t23 = __fmaf_rn(t21, t16, t22);
  float t24 = __uint_as_float(0x3efffffeu);
  float t25 = __fmaf_rn(t23, t16, t24);
  float t26 = __fmul_rn(t16, t16);
  float t27 = __fmaf_rn(t26, t25, t16);
  float t28 = __fadd_rn(t2, t27);
  float t29 = __fsub_rn(t28, t2);
  float t30 = __fsub_rn(t27, t29);
  float t31 = __uint_as_float(0xc2c80000u);
  float t32 = __uint_as_float(0x00000000u);
  float t33 = t12 < t31 ? t31 : t12 > t32 ? t32 : t12;
  float t34 = __int_as_float(__float_as_int(__fadd_rn(t33, 8388735.0f)) << 23);
  float t35 = __fmul_rn(t34, t28);
  float t36 = __fadd_rn(t2, t35);
  float t37 = __fsub_rn(t36, t2);
  float t38 = __fsub_rn(t35, t37);
  float t39 = __fmaf_rn(t34, t30, t38);
  bool t40 = t0 < t1;
  float t41 = t40 ? t28 : t2;
  float t42 = t40 ? t30 : t1;
  float t43 = t40 ? t12 : t1;
  float t44 = __fdiv_rn(t2, t36);
  float t45 = __fmul_rn(t41, t44);
  float t46 = -t45;
  float t47 = __fmaf_rn(t46, t36, t41);
  float t48 = -t45;
  float t49 = __fmaf_rn(t48, t39, t42);
  float t50 = __fadd_rn(t47, t49);
  float t51 = __fmaf_rn(t50, t44, t45);
  float t52 = __uint_as_float(0x3f000000u);
  float t53 = __fmul_rn(t43, t52);
  float t54 = rintf(t53);
  float t55 = __int_as_float(__float_as_int(__fadd_rn(t54, 8388735.0f)) << 23);
  float t56 = __fmul_rn(t51, t55);
  float t57 = __fsub_rn(t43, t54);
  float t58 = __int_as_float(__float_as_int(__fadd_rn(t57, 8388735.0f)) << 23);
  float t59 = __fmul_rn(t56, t58);
  return t59;
}

ELEMENTWISE(Sigmoid, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Sigmoid_f(x0));
})

__device__ __forceinline__ float Sigmoid_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __fsub_rn(t1, t0);
  float t3 = __fmul_rn(t0, t2);
  return t3;
}

ELEMENTWISE(Sigmoid_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Sigmoid_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float LogSigmoid_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  float t2 = smaller(t0, t1);
  float t3 = fabsf(t0);
  float t4 = -t3;
  float t5 = fabsf(t4);
  float t6 = __uint_as_float(0x42ae0000u);
  bool t7 = t5 < t6;
  float t8 = __uint_as_float(0xc2d00000u);
  bool t9 = t4 < t8;
  float t10 = __uint_as_float(0x00000000u);
  float t11 = __uint_as_float(0xc2d00000u);
  bool t12 = t4 < t11;
  float t13 = __uint_as_float(0xc2d00000u);
  float t14 = __uint_as_float(0x42b20000u);
  float t15 = t4 < t13 ? t13 : t4 > t14 ? t14 : t4;
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
  float t102 = __fsub_rn(t2, t101);
  return t102;
}

ELEMENTWISE(LogSigmoid, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, LogSigmoid_f(x0));
})

__device__ __forceinline__ float LogSigmoid_df(float x) {
  float t0 = x;
  float t1 = -t0;
  float t2 = __uint_as_float(0x00000000u);
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = fabsf(t1);
  float t5 = -t4;
  float t6 = __uint_as_float(0xc2e00000u);
  float t7 = __uint_as_float(0x00000000u);
  float t8 = t5 < t6 ? t6 : t5 > t7 ? t7 : t5;
  float t9 = __uint_as_float(0x3fb8aa3bu);
  float t10 = __uint_as_float(0x4b400000u);
  float t11 = __fmaf_rn(t8, t9, t10);
  float t12 = __uint_as_float(0x4b400000u);
  float t13 = __fsub_rn(t11, t12);
  float t14 = __uint_as_float(0xbf317180u);
  float t15 = __fmaf_rn(t13, t14, t8);
  float t16 = __uint_as_float(0xb717f7d1u);
  float t17 = __fmaf_rn(t13, t16, t15);
  float t18 = __uint_as_float(0x3ab52794u);
  float t19 = __uint_as_float(0x3c091cc0u);
  float t20 = __fmaf_rn(t18, t17, t19);
  float t21 = __uint_as_float(0x3d2aac57u);
  float t22 = __fmaf_rn(t20, t17, t21);
  float t23 = __uint_as_float(0x3e2aaa49u);
  float t24 = __fmaf_rn(t22, t17, t23);
  float t25 = __uint_as_float(0x3efffffeu);
  float t26 = __fmaf_rn(t24, t17, t25);
  float t27 = __fmul_rn(t17, t17);
  float t28 = __fmaf_rn(t27, t26, t17);
  float t29 = __fadd_rn(t3, t28);
  float t30 = __fsub_rn(t29, t3);
  float t31 = __fsub_rn(t28, t30);
  float t32 = __uint_as_float(0xc2c80000u);
  float t33 = __uint_as_float(0x00000000u);
  float t34 = t13 < t32 ? t32 : t13 > t33 ? t33 : t13;
  float t35 = __int_as_float(__float_as_int(__fadd_rn(t34, 8388735.0f)) << 23);
  float t36 = __fmul_rn(t35, t29);
  float t37 = __fadd_rn(t3, t36);
  float t38 = __fsub_rn(t37, t3);
  float t39 = __fsub_rn(t36, t38);
  float t40 = __fmaf_rn(t35, t31, t39);
  bool t41 = t1 < t2;
  float t42 = t41 ? t29 : t3;
  float t43 = t41 ? t31 : t2;
  float t44 = t41 ? t13 : t2;
  float t45 = __fdiv_rn(t3, t37);
  float t46 = __fmul_rn(t42, t45);
  float t47 = -t46;
  float t48 = __fmaf_rn(t47, t37, t42);
  float t49 = -t46;
  float t50 = __fmaf_rn(t49, t40, t43);
  float t51 = __fadd_rn(t48, t50);
  float t52 = __fmaf_rn(t51, t45, t46);
  float t53 = __uint_as_float(0x3f000000u);
  float t54 = __fmul_rn(t44, t53);
  float t55 = rintf(t54);
  float t56 = __int_as_float(__float_as_int(__fadd_rn(t55, 8388735.0f)) << 23);
  float t57 = __fmul_rn(t52, t56);
  float t58 = __fsub_rn(t44, t55);
  float t59 = __int_as_float(__float_as_int(__fadd_rn(t58, 8388735.0f)) << 23);
  float t60 = __fmul_rn(t57, t59);
  return t60;
}

ELEMENTWISE(LogSigmoid_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, LogSigmoid_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Relu_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  float t2 = larger(t0, t1);
  return t2;
}

ELEMENTWISE(Relu, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Relu_f(x0));
})

__device__ __forceinline__ float Relu_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t2 ? t3 : t4;
  return t5;
}

ELEMENTWISE(Relu_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Relu_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Relu6_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  float t2 = larger(t0, t1);
  float t3 = __uint_as_float(0x40c00000u);
  float t4 = smaller(t2, t3);
  return t4;
}

ELEMENTWISE(Relu6, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Relu6_f(x0));
})

__device__ __forceinline__ float Relu6_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f800000u);
  float t4 = __uint_as_float(0x00000000u);
  float t5 = t2 ? t3 : t4;
  float t6 = __uint_as_float(0x40c00000u);
  bool t7 = t0 < t6;
  float t8 = __uint_as_float(0x3f800000u);
  float t9 = __uint_as_float(0x00000000u);
  float t10 = t7 ? t8 : t9;
  float t11 = __fmul_rn(t5, t10);
  return t11;
}

ELEMENTWISE(Relu6_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Relu6_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Gelu_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = fabsf(t0);
  float t3 = __uint_as_float(0x00000000u);
  float t4 = __uint_as_float(0x4169999au);
  float t5 = t2 < t3 ? t3 : t2 > t4 ? t4 : t2;
  float t6 = __uint_as_float(0x3f000000u);
  float t7 = __fmul_rn(t5, t5);
  float t8 = -t7;
  float t9 = __fmul_rn(t8, t6);
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
  float t30 = -t5;
  float t31 = __fmaf_rn(t30, t5, t7);
  float t32 = __fmul_rn(t31, t6);
  float t33 = __uint_as_float(0x3e800000u);
  float t34 = __fmul_rn(t5, t33);
  float t35 = __fadd_rn(t34, t1);
  float t36 = __fdiv_rn(t1, t35);
  float t37 = -t34;
  float t38 = __fsub_rn(t1, t36);
  float t39 = __fmaf_rn(t37, t36, t38);
  float t40 = __fadd_rn(t36, t36);
  float t41 = __uint_as_float(0x40000000u);
  float t42 = -t1;
  float t43 = __fmaf_rn(t36, t41, t42);
  float t44 = __fmaf_rn(t40, t39, t43);
  float t45 = __uint_as_float(0x38048676u);
  float t46 = __uint_as_float(0x3850dd40u);
  float t47 = __fmaf_rn(t45, t44, t46);
  float t48 = __uint_as_float(0xb9cf6825u);
  float t49 = __fmaf_rn(t47, t44, t48);
  float t50 = __uint_as_float(0xba670abcu);
  float t51 = __fmaf_rn(t49, t44, t50);
  float t52 = __uint_as_float(0x3af6edc8u);
  float t53 = __fmaf_rn(t51, t44, t52);
  float t54 = __uint_as_float(0x3c776d56u);
  float t55 = __fmaf_rn(t53, t44, t54);
  float t56 = __uint_as_float(0x3d3eff6du);
  float t57 = __fmaf_rn(t55, t44, t56);
  float t58 = __uint_as_float(0x3dc636c2u);
  float t59 = __fmaf_rn(t57, t44, t58);
  float t60 = __uint_as_float(0x3e1b9f1eu);
  float t61 = __fmaf_rn(t59, t44, t60);
  float t62 = __uint_as_float(0x3e415a5eu);
  float t63 = __fmaf_rn(t61, t44, t62);
  float t64 = __fmul_rn(t63, t36);
  float t65 = __fadd_rn(t39, t32);
  float t66 = __uint_as_float(0x3f800000u);
  float t67 = __fadd_rn(t29, t66);
  float t68 = __fmaf_rn(t65, t67, t29);
  float t69 = __fmaf_rn(t68, t64, t64);
  float t70 = __uint_as_float(0x3f800000u);
  float t71 = __uint_as_float(0x3f000000u);
  float t72 = __fmul_rn(t14, t71);
  float t73 = rintf(t72);
  float t74 = __int_as_float(__float_as_int(__fadd_rn(t73, 8388735.0f)) << 23);
  float t75 = __fmul_rn(t69, t74);
  float t76 = __fsub_rn(t14, t73);
  float t77 = __int_as_float(__float_as_int(__fadd_rn(t76, 8388735.0f)) << 23);
  float t78 = __fmul_rn(t75, t77);
  float t79 = __fsub_rn(t70, t78);
  float t80 = __fmul_rn(t0, t79);
  float t81 = __uint_as_float(0x00000000u);
  bool t82 = t0 < t81;
  float t83 = __uint_as_float(0xc169999au);
  float t84 = __uint_as_float(0x7f800000u);
  float t85 = t0 < t83 ? t83 : t0 > t84 ? t84 : t0;
  float t86 = __fmul_rn(t85, t69);
  float t87 = __uint_as_float(0x3f000000u);
  float t88 = __fmul_rn(t14, t87);
  float t89 = rintf(t88);
  float t90 = __int_as_float(__float_as_int(__fadd_rn(t89, 8388735.0f)) << 23);
  float t91 = __fmul_rn(t86, t90);
  float t92 = __fsub_rn(t14, t89);
  float t93 = __int_as_float(__float_as_int(__fadd_rn(t92, 8388735.0f)) << 23);
  float t94 = __fmul_rn(t91, t93);
  float t95 = t82 ? t94 : t80;
  return t95;
}

ELEMENTWISE(Gelu, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Gelu_f(x0));
})

__device__ __forceinline__ float Gelu_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = fabsf(t0);
  float t3 = __uint_as_float(0x00000000u);
  float t4 = __uint_as_float(0x4169999au);
  float t5 = t2 < t3 ? t3 : t2 > t4 ? t4 : t2;
  float t6 = __uint_as_float(0x3f000000u);
  float t7 = __fmul_rn(t5, t5);
  float t8 = -t7;
  float t9 = __fmul_rn(t8, t6);
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
  float t30 = -t5;
  float t31 = __fmaf_rn(t30, t5, t7);
  float t32 = __fmul_rn(t31, t6);
  float t33 = __uint_as_float(0x3e800000u);
  float t34 = __fmul_rn(t5, t33);
  float t35 = __fadd_rn(t34, t1);
  float t36 = __fdiv_rn(t1, t35);
  float t37 = -t34;
  float t38 = __fsub_rn(t1, t36);
  float t39 = __fmaf_rn(t37, t36, t38);
  float t40 = __fadd_rn(t36, t36);
  float t41 = __uint_as_float(0x40000000u);
  float t42 = -t1;
  float t43 = __fmaf_rn(t36, t41, t42);
  float t44 = __fmaf_rn(t40, t39, t43);
  float t45 = __uint_as_float(0x38048676u);
  float t46 = __uint_as_float(0x3850dd40u);
  float t47 = __fmaf_rn(t45, t44, t46);
  float t48 = __uint_as_float(0xb9cf6825u);
  float t49 = __fmaf_rn(t47, t44, t48);
  float t50 = __uint_as_float(0xba670abcu);
  float t51 = __fmaf_rn(t49, t44, t50);
  float t52 = __uint_as_float(0x3af6edc8u);
  float t53 = __fmaf_rn(t51, t44, t52);
  float t54 = __uint_as_float(0x3c776d56u);
  float t55 = __fmaf_rn(t53, t44, t54);
  float t56 = __uint_as_float(0x3d3eff6du);
  float t57 = __fmaf_rn(t55, t44, t56);
  float t58 = __uint_as_float(0x3dc636c2u);
  float t59 = __fmaf_rn(t57, t44, t58);
  float t60 = __uint_as_float(0x3e1b9f1eu);
  float t61 = __fmaf_rn(t59, t44, t60);
  float t62 = __uint_as_float(0x3e415a5eu);
  float t63 = __fmaf_rn(t61, t44, t62);
  float t64 = __fmul_rn(t63, t36);
  float t65 = __fadd_rn(t39, t32);
  float t66 = __uint_as_float(0x3f800000u);
  float t67 = __fadd_rn(t29, t66);
  float t68 = __fmaf_rn(t65, t67, t29);
  float t69 = __fmaf_rn(t68, t64, t64);
  float t70 = __uint_as_float(0x3f000000u);
  float t71 = __fmul_rn(t14, t70);
  float t72 = rintf(t71);
  float t73 = __int_as_float(__float_as_int(__fadd_rn(t72, 8388735.0f)) << 23);
  float t74 = __fmul_rn(t69, t73);
  float t75 = __fsub_rn(t14, t72);
  float t76 = __int_as_float(__float_as_int(__fadd_rn(t75, 8388735.0f)) << 23);
  float t77 = __fmul_rn(t74, t76);
  float t78 = __uint_as_float(0x00000000u);
  bool t79 = t0 < t78;
  float t80 = __uint_as_float(0x3f800000u);
  float t81 = __fsub_rn(t80, t77);
  float t82 = t79 ? t77 : t81;
  float t83 = fabsf(t0);
  float t84 = __uint_as_float(0x00000000u);
  float t85 = __uint_as_float(0x4169999au);
  float t86 = t83 < t84 ? t84 : t83 > t85 ? t85 : t83;
  float t87 = __uint_as_float(0x3f000000u);
  float t88 = __fmul_rn(t86, t86);
  float t89 = -t88;
  float t90 = __fmul_rn(t89, t87);
  float t91 = __uint_as_float(0x3fb8aa3bu);
  float t92 = __uint_as_float(0x4b400000u);
  float t93 = __fmaf_rn(t90, t91, t92);
  float t94 = __uint_as_float(0x4b400000u);
  float t95 = __fsub_rn(t93, t94);
  float t96 = __uint_as_float(0xbf317180u);
  float t97 = __fmaf_rn(t95, t96, t90);
  float t98 = __uint_as_float(0xb717f7d1u);
  float t99 = __fmaf_rn(t95, t98, t97);
  float t100 = __uint_as_float(0x3ab52794u);
  float t101 = __uint_as_float(0x3c091cc0u);
  float t102 = __fmaf_rn(t100, t99, t101);
  float t103 = __uint_as_float(0x3d2aac57u);
  float t104 = __fmaf_rn(t102, t99, t103);
  float t105 = __uint_as_float(0x3e2aaa49u);
  float t106 = __fmaf_rn(t104, t99, t105);
  float t107 = __uint_as_float(0x3efffffeu);
  float t108 = __fmaf_rn(t106, t99, t107);
  float t109 = __fmul_rn(t99, t99);
  float t110 = __fmaf_rn(t109, t108, t99);
  float t111 = -t86;
  float t112 = __fmaf_rn(t111, t86, t88);
  float t113 = __fmul_rn(t112, t87);
  float t114 = __uint_as_float(0x3ecc422au);
  float t115 = __uint_as_float(0x3f800000u);
  float t116 = __fadd_rn(t110, t115);
  float t117 = __fmaf_rn(t113, t116, t110);
  float t118 = __fmaf_rn(t117, t114, t114);
  float t119 = __uint_as_float(0x3f000000u);
  float t120 = __fmul_rn(t95, t119);
  float t121 = rintf(t120);
  float t122 = __int_as_float(__float_as_int(__fadd_rn(t121, 8388735.0f)) << 23);
  float t123 = __fmul_rn(t118, t122);
  float t124 = __fsub_rn(t95, t121);
  float t125 = __int_as_float(__float_as_int(__fadd_rn(t124, 8388735.0f)) << 23);
  float t126 = __fmul_rn(t123, t125);
  float t127 = fabsf(t0);
  float t128 = __uint_as_float(0x42200000u);
  bool t129 = t127 < t128;
  float t130 = __fmul_rn(t0, t126);
  float t131 = __fadd_rn(t130, t82);
  float t132 = t129 ? t131 : t82;
  return t132;
}

ELEMENTWISE(Gelu_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Gelu_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float GeluTanh_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0xc1400000u);
  float t2 = __uint_as_float(0x41400000u);
  float t3 = t0 < t1 ? t1 : t0 > t2 ? t2 : t0;
  float t4 = __uint_as_float(0x3fcc422au);
  float t5 = __uint_as_float(0x3d922279u);
  float t6 = __fmul_rn(t3, t3);
  float t7 = -t6;
  float t8 = __fmaf_rn(t3, t3, t7);
  float t9 = __fmul_rn(t5, t6);
  float t10 = -t9;
  float t11 = __fmaf_rn(t5, t6, t10);
  float t12 = __fadd_rn(t4, t9);
  float t13 = __fsub_rn(t12, t4);
  float t14 = __fsub_rn(t12, t13);
  float t15 = __fsub_rn(t4, t14);
  float t16 = __fsub_rn(t9, t13);
  float t17 = __fadd_rn(t15, t16);
  float t18 = __fadd_rn(t17, t11);
  float t19 = __uint_as_float(0x3124d8b5u);
  float t20 = __fmul_rn(t6, t19);
  float t21 = __fmul_rn(t5, t8);
  float t22 = __fadd_rn(t20, t21);
  float t23 = __uint_as_float(0xb342bc9bu);
  float t24 = __fadd_rn(t22, t23);
  float t25 = __fadd_rn(t18, t24);
  float t26 = __fmul_rn(t3, t12);
  float t27 = -t26;
  float t28 = __fmaf_rn(t3, t12, t27);
  float t29 = __fmul_rn(t3, t25);
  float t30 = __fadd_rn(t28, t29);
  float t31 = __uint_as_float(0x00000000u);
  float t32 = __uint_as_float(0x3f800000u);
  float t33 = fabsf(t26);
  float t34 = -t33;
  float t35 = __uint_as_float(0xc2e00000u);
  float t36 = __uint_as_float(0x00000000u);
  float t37 = t34 < t35 ? t35 : t34 > t36 ? t36 : t34;
  float t38 = __uint_as_float(0x3fb8aa3bu);
  float t39 = __uint_as_float(0x4b400000u);
  float t40 = __fmaf_rn(t37, t38, t39);
  float t41 = __uint_as_float(0x4b400000u);
  float t42 = __fsub_rn(t40, t41);
  float t43 = __uint_as_float(0xbf317180u);
  float t44 = __fmaf_rn(t42, t43, t37);
  float t45 = __uint_as_float(0xb717f7d1u);
  float t46 = __fmaf_rn(t42, t45, t44);
  float t47 = __uint_as_float(0x3ab52794u);
  float t48 = __uint_as_float(0x3c091cc0u);
  float t49 = __fmaf_rn(t47, t46, t48);
  float t50 = __uint_as_float(0x3d2aac57u);
  float t51 = __fmaf_rn(t49, t46, t50);
  float t52 = __uint_as_float(0x3e2aaa49u);
  float t53 = __fmaf_rn(t51, t46, t52);
  float t54 = __uint_as_float(0x3efffffeu);
  float t55 = __fmaf_rn(t53, t46, t54);
  float t56 = __fmul_rn(t46, t46);
  float t57 = __fmaf_rn(t56, t55, t46);
  float t58 = __fadd_rn(t32, t57);
  float t59 = __fsub_rn(t58, t32);
  float t60 = __fsub_rn(t57, t59);
  float t61 = __uint_as_float(0xc2c80000u);
  float t62 = __uint_as_float(0x00000000u);
  float t63 = t42 < t61 ? t61 : t42 > t62 ? t62 : t42;
  float t64 = __int_as_float(__float_as_int(__fadd_rn(t63, 8388735.0f)) << 23);
  float t65 = __fmul_rn(t64, t58);
  float t66 = __fadd_rn(t32, t65);
  float t67 = __fsub_rn(t66, t32);
  float t68 = __fsub_rn(t65, t67);
  float t69 = __fmaf_rn(t64, t60, t68);
  bool t70 = t26 < t31;
  float t71 = t70 ? t58 : t32;
  float t72 = t70 ? t60 : t31;
  float t73 = t70 ? t42 : t31;
  float t74 = __fdiv_rn(t32, t66);
  float t75 = __fmul_rn(t71, t74);
  float t76 = -t75;
  float t77 = __fmaf_rn(t76, t66, t71);
  float t78 = -t75;
  float t79 = __fmaf_rn(t78, t69, t72);
  float t80 = __fadd_rn(t77, t79);
  float t81 = __fmaf_rn(t80, t74, t75);
  float t82 = __uint_as_float(0x3f800000u);
  float t83 = __uint_as_float(0x3f000000u);
  float t84 = __fmul_rn(t73, t83);
  float t85 = rintf(t84);
  float t86 = __int_as_float(__float_as_int(__fadd_rn(t85, 8388735.0f)) << 23);
  float t87 = __fmul_rn(t81, t86);
  float t88 = __fsub_rn(t73, t85);
  float t89 = __int_as_float(__float_as_int(__fadd_rn(t88, 8388735.0f)) << 23);
  float t90 = __fmul_rn(t87, t89);
  float t91 = __fsub_rn(t82, t90);
  float t92 = __fmul_rn(t81, t91);
  float t93 = __fmaf_rn(t92, t30, t81);
  float t94 = __uint_as_float(0xc1400000u);
  float t95 = __uint_as_float(0x7f800000u);
  float t96 = t0 < t94 ? t94 : t0 > t95 ? t95 : t0;
  float t97 = __fmul_rn(t96, t93);
  float t98 = __uint_as_float(0x3f000000u);
  float t99 = __fmul_rn(t73, t98);
  float t100 = rintf(t99);
  float t101 = __int_as_float(__float_as_int(__fadd_rn(t100, 8388735.0f)) << 23);
  float t102 = __fmul_rn(t97, t101);
  float t103 = __fsub_rn(t73, t100);
  float t104 = __int_as_float(__float_as_int(__fadd_rn(t103, 8388735.0f)) << 23);
  float t105 = __fmul_rn(t102, t104);
  return t105;
}

ELEMENTWISE(GeluTanh, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, GeluTanh_f(x0));
})

__device__ __forceinline__ float GeluTanh_df(float x) {
  float t0 = x;
  float t1 = fabsf(t0);
  float t2 = -t1;
  float t3 = __uint_as_float(0xc1400000u);
  float t4 = __uint_as_float(0x41400000u);
  float t5 = t2 < t3 ? t3 : t2 > t4 ? t4 : t2;
  float t6 = __uint_as_float(0x3fcc422au);
  float t7 = __uint_as_float(0x3d922279u);
  float t8 = __fmul_rn(t5, t5);
  float t9 = -t8;
  float t10 = __fmaf_rn(t5, t5, t9);
  float t11 = __fmul_rn(t7, t8);
  float t12 = -t11;
  float t13 = __fmaf_rn(t7, t8, t12);
  float t14 = __fadd_rn(t6, t11);
  float t15 = __fsub_rn(t14, t6);
  float t16 = __fsub_rn(t14, t15);
  float t17 = __fsub_rn(t6, t16);
  float t18 = __fsub_rn(t11, t15);
  float t19 = __fadd_rn(t17, t18);
  float t20 = __fadd_rn(t19, t13);
  float t21 = __uint_as_float(0x3124d8b5u);
  float t22 = __fmul_rn(t8, t21);
  float t23 = __fmul_rn(t7, t10);
  float t24 = __fadd_rn(t22, t23);
  float t25 = __uint_as_float(0xb342bc9bu);
  float t26 = __fadd_rn(t24, t25);
  float t27 = __fadd_rn(t20, t26);
  float t28 = __fmul_rn(t5, t14);
  float t29 = -t28;
  float t30 = __fmaf_rn(t5, t14, t29);
  float t31 = __fmul_rn(t5, t27);
  float t32 = __fadd_rn(t30, t31);
  float t33 = __uint_as_float(0x00000000u);
  float t34 = __uint_as_float(0x3f800000u);
  float t35 = fabsf(t28);
  float t36 = -t35;
  float t37 = __uint_as_float(0xc2e00000u);
  float t38 = __uint_as_float(0x00000000u);
  float t39 = t36 < t37 ? t37 : t36 > t38 ? t38 : t36;
  float t40 = __uint_as_float(0x3fb8aa3bu);
  float t41 = __uint_as_float(0x4b400000u);
  float t42 = __fmaf_rn(t39, t40, t41);
  float t43 = __uint_as_float(0x4b400000u);
  float t44 = __fsub_rn(t42, t43);
  float t45 = __uint_as_float(0xbf317180u);
  float t46 = __fmaf_rn(t44, t45, t39);
  float t47 = __uint_as_float(0xb717f7d1u);
  float t48 = __fmaf_rn(t44, t47, t46);
  float t49 = __uint_as_float(0x3ab52794u);
  float t50 = __uint_as_float(0x3c091cc0u);
  float t51 = __fmaf_rn(t49, t48, t50);
  float t52 = __uint_as_float(0x3d2aac57u);
  float t53 = __fmaf_rn(t51, t48, t52);
  float t54 = __uint_as_float(0x3e2aaa49u);
  float t55 = __fmaf_rn(t53, t48, t54);
  float t56 = __uint_as_float(0x3efffffeu);
  float t57 = __fmaf_rn(t55, t48, t56);
  float t58 = __fmul_rn(t48, t48);
  float t59 = __fmaf_rn(t58, t57, t48);
  float t60 = __fadd_rn(t34, t59);
  float t61 = __fsub_rn(t60, t34);
  float t62 = __fsub_rn(t59, t61);
  float t63 = __uint_as_float(0xc2c80000u);
  float t64 = __uint_as_float(0x00000000u);
  float t65 = t44 < t63 ? t63 : t44 > t64 ? t64 : t44;
  float t66 = __int_as_float(__float_as_int(__fadd_rn(t65, 8388735.0f)) << 23);
  float t67 = __fmul_rn(t66, t60);
  float t68 = __fadd_rn(t34, t67);
  float t69 = __fsub_rn(t68, t34);
  float t70 = __fsub_rn(t67, t69);
  float t71 = __fmaf_rn(t66, t62, t70);
  bool t72 = t28 < t33;
  float t73 = t72 ? t60 : t34;
  float t74 = t72 ? t62 : t33;
  float t75 = t72 ? t44 : t33;
  float t76 = __fdiv_rn(t34, t68);
  float t77 = __fmul_rn(t73, t76);
  float t78 = -t77;
  float t79 = __fmaf_rn(t78, t68, t73);
  float t80 = -t77;
  float t81 = __fmaf_rn(t80, t71, t74);
  float t82 = __fadd_rn(t79, t81);
  float t83 = __fmaf_rn(t82, t76, t77);
  float t84 = __uint_as_float(0x3f800000u);
  float t85 = __uint_as_float(0x3f000000u);
  float t86 = __fmul_rn(t75, t85);
  float t87 = rintf(t86);
  float t88 = __int_as_float(__float_as_int(__fadd_rn(t87, 8388735.0f)) << 23);
  float t89 = __fmul_rn(t83, t88);
  float t90 = __fsub_rn(t75, t87);
  float t91 = __int_as_float(__float_as_int(__fadd_rn(t90, 8388735.0f)) << 23);
  float t92 = __fmul_rn(t89, t91);
  float t93 = __fsub_rn(t84, t92);
  float t94 = __fmul_rn(t83, t93);
  float t95 = __fmaf_rn(t94, t32, t83);
  bool t96 = t2 == t2;
  float t97 = __uint_as_float(0x3f000000u);
  float t98 = __fmul_rn(t75, t97);
  float t99 = rintf(t98);
  float t100 = __int_as_float(__float_as_int(__fadd_rn(t99, 8388735.0f)) << 23);
  float t101 = __fmul_rn(t95, t100);
  float t102 = __fsub_rn(t75, t99);
  float t103 = __int_as_float(__float_as_int(__fadd_rn(t102, 8388735.0f)) << 23);
  float t104 = __fmul_rn(t101, t103);
  float t105 = t96 ? t104 : t2;
  float t106 = __uint_as_float(0x00000000u);
  bool t107 = t0 < t106;
  float t108 = __uint_as_float(0x3f800000u);
  float t109 = __fsub_rn(t108, t105);
  float t110 = t107 ? t105 : t109;
  float t111 = -t0;
  float t112 = __uint_as_float(0x00000000u);
  bool t113 = t111 < t112;
  float t114 = __uint_as_float(0x3f800000u);
  float t115 = __fsub_rn(t114, t105);
  float t116 = t113 ? t105 : t115;
  float t117 = __uint_as_float(0x42200000u);
  float t118 = fabsf(t0);
  bool t119 = t117 <= t118;
  float t120 = __uint_as_float(0x3fcc422au);
  float t121 = __fmul_rn(t0, t0);
  float t122 = __uint_as_float(0x3e095d4fu);
  float t123 = __uint_as_float(0x3f800000u);
  float t124 = __fmaf_rn(t121, t122, t123);
  float t125 = __fmul_rn(t120, t124);
  float t126 = __fmul_rn(t0, t110);
  float t127 = __fmul_rn(t126, t116);
  float t128 = __fmul_rn(t127, t125);
  float t129 = __fadd_rn(t110, t128);
  float t130 = fabsf(t0);
  float t131 = __uint_as_float(0x42200000u);
  bool t132 = t130 < t131;
  bool t133 = t0 == t0;
  float t134 = t133 ? t110 : t0;
  float t135 = t132 ? t129 : t134;
  return t135;
}

ELEMENTWISE(GeluTanh_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, GeluTanh_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Silu_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  float t2 = __uint_as_float(0x3f800000u);
  float t3 = fabsf(t0);
  float t4 = -t3;
  float t5 = __uint_as_float(0xc2e00000u);
  float t6 = __uint_as_float(0x00000000u);
  float t7 = t4 < t5 ? t5 : t4 > t6 ? t6 : t4;
  float t8 = __uint_as_float(0x3fb8aa3bu);
  float t9 = __uint_as_float(0x4b400000u);
  float t10 = __fmaf_rn(t7, t8, t9);
  float t11 = __uint_as_float(0x4b400000u);
  float t12 = __fsub_rn(t10, t11);
  float t13 = __uint_as_float(0xbf317180u);
  float t14 = __fmaf_rn(t12, t13, t7);
  float t15 = __uint_as_float(0xb717f7d1u);
  float t16 = __fmaf_rn(t12, t15, t14);
  float t17 = __uint_as_float(0x3ab52794u);
  float t18 = __uint_as_float(0x3c091cc0u);
  float t19 = __fmaf_rn(t17, t16, t18);
  float t20 = __uint_as_float(0x3d2aac57u);
  float t21 = __fmaf_rn(t19, t16, t20);
  float t22 = __uint_as_float(0x3e2aaa49u);
  float t23 = __fmaf_rn(t21, t16, t22);
  float t24 = __uint_as_float(0x3efffffeu);
  float t25 = __fmaf_rn(t23, t16, t24);
  float t26 = __fmul_rn(t16, t16);
  float t27 = __fmaf_rn(t26, t25, t16);
  float t28 = __fadd_rn(t2, t27);
  float t29 = __fsub_rn(t28, t2);
  float t30 = __fsub_rn(t27, t29);
  float t31 = __uint_as_float(0xc2c80000u);
  float t32 = __uint_as_float(0x00000000u);
  float t33 = t12 < t31 ? t31 : t12 > t32 ? t32 : t12;
  float t34 = __int_as_float(__float_as_int(__fadd_rn(t33, 8388735.0f)) << 23);
  float t35 = __fmul_rn(t34, t28);
  float t36 = __fadd_rn(t2, t35);
  float t37 = __fsub_rn(t36, t2);
  float t38 = __fsub_rn(t35, t37);
  float t39 = __fmaf_rn(t34, t30, t38);
  bool t40 = t0 < t1;
  float t41 = t40 ? t28 : t2;
  float t42 = t40 ? t30 : t1;
  float t43 = t40 ? t12 : t1;
  float t44 = __fdiv_rn(t2, t36);
  float t45 = __fmul_rn(t41, t44);
  float t46 = -t45;
  float t47 = __fmaf_rn(t46, t36, t41);
  float t48 = -t45;
  float t49 = __fmaf_rn(t48, t39, t42);
  float t50 = __fadd_rn(t47, t49);
  float t51 = __fmaf_rn(t50, t44, t45);
  float t52 = __uint_as_float(0xc2e00000u);
  float t53 = __uint_as_float(0x7f800000u);
  float t54 = t0 < t52 ? t52 : t0 > t53 ? t53 : t0;
  float t55 = __fmul_rn(t54, t51);
  float t56 = __uint_as_float(0x3f000000u);
  float t57 = __fmul_rn(t43, t56);
  float t58 = rintf(t57);
  float t59 = __int_as_float(__float_as_int(__fadd_rn(t58, 8388735.0f)) << 23);
  float t60 = __fmul_rn(t55, t59);
  float t61 = __fsub_rn(t43, t58);
  float t62 = __int_as_float(__float_as_int(__fadd_rn(t61, 8388735.0f)) << 23);
  float t63 = __fmul_rn(t60, t62);
  return t63;
}

ELEMENTWISE(Silu, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Silu_f(x0));
})

__device__ __forceinline__ float Silu_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0xc2a00000u);
  bool t2 = t0 < t1;
  float t3 = __uint_as_float(0x42000000u);
  float t4 = __fadd_rn(t0, t3);
  float t5 = t2 ? t4 : t0;
  float t6 = __uint_as_float(0x28642328u);
  float t7 = __uint_as_float(0x3f800000u);
  float t8 = t2 ? t6 : t7;
  float t9 = fabsf(t5);
  float t10 = -t9;
  float t11 = __uint_as_float(0x00000000u);
  float t12 = __uint_as_float(0x3f800000u);
  float t13 = fabsf(t10);
  float t14 = -t13;
  float t15 = __uint_as_float(0xc2e00000u);
  float t16 = __uint_as_float(0x00000000u);
  float t17 = t14 < t15 ? t15 : t14 > t16 ? t16 : t14;
  float t18 = __uint_as_float(0x3fb8aa3bu);
  float t19 = __uint_as_float(0x4b400000u);
  float t20 = __fmaf_rn(t17, t18, t19);
  float t21 = __uint_as_float(0x4b400000u);
  float t22 = __fsub_rn(t20, t21);
  float t23 = __uint_as_float(0xbf317180u);
  float t24 = __fmaf_rn(t22, t23, t17);
  float t25 = __uint_as_float(0xb717f7d1u);
  float t26 = __fmaf_rn(t22, t25, t24);
  float t27 = __uint_as_float(0x3ab52794u);
  float t28 = __uint_as_float(0x3c091cc0u);
  float t29 = __fmaf_rn(t27, t26, t28);
  float t30 = __uint_as_float(0x3d2aac57u);
  float t31 = __fmaf_rn(t29, t26, t30);
  float t32 = __uint_as_float(0x3e2aaa49u);
  float t33 = __fmaf_rn(t31, t26, t32);
  float t34 = __uint_as_float(0x3efffffeu);
  float t35 = __fmaf_rn(t33, t26, t34);
  float t36 = __fmul_rn(t26, t26);
  float t37 = __fmaf_rn(t36, t35, t26);
  float t38 = __fadd_rn(t12, t37);
  float t39 = __fsub_rn(t38, t12);
  float t40 = __fsub_rn(t37, t39);
  float t41 = __uint_as_float(0xc2c80000u);
  float t42 = __uint_as_float(0x00000000u);
  float t43 = t22 < t41 ? t41 : t22 > t42 ? t42 : t22;
  float t44 = __int_as_float(__float_as_int(__fadd_rn(t43, 8388735.0f)) << 23);
  float t45 = __fmul_rn(t44, t38);
  float t46 = __fadd_rn(t12, t45);
  float t47 = __fsub_rn(t46, t12);
  float t48 = __fsub_rn(t45, t47);
  float t49 = __fmaf_rn(t44, t40, t48);
  bool t50 = t10 < t11;
  float t51 = t50 ? t38 : t12;
  float t52 = t50 ? t40 : t11;
  float t53 = t50 ? t22 : t11;
  float t54 = __fdiv_rn(t12, t46);
  float t55 = __fmul_rn(t51, t54);
  float t56 = -t55;
  float t57 = __fmaf_rn(t56, t46, t51);
  float t58 = -t55;
  float t59 = __fmaf_rn(t58, t49, t52);
  float t60 = __fadd_rn(t57, t59);
  float t61 = __fmaf_rn(t60, t54, t55);
  float t62 = __uint_as_float(0x3f000000u);
  float t63 = __fmul_rn(t53, t62);
  float t64 = rintf(t63);
  float t65 = __int_as_float(__float_as_int(__fadd_rn(t64, 8388735.0f)) << 23);
  float t66 = __fmul_rn(t61, t65);
  float t67 = __fsub_rn(t53, t64);
  float t68 = __int_as_float(__float_as_int(__fadd_rn(t67, 8388735.0f)) << 23);
  float t69 = __fmul_rn(t66, t68);
  float t70 = __uint_as_float(0x00000000u);
  bool t71 = t5 < t70;
  float t72 = __uint_as_float(0x3f800000u);
  float t73 = __fsub_rn(t72, t69);
  float t74 = t71 ? t69 : t73;
  float t75 = -t5;
  float t76 = __uint_as_float(0x00000000u);
  bool t77 = t75 < t76;
  float t78 = __uint_as_float(0x3f800000u);
  float t79 = __fsub_rn(t78, t69);
  float t80 = t77 ? t69 : t79;
  float t81 = __fmul_rn(t0, t80);
  float t82 = __uint_as_float(0x3f800000u);
  float t83 = __fadd_rn(t81, t82);
  float t84 = __fmul_rn(t74, t83);
  float t85 = __fmul_rn(t84, t8);
  float t86 = fabsf(t0);
  float t87 = __uint_as_float(0x461c4000u);
  bool t88 = t86 < t87;
  bool t89 = t0 == t0;
  float t90 = t89 ? t74 : t0;
  float t91 = t88 ? t85 : t90;
  return t91;
}

ELEMENTWISE(Silu_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Silu_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Mish_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = __uint_as_float(0x40000000u);
  float t3 = __uint_as_float(0xc2e00000u);
  float t4 = __uint_as_float(0x41a00000u);
  float t5 = t0 < t3 ? t3 : t0 > t4 ? t4 : t0;
  float t6 = __uint_as_float(0x3fb8aa3bu);
  float t7 = __uint_as_float(0x4b400000u);
  float t8 = __fmaf_rn(t5, t6, t7);
  float t9 = __uint_as_float(0x4b400000u);
  float t10 = __fsub_rn(t8, t9);
  float t11 = __uint_as_float(0xbf317180u);
  float t12 = __fmaf_rn(t10, t11, t5);
  float t13 = __uint_as_float(0xb717f7d1u);
  float t14 = __fmaf_rn(t10, t13, t12);
  float t15 = __uint_as_float(0x3ab52794u);
  float t16 = __uint_as_float(0x3c091cc0u);
  float t17 = __fmaf_rn(t15, t14, t16);
  float t18 = __uint_as_float(0x3d2aac57u);
  float t19 = __fmaf_rn(t17, t14, t18);
  float t20 = __uint_as_float(0x3e2aaa49u);
  float t21 = __fmaf_rn(t19, t14, t20);
  float t22 = __uint_as_float(0x3efffffeu);
  float t23 = __fmaf_rn(t21, t14, t22);
  float t24 = __fmul_rn(t14, t14);
  float t25 = __fmaf_rn(t24, t23, t14);
  float t26 = __fadd_rn(t25, t1);
  float t27 = __uint_as_float(0x3f000000u);
  float t28 = __fmul_rn(t10, t27);
  float t29 = rintf(t28);
  float t30 = __int_as_float(__float_as_int(__fadd_rn(t29, 8388735.0f)) << 23);
  float t31 = __fmul_rn(t26, t30);
  float t32 = __fsub_rn(t10, t29);
  float t33 = __int_as_float(__float_as_int(__fadd_rn(t32, 8388735.0f)) << 23);
  float t34 = __fmul_rn(t31, t33);
  float t35 = __fadd_rn(t34, t2);
  float t36 = __fmul_rn(t34, t35);
  float t37 = __uint_as_float(0x41a00000u);
  bool t38 = t0 < t37;
  float t39 = __fadd_rn(t36, t2);
  float t40 = __fdiv_rn(t36, t39);
  float t41 = __fmul_rn(t0, t40);
  float t42 = t38 ? t41 : t0;
  float t43 = __uint_as_float(0xc2a00000u);
  bool t44 = t0 < t43;
  float t45 = __uint_as_float(0xc2e00000u);
  float t46 = __uint_as_float(0x7f800000u);
  float t47 = t0 < t45 ? t45 : t0 > t46 ? t46 : t0;
  float t48 = __fmul_rn(t47, t26);
  float t49 = __uint_as_float(0x3f000000u);
  float t50 = __fmul_rn(t10, t49);
  float t51 = rintf(t50);
  float t52 = __int_as_float(__float_as_int(__fadd_rn(t51, 8388735.0f)) << 23);
  float t53 = __fmul_rn(t48, t52);
  float t54 = __fsub_rn(t10, t51);
  float t55 = __int_as_float(__float_as_int(__fadd_rn(t54, 8388735.0f)) << 23);
  float t56 = __fmul_rn(t53, t55);
  float t57 = t44 ? t56 : t42;
  return t57;
}

ELEMENTWISE(Mish, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Mish_f(x0));
})

__device__ __forceinline__ float Mish_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0xc2a00000u);
  bool t2 = t0 < t1;
  float t3 = __uint_as_float(0x42000000u);
  float t4 = __fadd_rn(t0, t3);
  float t5 = t2 ? t4 : t0;
  float t6 = __uint_as_float(0x28642328u);
  float t7 = __uint_as_float(0x3f800000u);
  float t8 = t2 ? t6 : t7;
  float t9 = __uint_as_float(0x3f800000u);
  float t10 = __uint_as_float(0x40000000u);
  float t11 = __uint_as_float(0x41a00000u);
  float t12 = smaller(t5, t11);
  float t13 = fabsf(t12);
  float t14 = __uint_as_float(0x42ae0000u);
  bool t15 = t13 < t14;
  float t16 = __uint_as_float(0xc2d00000u);
  bool t17 = t12 < t16;
  float t18 = __uint_as_float(0x00000000u);
  float t19 = __uint_as_float(0xc2d00000u);
  bool t20 = t12 < t19;
  float t21 = __uint_as_float(0xc2d00000u);
  float t22 = __uint_as_float(0x42b20000u);
  float t23 = t12 < t21 ? t21 : t12 > t22 ? t22 : t12;
  float t24 = t20 ? t18 : t23;
  float t25 = __uint_as_float(0x3fb8aa3bu);
  float t26 = __uint_as_float(0x4b400000u);
  float t27 = __fmaf_rn(t24, t25, t26);
  float t28 = __uint_as_float(0x4b400000u);
  float t29 = __fsub_rn(t27, t28);
  float t30 = __uint_as_float(0xbf317180u);
  float t31 = __fmaf_rn(t29, t30, t24);
  float t32 = __uint_as_float(0xb717f7d1u);
  float t33 = __fmaf_rn(t29, t32, t31);
  float t34 = __uint_as_float(0x3ab52794u);
  float t35 = __uint_as_float(0x3c091cc0u);
  float t36 = __fmaf_rn(t34, t33, t35);
  float t37 = __uint_as_float(0x3d2aac57u);
  float t38 = __fmaf_rn(t36, t33, t37);
  float t39 = __uint_as_float(0x3e2aaa49u);
  float t40 = __fmaf_rn(t38, t33, t39);
  float t41 = __uint_as_float(0x3efffffeu);
  float t42 = __fmaf_rn(t40, t33, t41);
  float t43 = __fmul_rn(t33, t33);
  float t44 = __fmaf_rn(t43, t42, t33);
  float t45 = __uint_as_float(0x3f800000u);
  float t46 = __fadd_rn(t44, t45);
  float t47 = __uint_as_float(0x3f000000u);
  float t48 = __fmul_rn(t29, t47);
  float t49 = rintf(t48);
  float t50 = __int_as_float(__float_as_int(__fadd_rn(t49, 8388735.0f)) << 23);
  float t51 = __fmul_rn(t46, t50);
  float t52 = __fsub_rn(t29, t49);
  float t53 = __int_as_float(__float_as_int(__fadd_rn(t52, 8388735.0f)) << 23);
  float t54 = __fmul_rn(t51, t53);
  float t55 = t20 ? t18 : t54;
  float t56 = __fadd_rn(t55, t10);
  float t57 = __fmul_rn(t55, t56);
  float t58 = __fadd_rn(t57, t10);
  float t59 = __uint_as_float(0x41a00000u);
  bool t60 = t5 < t59;
  float t61 = __fdiv_rn(t57, t58);
  bool t62 = t5 == t5;
  float t63 = t62 ? t9 : t5;
  float t64 = t60 ? t61 : t63;
  float t65 = __uint_as_float(0x40800000u);
  float t66 = __fmul_rn(t65, t55);
  float t67 = __fadd_rn(t55, t9);
  float t68 = __fmul_rn(t66, t67);
  float t69 = __fdiv_rn(t68, t58);
  float t70 = __fdiv_rn(t69, t58);
  float t71 = __uint_as_float(0x41a00000u);
  bool t72 = t0 < t71;
  float t73 = __uint_as_float(0x00000000u);
  float t74 = t72 ? t70 : t73;
  float t75 = __fmul_rn(t0, t74);
  float t76 = __fadd_rn(t64, t75);
  float t77 = __fmul_rn(t76, t8);
  float t78 = fabsf(t0);
  float t79 = __uint_as_float(0x461c4000u);
  bool t80 = t78 < t79;
  bool t81 = t0 == t0;
  float t82 = t81 ? t64 : t0;
  float t83 = t80 ? t77 : t82;
  return t83;
}

ELEMENTWISE(Mish_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Mish_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Selu_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f867d5fu);
  float t4 = __fmul_rn(t0, t3);
  float t5 = __uint_as_float(0xc1900000u);
  float t6 = __uint_as_float(0x42b20000u);
  float t7 = t0 < t5 ? t5 : t0 > t6 ? t6 : t0;
  float t8 = __uint_as_float(0x3fb8aa3bu);
  float t9 = __fmul_rn(t7, t8);
  float t10 = rintf(t9);
  float t11 = __uint_as_float(0xbf317180u);
  float t12 = __fmaf_rn(t10, t11, t7);
  float t13 = __uint_as_float(0xb717f7d1u);
  float t14 = __fmul_rn(t10, t13);
  float t15 = __fadd_rn(t12, t14);
  float t16 = __fsub_rn(t12, t15);
  float t17 = __fadd_rn(t16, t14);
  float t18 = __uint_as_float(0x395123b8u);
  float t19 = __uint_as_float(0x3ab69e44u);
  float t20 = __fmaf_rn(t18, t15, t19);
  float t21 = __uint_as_float(0x3c088801u);
  float t22 = __fmaf_rn(t20, t15, t21);
  float t23 = __uint_as_float(0x3d2aaa7bu);
  float t24 = __fmaf_rn(t22, t15, t23);
  float t25 = __uint_as_float(0x3e2aaaabu);
  float t26 = __fmaf_rn(t24, t15, t25);
  float t27 = __uint_as_float(0x3f000000u);
  float t28 = __fmaf_rn(t26, t15, t27);
  float t29 = __fmul_rn(t15, t15);
  float t30 = __fmaf_rn(t29, t28, t17);
  float t31 = __uint_as_float(0x3f800000u);
  float t32 = __fsub_rn(t10, t31);
  float t33 = __int_as_float(__float_as_int(__fadd_rn(t32, 8388735.0f)) << 23);
  float t34 = __uint_as_float(0x3f000000u);
  float t35 = __fsub_rn(t33, t34);
  float t36 = __fmul_rn(t33, t15);
  float t37 = __fadd_rn(t35, t36);
  float t38 = __fsub_rn(t37, t35);
  float t39 = __fsub_rn(t36, t38);
  float t40 = __fmaf_rn(t33, t30, t39);
  float t41 = __fadd_rn(t37, t40);
  float t42 = fabsf(t0);
  float t43 = __uint_as_float(0x33000000u);
  bool t44 = t42 < t43;
  float t45 = __fadd_rn(t41, t41);
  float t46 = t44 ? t0 : t45;
  float t47 = __uint_as_float(0x3fe10966u);
  float t48 = __fmul_rn(t46, t47);
  float t49 = t2 ? t4 : t48;
  return t49;
}

ELEMENTWISE(Selu, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Selu_f(x0));
})

__device__ __forceinline__ float Selu_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x00000000u);
  bool t2 = t1 < t0;
  float t3 = __uint_as_float(0x3f867d5fu);
  float t4 = __uint_as_float(0x3fe10966u);
  float t5 = __fadd_rn(t0, t4);
  float t6 = t2 ? t3 : t5;
  return t6;
}

ELEMENTWISE(Selu_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Selu_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Hardsigmoid_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x40400000u);
  float t2 = __fadd_rn(t0, t1);
  float t3 = __uint_as_float(0x00000000u);
  float t4 = larger(t2, t3);
  float t5 = __uint_as_float(0x40c00000u);
  float t6 = smaller(t4, t5);
  float t7 = __uint_as_float(0x40c00000u);
  float t8 = __fdiv_rn(t6, t7);
  return t8;
}

ELEMENTWISE(Hardsigmoid, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Hardsigmoid_f(x0));
})

__device__ __forceinline__ float Hardsigmoid_df(float x) {
  float t0 = x;
  float t1 = fabsf(t0);
  float t2 = __uint_as_float(0x40400000u);
  bool t3 = t1 < t2;
  float t4 = __uint_as_float(0x3f800000u);
  float t5 = __uint_as_float(0x00000000u);
  float t6 = t3 ? t4 : t5;
  float t7 = __uint_as_float(0x40c00000u);
  float t8 = __fdiv_rn(t6, t7);
  return t8;
}

ELEMENTWISE(Hardsigmoid_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Hardsigmoid_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Hardswish_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x40400000u);
  float t2 = __fadd_rn(t0, t1);
  float t3 = __uint_as_float(0x00000000u);
  float t4 = larger(t2, t3);
  float t5 = __uint_as_float(0x40c00000u);
  float t6 = smaller(t4, t5);
  float t7 = __uint_as_float(0x40c00000u);
  float t8 = __fdiv_rn(t6, t7);
  float t9 = __uint_as_float(0xff7fffffu);
  bool t10 = t0 < t9;
  float t11 = __uint_as_float(0x80000000u);
  float t12 = __fmul_rn(t0, t8);
  float t13 = t10 ? t11 : t12;
  return t13;
}

ELEMENTWISE(Hardswish, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Hardswish_f(x0));
})

__device__ __forceinline__ float Hardswish_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x40400000u);
  float t2 = __fdiv_rn(t0, t1);
  float t3 = __uint_as_float(0x3f000000u);
  float t4 = __fadd_rn(t2, t3);
  float t5 = __uint_as_float(0xc0400000u);
  bool t6 = t0 <= t5;
  float t7 = __uint_as_float(0x00000000u);
  float t8 = __uint_as_float(0x40400000u);
  bool t9 = t0 < t8;
  bool t10 = t0 == t0;
  float t11 = __uint_as_float(0x3f800000u);
  float t12 = t10 ? t11 : t0;
  float t13 = t9 ? t4 : t12;
  float t14 = t6 ? t7 : t13;
  return t14;
}

ELEMENTWISE(Hardswish_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Hardswish_df(x1));
  store(p.out, at.out, y);
})

__device__ __forceinline__ float Softsign_f(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = fabsf(t0);
  float t3 = __fadd_rn(t1, t2);
  float t4 = __fdiv_rn(t0, t3);
  return t4;
}

ELEMENTWISE(Softsign, 1, {
  float x0 = load(p.in[0], at.in[0]);
  store(p.out, at.out, Softsign_f(x0));
})

__device__ __forceinline__ float Softsign_df(float x) {
  float t0 = x;
  float t1 = __uint_as_float(0x3f800000u);
  float t2 = fabsf(t0);
  float t3 = __fadd_rn(t1, t2);
  float t4 = __fmul_rn(t3, t3);
  float t5 = __uint_as_float(0x3f800000u);
  float t6 = __fdiv_rn(t5, t4);
  return t6;
}

__device__ __forceinline__ double Softsign_df_wide(double x) {
  double t0 = x;
  double t1 = __longlong_as_double(0x3ff0000000000000ll);
  double t2 = fabs(t0);
  double t3 = __dadd_rn(t1, t2);
  double t4 = __dmul_rn(t3, t3);
  double t5 = __longlong_as_double(0x3ff0000000000000ll);
  double t6 = __ddiv_rn(t5, t4);
  return t6;
}

ELEMENTWISE(Softsign_backward, 2, {
  float x0 = load(p.in[0], at.in[0]);
  float x1 = load(p.in[1], at.in[1]);
  float y = __fmul_rn(x0, Softsign_df(x1));
  if (!is_finite(y) || is_extreme(x1))
    y = __double2float_rn(__dmul_rn((double)x0, Softsign_df_wide((double)x1)));
  store(p.out, at.out, y);
})
