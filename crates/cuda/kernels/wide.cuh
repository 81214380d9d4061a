// Functions that are computed in f64 and rounded once: those without an f32 formula, as `Wide` of the host side.
#pragma once

#define WIDE_NAN __longlong_as_double(0x7ff8000000000000ll)
#define WIDE_INFINITE __longlong_as_double(0x7ff0000000000000ll)

// The argument of what grows or falls as eˣ. Products of e³⁰⁰ with floats are beyond f32's range and those of e⁻⁷⁰⁰
// below it, but 0 times the one is 0, and an infinity times the other infinite.
__device__ __forceinline__ double within(double x) {
  if (!(fabs(x) < WIDE_INFINITE)) return x;
  return x > 300.0 ? 300.0 : x < -700.0 ? -700.0 : x;
}
__device__ __forceinline__ double wide_exp(double x) { return exp(within(x)); }
__device__ __forceinline__ double wide_expm1(double x) { return expm1(within(x)); }

__device__ __forceinline__ double wide_log2(double x) { return log2(x); }
__device__ __forceinline__ double wide_exp2(double x) { return exp2(x); }
__device__ __forceinline__ double wide_sin(double x) { return sin(x); }
__device__ __forceinline__ double wide_cos(double x) { return cos(x); }
__device__ __forceinline__ double wide_tan(double x) { return tan(x); }
__device__ __forceinline__ double wide_asin(double x) { return asin(x); }
__device__ __forceinline__ double wide_acos(double x) { return acos(x); }
__device__ __forceinline__ double wide_atan(double x) { return atan(x); }
__device__ __forceinline__ double wide_sinh(double x) { return sinh(within(x)); }
__device__ __forceinline__ double wide_cosh(double x) { return cosh(within(x)); }
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

// As `within`, of a base and an exponent that are finite.
__device__ __forceinline__ double wide_pow(double a, double b) {
  double y = pow(a, b);
  if (a == 0.0 || !(fabs(a) < WIDE_INFINITE) || !(fabs(b) < WIDE_INFINITE)) return y;
  if (y == 0.0) return copysign(1e-300, y);
  return fabs(y) == WIDE_INFINITE ? copysign(1e130, y) : y;
}
__device__ __forceinline__ double wide_atan2(double a, double b) { return atan2(a, b); }
__device__ __forceinline__ double wide_fmod(double a, double b) { return fmod(a, b); }

// In f64, as the host's numbers of that type compute them.
__device__ __forceinline__ double wide_sigmoid(double x) {
  double e = wide_exp(-fabs(x));
  return x < 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}
__device__ __forceinline__ double wide_normal_cdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
__device__ __forceinline__ double wide_tanh_cdf(double x) {
  return wide_sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}
__device__ __forceinline__ double wide_max(double a, double b) { return a != a || a > b ? a : b; }
__device__ __forceinline__ double wide_min(double a, double b) { return a != a || a < b ? a : b; }
