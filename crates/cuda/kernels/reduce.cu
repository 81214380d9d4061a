// Reductions and their gradients, running sums and products, in the order of the CPU.
//
// A row is what is reduced to one element. 16 threads add it up; rows longer than a block are cut into blocks, whose
// sums a second kernel adds. Where reduced dimensions lie outside kept ones in memory, a thread has a column instead.
//
// Shapes: rows of any dimensions and strides; one result to a row, or of scans one to an element.
// Tiling: a block of 256 threads has 16 rows, 16 threads each, or 256 columns; long rows in blocks of 1,024 elements.
// Needs: at most 50 registers to a thread, no shared memory.
// Checked against: reductions and scans of the reference in f64, and the CPU's bits of sums and means.
#include "functions.cuh"
#include "rows.cuh"

enum { SUM, MEAN, MAX, MIN, VAR, STD, PROD, LOG_SUM_EXP, NORM };

struct Reduce {
  u64 fault;
  u32 kind;
  u32 unused;
  double parameter;  // correction of variances, exponent of norms
  u64 scratch;       // of gradients of products: a double for each element
  Rows r;
  RowOperand x;
  RowOperand y;  // output, or in a gradient the reduction's result
  RowOperand g;
  RowOperand dx;
};

// log(sum(exp(x))); the largest where that is infinite.
template <class F>
__device__ __forceinline__ double log_sum_exp(u32 n, u32 lane, F x) {
  float largest = extreme_of_row(true, n, lane, x);
  double sum = sum_of_row(
      n, lane, [&](u32 i) { return exp_of(__fsub_rn(x(i), largest)); },
      [&](u32 i) { return exp((double)x(i) - (double)largest); });
  return is_finite(largest) ? (double)largest + log(sum) : (double)largest;
}

template <class F>
__device__ __forceinline__ double norm_of_row(double p, u32 n, u32 lane, F x) {
  if (p == 0.0) return wide_sum_of_row(n, lane, [&](u32 i) { return x(i) != 0.0f ? 1.0 : 0.0; });
  if (p == -WIDE_INFINITE)
    return (double)extreme_of_row(false, n, lane, [&](u32 i) { return fabsf(x(i)); });
  if (p == 1.0) return wide_sum_of_row(n, lane, [&](u32 i) { return fabs((double)x(i)); });
  float largest = extreme_of_row(true, n, lane, [&](u32 i) { return fabsf(x(i)); });
  // Of no numbers the largest magnitude is 0.
  if (n == 0) largest = 0.0f;
  double scale = scale_of((double)largest);
  double sum = wide_sum_of_row(n, lane, [&](u32 i) {
    double v = fabs((double)x(i)) / scale;
    return p == 2.0 ? __dmul_rn(v, v) : p == WIDE_INFINITE ? 0.0 : pow(v, p);
  });
  if (p == WIDE_INFINITE || largest == 0.0f || !is_finite(largest)) return (double)largest;
  return scale * (p == 2.0 ? sqrt(sum) : pow(sum, 1.0 / p));
}

// Any reduction of rows, a row at a time.
extern "C" __global__ void __launch_bounds__(256) reduce_rows(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 start = row_place(p.r, p.x, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, start, i); };
  double y;
  switch (p.kind) {
    case SUM:
    case MEAN:
      y = sum_of_row(n, lane, x, [&](u32 i) { return (double)x(i); });
      if (p.kind == MEAN) y = y / (double)n;
      break;
    case MAX:
    case MIN: y = (double)extreme_of_row(p.kind == MAX, n, lane, x); break;
    case VAR:
    case STD: {
      double divisor = fmax((double)n - p.parameter, 0.0);
      double mean = sum_of_row(n, lane, x, [&](u32 i) { return (double)x(i); }) / (double)n;
      float shift = __double2float_rn(mean);
      double sum = sum_of_row(
          n, lane,
          [&](u32 i) {
            float d = __fsub_rn(x(i), shift);
            return __fmul_rn(d, d);
          },
          [&](u32 i) {
            double d = (double)x(i) - (double)shift;
            return __dmul_rn(d, d);
          });
      double variance = sum / divisor;
      y = p.kind == STD ? sqrt(variance) : variance;
      bool trusted = is_trusted(mean, variance);
      if (__any_sync(WARP, !trusted)) {
        Moments moments = moments_of_row(true, n, lane, x);
        if (!trusted) y = p.kind == STD ? moments.deviation(divisor) : moments.variance(divisor);
      }
      break;
    }
    case PROD: {
      double product = 1.0;
      for (u32 i = lane; i < n; i += LANES) product = __dmul_rn(product, (double)x(i));
#pragma unroll
      for (int step = 8; step > 0; step /= 2) product = __dmul_rn(product, __shfl_down_sync(WARP, product, step, LANES));
      y = product;
      break;
    }
    case LOG_SUM_EXP: y = log_sum_exp(n, lane, x); break;
    default: y = norm_of_row(p.parameter, n, lane, x);
  }
  if (lane == 0 && at.stores) store_wide(p.y.at, p.y.dtype, row_place(p.r, p.y, at.row), y);
}

