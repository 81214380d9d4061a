// Normalisation by the statistics of rows, whatever shares them: trailing dimensions (layer, RMS), groups of channels,
// a channel over the batch. 16 threads have a row. Sums of f32 in blocks, added in f64, around the mean; a variance
// that f32 cannot hold is computed again in f64.
//
// Shapes: rows of any dimensions and strides; statistics, weights and biases in f32 or the dtype of the rows.
// Tiling: a block of 256 threads has 16 rows, 16 threads each; sums by blocks of 1,024 elements.
// Needs: at most 48 registers to a thread, no shared memory.
// Checked against: norms of the reference, means and variances in f64.
#include "rows.cuh"

// Whether the statistics are the rows' own, on which their gradient depends.
enum { OWN = 0, FIXED = 1 };

struct Norm {
  u64 fault;
  u32 centred;
  u32 statistics;
  double eps;
  Rows r;
  RowOperand x;
  RowOperand g;
  RowOperand y;       // output; the gradient by x
  RowOperand weight;  // no memory: 1
  RowOperand bias;    // no memory: 0; in sums the gradient by the bias
  RowOperand mean;
  RowOperand rstd;
  RowOperand var;     // no memory: not wanted
  RowOperand units;   // a `Set` of each set, in f32
};

__device__ __forceinline__ float load_or(const Rows& r, const RowOperand& o, i64 start, u32 i, float absent) {
  return o.at ? load(r, o, start, i) : absent;
}

// Whether x − mean and its product with 1/deviation need f64.
__device__ __forceinline__ bool is_beyond(double rstd, double limit) {
  return is_finite(rstd) && rstd != 0.0 && (rstd < 1.0 / limit || rstd > limit);
}

// 1/deviation of given variances, in f32: `var` to `rstd`, one element a row.
extern "C" __global__ void __launch_bounds__(256) deviations(const __grid_constant__ Norm p) {
  if (((const Fault*)p.fault)->set) return;
  u32 row = thread_index();
  if (row >= p.r.rows) return;
  double v = (double)load(p.var.at, p.var.dtype, row_place(p.r, p.var, row));
  store(p.rstd.at, p.rstd.dtype, row_place(p.r, p.rstd, row), __double2float_rn(1.0 / sqrt(v + p.eps)));
}

// Mean (0 where it is not subtracted), 1/√(variance + eps), and the variance if it is wanted.
extern "C" __global__ void __launch_bounds__(256) statistics(const __grid_constant__ Norm p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, from, i); };
  float mean = 0.0f;
  if (p.centred) mean = __double2float_rn(sum_of_row(n, lane, x, [&](u32 i) { return (double)x(i); }) / (double)n);
  double squares = sum_of_row(
      n, lane,
      [&](u32 i) {
        float d = __fsub_rn(x(i), mean);
        return __fmul_rn(d, d);
      },
      [&](u32 i) {
        double d = (double)x(i) - (double)mean;
        return __dmul_rn(d, d);
      });
  double variance = squares / (double)n;
  bool trusted = is_trusted((double)mean, variance + p.eps);
  if (__any_sync(WARP, !trusted)) {
    Moments moments = moments_of_row(p.centred, n, lane, x);
    if (!trusted) {
      mean = __double2float_rn(moments.mean);
      variance = moments.variance((double)n);
    }
  }
  if (lane != 0 || !at.stores) return;
  store(p.mean.at, p.mean.dtype, row_place(p.r, p.mean, at.row), mean);
  float rstd = __double2float_rn(1.0 / sqrt(variance + p.eps));
  store(p.rstd.at, p.rstd.dtype, row_place(p.r, p.rstd, at.row), rstd);
  if (p.var.at) store_wide(p.var.at, p.var.dtype, row_place(p.r, p.var, at.row), variance);
}

// The statistics of a set's numbers over a power of two, the unit.
struct Set {
  float mean;
  float rstd;
  float unit;
};

