// Functions that are computed in f64 and rounded once: those without an f32 formula, as `Wide` of the host side.
#pragma once

#define WIDE_NAN __longlong_as_double(0x7ff8000000000000ll)
#define WIDE_INFINITE __longlong_as_double(0x7ff0000000000000ll)

__device__ __forceinline__ double wide_log2(double x) { return log2(x); }
__device__ __forceinline__ double wide_exp2(double x) { return exp2(x); }
__device__ __forceinline__ double wide_sin(double x) { return sin(x); }
__device__ __forceinline__ double wide_cos(double x) { return cos(x); }
__device__ __forceinline__ double wide_tan(double x) { return tan(x); }
__device__ __forceinline__ double wide_asin(double x) { return asin(x); }
__device__ __forceinline__ double wide_acos(double x) { return acos(x); }
__device__ __forceinline__ double wide_atan(double x) { return atan(x); }
__device__ __forceinline__ double wide_sinh(double x) { return sinh(x); }
__device__ __forceinline__ double wide_cosh(double x) { return cosh(x); }
__device__ __forceinline__ double wide_asinh(double x) { return asinh(x); }
__device__ __forceinline__ double wide_acosh(double x) { return x < 1.0 ? WIDE_NAN : acosh(x); }
__device__ __forceinline__ double wide_atanh(double x) { return atanh(x); }
__device__ __forceinline__ double wide_log10(double x) { return log10(x); }

// Halley's iteration on erf below 1/2 and erfc above, from Winitzki's approximation.
__device__ __forceinline__ double wide_erfinv(double x) {
  double a = fabs(x);
  if (x != x || a > 1.0) return WIDE_NAN;
  if (a == 1.0) return copysign(WIDE_INFINITE, x);
  if (a < 1e-9) return x / 1.12837916709551257390;
  double ln = log1p(-a * a);
  double t = 2.0 / (3.14159265358979323846 * 0.147) + 0.5 * ln;
  double y = sqrt(sqrt(t * t - ln / 0.147) - t);
#pragma unroll 1
  for (int i = 0; i < 3; i++) {
    double error = a < 0.5 ? erf(y) - a : (1.0 - a) - erfc(y);
    double newton = error / (1.12837916709551257390 * exp(-y * y));
    y -= newton / (1.0 + y * newton);
  }
  return copysign(y, x);
}

__device__ __forceinline__ double wide_pow(double a, double b) { return pow(a, b); }
__device__ __forceinline__ double wide_atan2(double a, double b) { return atan2(a, b); }
__device__ __forceinline__ double wide_fmod(double a, double b) { return fmod(a, b); }

// In f64, as the host's numbers of that type compute them.
__device__ __forceinline__ double wide_sigmoid(double x) {
  double e = exp(-fabs(x));
  return x < 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}
__device__ __forceinline__ double wide_normal_cdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
__device__ __forceinline__ double wide_tanh_cdf(double x) {
  return wide_sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}
__device__ __forceinline__ double wide_max(double a, double b) { return a != a || a > b ? a : b; }
__device__ __forceinline__ double wide_min(double a, double b) { return a != a || a < b ? a : b; }