// Sums of blocks of long rows, [row][block] doubles at `dx`: 16 threads to a block.
extern "C" __global__ void __launch_bounds__(256) block_sums(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  u32 blocks = (p.r.n + BLOCK - 1) / BLOCK, lane = threadIdx.x % LANES;
  u64 number = (u64)blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES, last = (u64)p.r.rows * blocks - 1;
  bool stores = number <= last;
  number = min(number, last);
  u32 row = (u32)(number / blocks), begin = (u32)(number % blocks) * BLOCK;
  i64 start = row_place(p.r, p.x, row);
  auto x = [&](u32 i) { return load(p.r, p.x, start, begin + i); };
  double sum = sum_of_row(min(p.r.n - begin, BLOCK), lane, x, [&](u32 i) { return (double)x(i); });
  if (lane == 0 && stores) ((double*)p.dx.at)[number] = sum;
}

// The sums of rows from those of their blocks; divided by the parameter.
extern "C" __global__ void __launch_bounds__(256) row_totals(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  u32 row = thread_index(), blocks = (p.r.n + BLOCK - 1) / BLOCK;
  if (row >= p.r.rows) return;
  double sum = sum_of_tasks((const double*)p.dx.at + (u64)row * blocks, blocks);
  store_wide(p.y.at, p.y.dtype, row_place(p.r, p.y, row), sum / p.parameter);
}

struct Columns {
  u64 fault;
  u64 parts;     // f32 [task][column]
  u32 columns;   // of all outer indices
  u32 rows;
  u32 per_task;
  u32 unused;
  double divisor;
  Rows r;        // columns are its rows
  RowOperand x;
  RowOperand y;
};

// f32 sums of some rows each, a thread to a column.
extern "C" __global__ void __launch_bounds__(256) column_parts(const __grid_constant__ Columns p) {
  if (((const Fault*)p.fault)->set) return;
  u32 column = thread_index(), task = blockIdx.y;
  if (column >= p.columns) return;
  i64 start = row_place(p.r, p.x, column);
  float sum = 0.0f;
  u32 end = min(p.rows, (task + 1) * p.per_task);
#pragma unroll 1
  for (u32 i = task * p.per_task; i < end; i++) sum = __fadd_rn(sum, load(p.r, p.x, start, i));
  ((float*)p.parts)[(u64)task * p.columns + column] = sum;
}

// Their sums in f64, in order; a column that left f32's range once more in f64.
extern "C" __global__ void __launch_bounds__(256) column_totals(const __grid_constant__ Columns p) {
  if (((const Fault*)p.fault)->set) return;
  u32 column = thread_index();
  if (column >= p.columns) return;
  double sum = 0.0;
#pragma unroll 1
  for (u32 task = 0; task * p.per_task < p.rows; task++)
    sum = __dadd_rn(sum, (double)((const float*)p.parts)[(u64)task * p.columns + column]);
  if (!is_finite(sum)) {
    sum = 0.0;
    i64 start = row_place(p.r, p.x, column);
#pragma unroll 1
    for (u32 i = 0; i < p.rows; i++) sum = __dadd_rn(sum, (double)load(p.r, p.x, start, i));
  }
  store_wide(p.y.at, p.y.dtype, row_place(p.r, p.y, column), sum / p.divisor);
}