__device__ __forceinline__ Set* set_of(const Norm& p, u32 row) {
  return (Set*)((float*)p.units.at + row_place(p.r, p.units, row));
}

// Over a power of two, which is normal in f64.
__device__ __forceinline__ double over(double x, float unit) {
  i64 exponent = __double_as_longlong((double)unit) >> 52;
  return __dmul_rn(x, __longlong_as_double((2046 - exponent) << 52));
}

// Where f32 does not hold a set's 1/deviation, as of subnormal numbers without eps: its numbers over a unit in which it
// is one, and their statistics. Other sets as they are.
extern "C" __global__ void __launch_bounds__(256) in_units(const __grid_constant__ Norm p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n;
  i64 from = row_place(p.r, p.x, at.row), to = row_place(p.r, p.y, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, from, i); };
  Set set = {load(p.mean.at, p.mean.dtype, row_place(p.r, p.mean, at.row)),
             load(p.rstd.at, p.rstd.dtype, row_place(p.r, p.rstd, at.row)), 1.0f};
  bool lost = set.rstd == INFINITE;
  if (__any_sync(WARP, lost)) {
    Moments moments = moments_of_row(p.centred, n, at.lane, x);
    if (lost) {
      set.unit = __double2float_rn(moments.scale);
      set.mean = __double2float_rn(over(moments.mean, set.unit));
      double variance = moments.squares / (double)n + over(over(p.eps, set.unit), set.unit);
      set.rstd = __double2float_rn(1.0 / sqrt(variance));
    }
  }
  if (!at.stores) return;
  if (at.lane == 0) *set_of(p, at.row) = set;
  for (u32 i = at.lane; i < n; i += LANES) store(p.r, p.y, to, i, __double2float_rn(over((double)x(i), set.unit)));
}

// The gradient by numbers of that by them in their set's unit.
extern "C" __global__ void __launch_bounds__(256) over_units(const __grid_constant__ Norm p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  if (!at.stores) return;
  i64 from = row_place(p.r, p.g, at.row), to = row_place(p.r, p.y, at.row);
  float unit = set_of(p, at.row)->unit;
  for (u32 i = at.lane; i < p.r.n; i += LANES)
    store(p.r, p.y, to, i, __double2float_rn(over((double)load(p.r, p.g, from, i), unit)));
}

// ((x − mean)·rstd)·w + b, the last two in one rounding.
extern "C" __global__ void __launch_bounds__(256) normalise(const __grid_constant__ Norm p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  if (!at.stores) return;
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row), to = row_place(p.r, p.y, at.row);
  i64 of_w = row_place(p.r, p.weight, at.row), of_b = row_place(p.r, p.bias, at.row);
  float mean = load(p.mean.at, p.mean.dtype, row_place(p.r, p.mean, at.row));
  float rstd = load(p.rstd.at, p.rstd.dtype, row_place(p.r, p.rstd, at.row));
  bool wide = is_beyond((double)rstd, 1e30);
  for (u32 i = lane; i < n; i += LANES) {
    float x = load(p.r, p.x, from, i);
    float w = load_or(p.r, p.weight, of_w, i, 1.0f), b = load_or(p.r, p.bias, of_b, i, 0.0f);
    float y = __fmaf_rn(__fmul_rn(__fsub_rn(x, mean), rstd), w, b);
    if (wide)
      y = __double2float_rn(
          __dadd_rn(__dmul_rn(__dmul_rn((double)x - (double)mean, (double)rstd), (double)w), (double)b));
    store(p.r, p.y, to, i, y);
  }
}

