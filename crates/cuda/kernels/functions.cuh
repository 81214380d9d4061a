// Functions that kernels of other families compute with.
// Written by the rows of the operator table (tests/cuda/rows); not to be edited.
#pragma once
#include "common.cuh"
#include "wide.cuh"

__device__ __forceinline__ float exp_of(float x) {
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