// The position of the first largest element; NaN counts as largest.
extern "C" __global__ void __launch_bounds__(256) argmax(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  i64 start = row_place(p.r, p.x, at.row);
  float best = -INFINITE;
  u32 where = 0xffffffffu;
  auto consider = [&](float v, u32 i) {
    bool nan = v != v, known = best != best;
    bool better = where == 0xffffffffu ? i != 0xffffffffu : (nan && !known) || (!known && v > best);
    bool equal = (nan && known) || v == best;
    if (i != 0xffffffffu && (better || (equal && i < where))) {
      best = v;
      where = i;
    }
  };
  for (u32 i = at.lane; i < p.r.n; i += LANES) consider(load(p.r, p.x, start, i), i);
#pragma unroll
  for (int step = 8; step > 0; step /= 2) {
    float v = __shfl_down_sync(WARP, best, step, LANES);
    u32 i = __shfl_down_sync(WARP, where, step, LANES);
    consider(v, i);
  }
  if (at.lane == 0 && at.stores) ((i64*)p.y.at)[row_place(p.r, p.y, at.row)] = (i64)where;
}

// The same of integers and booleans.
extern "C" __global__ void __launch_bounds__(256) argmax_of_integers(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  i64 start = row_place(p.r, p.x, at.row), best = 0;
  u32 where = 0xffffffffu;
  auto consider = [&](i64 v, u32 i) {
    if (i != 0xffffffffu && (where == 0xffffffffu || v > best || (v == best && i < where))) {
      best = v;
      where = i;
    }
  };
  Operand x;
  x.at = p.x.at;
  x.dtype = p.x.dtype;
  for (u32 i = at.lane; i < p.r.n; i += LANES) consider(load_integer(x, start + place_in_row(p.r, p.x, i)), i);
#pragma unroll
  for (int step = 8; step > 0; step /= 2) {
    i64 v = __shfl_down_sync(WARP, best, step, LANES);
    u32 i = __shfl_down_sync(WARP, where, step, LANES);
    consider(v, i);
  }
  if (at.lane == 0 && at.stores) ((i64*)p.y.at)[row_place(p.r, p.y, at.row)] = (i64)where;
}

template <class F>
__device__ __forceinline__ void write_row(const Reduce& p, const Lane& at, i64 to, F f) {
  if (at.stores)
    for (u32 i = at.lane; i < p.r.n; i += LANES) store(p.r, p.dx, to, i, f(i));
}

// Gradients of rows: g and the result have one element a row.
extern "C" __global__ void __launch_bounds__(256) reduce_backward(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 start = row_place(p.r, p.x, at.row), to = row_place(p.r, p.dx, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, start, i); };
  float g = load(p.g.at, p.g.dtype, row_place(p.r, p.g, at.row));
  float y = load(p.y.at, p.y.dtype, row_place(p.r, p.y, at.row));
  double wide_g = (double)g;
  switch (p.kind) {
    case SUM: write_row(p, at, to, [&](u32) { return g; }); break;
    case MEAN: write_row(p, at, to, [&](u32) { return __fdiv_rn(g, __uint2float_rn(n)); }); break;
    case MAX:
    case MIN: {
      auto hit = [&](u32 i) { return x(i) == y || (x(i) != x(i) && y != y); };
      u32 hits = 0;
      for (u32 i = lane; i < n; i += LANES) hits += hit(i) ? 1u : 0u;
      hits = first_of_16(count_of_16(hits));
      float share = __fdiv_rn(g, __uint2float_rn(max(hits, 1u)));
      write_row(p, at, to, [&](u32 i) { return hit(i) ? share : 0.0f; });
      break;
    }
    case VAR:
    case STD: {
      Moments moments = moments_of_row(true, n, lane, x);
      double divisor = (double)n - p.parameter, factor = 2.0 * wide_g / divisor;
      if (p.kind == STD) {
        double deviation = moments.deviation(divisor);
        factor = deviation == 0.0 ? 0.0 : wide_g / divisor / deviation;
      }
      write_row(p, at, to, [&](u32 i) { return __double2float_rn(((double)x(i) - moments.mean) * factor); });
      break;
    }
    default: break;
  }
}