// The gradient by x: rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂)) with x̂ = (x − mean)·rstd; g·w·rstd of fixed statistics.
extern "C" __global__ void __launch_bounds__(256) norm_backward(const __grid_constant__ Norm p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row), of_g = row_place(p.r, p.g, at.row), to = row_place(p.r, p.y, at.row);
  i64 of_w = row_place(p.r, p.weight, at.row);
  float mean = load(p.mean.at, p.mean.dtype, row_place(p.r, p.mean, at.row));
  float rstd = load(p.rstd.at, p.rstd.dtype, row_place(p.r, p.rstd, at.row));
  auto x = [&](u32 i) { return load(p.r, p.x, from, i); };
  auto g = [&](u32 i) { return load(p.r, p.g, of_g, i); };
  auto w = [&](u32 i) { return load_or(p.r, p.weight, of_w, i, 1.0f); };
  double r = (double)rstd, m = (double)mean, count = (double)n;
  auto gw = [&](u32 i) { return __dmul_rn((double)g(i), (double)w(i)); };
  if (p.statistics == FIXED) {
    if (at.stores)
      for (u32 i = lane; i < n; i += LANES) store(p.r, p.y, to, i, __double2float_rn(gw(i) * r));
    return;
  }
  bool wide = is_beyond(r, 1e9);
  double first = sum_of_row(n, lane, [&](u32 i) { return __fmul_rn(g(i), w(i)); }, gw);
  double second = sum_of_row(
      n, lane, [&](u32 i) { return __fmul_rn(__fmul_rn(g(i), w(i)), __fsub_rn(x(i), mean)); },
      [&](u32 i) { return __dmul_rn(gw(i), (double)x(i) - m); });
  if (__any_sync(WARP, wide)) {
    double a = wide_sum_of_row(n, lane, gw);
    double b = wide_sum_of_row(n, lane, [&](u32 i) { return __dmul_rn(gw(i), __dmul_rn((double)x(i) - m, r)); });
    if (wide) {
      first = a;
      second = b;
    }
  }
  if (!at.stores) return;
  if (wide) {
    double shift = p.centred ? first / count : 0.0, slope = second / count;
    for (u32 i = lane; i < n; i += LANES) {
      double hat = ((double)x(i) - m) * r;
      store(p.r, p.y, to, i, __double2float_rn(r * (gw(i) - shift - hat * slope)));
    }
    return;
  }
  float slope = __double2float_rn(second / count * r * r * r);
  float shift = p.centred ? __double2float_rn(first / count * r) : 0.0f;
  for (u32 i = lane; i < n; i += LANES) {
    float v = __fmul_rn(__fmul_rn(g(i), w(i)), rstd);
    store(p.r, p.y, to, i, __fsub_rn(__fmaf_rn(-__fsub_rn(x(i), mean), slope, v), shift));
  }
}

// The gradients by weight and bias: rows are what one weight multiplies.
extern "C" __global__ void __launch_bounds__(256) norm_weights(const __grid_constant__ Norm p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row), of_g = row_place(p.r, p.g, at.row);
  i64 of_mean = row_place(p.r, p.mean, at.row), of_rstd = row_place(p.r, p.rstd, at.row);
  auto g = [&](u32 i) { return load(p.r, p.g, of_g, i); };
  auto mean = [&](u32 i) { return load(p.r, p.mean, of_mean, i); };
  auto rstd = [&](u32 i) { return load(p.r, p.rstd, of_rstd, i); };
  auto hat = [&](u32 i) { return ((double)load(p.r, p.x, from, i) - (double)mean(i)) * (double)rstd(i); };
  double weight = sum_of_row(
      n, lane, [&](u32 i) { return __fmul_rn(g(i), __double2float_rn(hat(i))); },
      [&](u32 i) { return __dmul_rn((double)g(i), hat(i)); });
  double bias = sum_of_row(n, lane, g, [&](u32 i) { return (double)g(i); });
  if (lane != 0 || !at.stores) return;
  if (p.weight.at) store_wide(p.weight.at, p.weight.dtype, row_place(p.r, p.weight, at.row), weight);
  if (p.bias.at) store_wide(p.bias.at, p.bias.dtype, row_place(p.r, p.bias, at.row), bias);
}