// As above, of products: those of the others, without division. A thread has a row.
extern "C" __global__ void __launch_bounds__(256) product_backward(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  u32 row = thread_index(), n = p.r.n;
  if (row >= p.r.rows) return;
  i64 start = row_place(p.r, p.x, row), to = row_place(p.r, p.dx, row);
  double* after = (double*)p.scratch + (u64)row * n;
  double tail = 1.0;
#pragma unroll 1
  for (u32 i = n; i > 0; i--) {
    after[i - 1] = tail;
    tail = __dmul_rn(tail, (double)load(p.r, p.x, start, i - 1));
  }
  double before = (double)load(p.g.at, p.g.dtype, row_place(p.r, p.g, row));
#pragma unroll 1
  for (u32 i = 0; i < n; i++) {
    store(p.r, p.dx, to, i, __double2float_rn(__dmul_rn(before, after[i])));
    before = __dmul_rn(before, (double)load(p.r, p.x, start, i));
  }
}

// As above, of log-sum-exp and of norms.
extern "C" __global__ void __launch_bounds__(256) reduce_backward_wide(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 start = row_place(p.r, p.x, at.row), to = row_place(p.r, p.dx, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, start, i); };
  float g = load(p.g.at, p.g.dtype, row_place(p.r, p.g, at.row));
  double wide_g = (double)g;
  switch (p.kind) {
    case LOG_SUM_EXP: {
      double sum = log_sum_exp(n, lane, x);
      write_row(p, at, to, [&](u32 i) {
        float away = __double2float_rn((double)x(i) - sum);
        return __fmul_rn(g, __double2float_rn(exp((double)away)));
      });
      break;
    }
    default: {
      double power = p.parameter, norm = norm_of_row(power, n, lane, x);
      bool largest = power == WIDE_INFINITE || power == -WIDE_INFINITE;
      auto hit = [&](u32 i) {
        double v = fabs((double)x(i));
        return v == norm || (v != v && norm != norm);
      };
      u32 hits = 0;
      for (u32 i = lane; i < n; i += LANES) hits += hit(i) ? 1u : 0u;
      hits = first_of_16(count_of_16(hits));
      write_row(p, at, to, [&](u32 i) {
        double v = (double)x(i), sign = v == 0.0 ? 0.0 : v != v ? v : copysign(1.0, v);
        // Elements that the largest magnitude is not have no part in it; a count has no slope.
        if (power == 0.0 || (largest && !hit(i))) return 0.0f;
        double slope;
        if (norm == 0.0) slope = 0.0;
        else if (largest) slope = sign / (double)hits;
        else if (power == 1.0) slope = sign;
        else if (power == 2.0) slope = v / norm;
        else if (v == 0.0 && norm == norm) slope = 0.0;
        else slope = sign * pow(fabs(v) / norm, power - 1.0);
        return __double2float_rn(wide_g * slope);
      });
    }
  }
}

// Running sums (kind SUM) or products, in f64, in order; a thread to a row. `parameter` is 1 from the end.
extern "C" __global__ void __launch_bounds__(256) scan(const __grid_constant__ Reduce p) {
  if (((const Fault*)p.fault)->set) return;
  u32 row = thread_index();
  if (row >= p.r.rows) return;
  i64 from = row_place(p.r, p.x, row), to = row_place(p.r, p.dx, row);
  double total = p.kind == SUM ? 0.0 : 1.0;
  for (u32 k = 0; k < p.r.n; k++) {
    u32 i = p.parameter == 0.0 ? k : p.r.n - 1 - k;
    double v = (double)load(p.r, p.x, from, i);
    total = p.kind == SUM ? __dadd_rn(total, v) : __dmul_rn(total, v);
    store(p.r, p.dx, to, i, __double2float_rn(total));
  }
}
