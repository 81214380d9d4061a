// Softmax and cross-entropy over rows, 16 threads to a row: shifted by the row's largest element, in f32, the sum in 16
// interleaved parts as on the CPU. Rows are read again for each pass rather than kept.
//
// Shapes: rows of any dimensions and strides; targets i64, one to a row, or probabilities like the rows.
// Tiling: a block of 256 threads has 16 rows, 16 threads each.
// Needs: at most 40 registers to a thread, 1,024 bytes of shared memory to a block.
// Checked against: softmax and cross-entropy of the reference in f64.
#include "functions.cuh"
#include "rows.cuh"

struct Softmax {
  u64 fault;
  u32 log;
  u32 unused;
  Rows r;
  RowOperand x;  // input; in a gradient the result
  RowOperand g;
  RowOperand y;
};

// f32 sum of a whole row in 16 parts, in all its threads.
template <class F>
__device__ __forceinline__ float narrow_sum_of_row(u32 n, u32 lane, F f) {
  float sum = 0.0f;
#pragma unroll 1
  for (u32 i = lane; i < n; i += LANES) sum = __fadd_rn(sum, f(i));
  return first_of_16(sum_of_16(sum));
}

extern "C" __global__ void __launch_bounds__(256) softmax(const __grid_constant__ Softmax p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row), to = row_place(p.r, p.y, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, from, i); };
  float largest = extreme_of_row(true, n, lane, x);
  float sum = narrow_sum_of_row(n, lane, [&](u32 i) { return exp_of(__fsub_rn(x(i), largest)); });
  if (!at.stores) return;
  if (p.log) {
    // x less the largest is exact where it matters; both at once would round the largest into the logarithm.
    float rest = __double2float_rn(log((double)sum));
    for (u32 i = lane; i < n; i += LANES) store(p.r, p.y, to, i, __fsub_rn(__fsub_rn(x(i), largest), rest));
  } else {
    float inverse = __fdiv_rn(1.0f, sum);
    for (u32 i = lane; i < n; i += LANES)
      store(p.r, p.y, to, i, __fmul_rn(exp_of(__fsub_rn(x(i), largest)), inverse));
  }
}

// y·(g − Σ g·y), or of the logarithm g − exp(y)·Σ g.
extern "C" __global__ void __launch_bounds__(256) softmax_backward(const __grid_constant__ Softmax p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row), of_g = row_place(p.r, p.g, at.row), to = row_place(p.r, p.y, at.row);
  auto y = [&](u32 i) { return load(p.r, p.x, from, i); };
  auto g = [&](u32 i) { return load(p.r, p.g, of_g, i); };
  float sum = 0.0f;
#pragma unroll 1
  for (u32 i = lane; i < n; i += LANES) sum = p.log ? __fadd_rn(sum, g(i)) : __fmaf_rn(g(i), y(i), sum);
  sum = first_of_16(sum_of_16(sum));
  if (!at.stores) return;
  for (u32 i = lane; i < n; i += LANES) {
    float v = p.log ? __fsub_rn(g(i), __fmul_rn(exp_of(y(i)), sum)) : __fmul_rn(y(i), __fsub_rn(g(i), sum));
    store(p.r, p.y, to, i, v);
  }
}

struct CrossEntropy {
  u64 fault;
  u64 values;   // double per row
  u64 counted;  // double: targets that count
  i64 ignored;
  double smoothing;
  u32 mean;
  u32 unused;
  Rows r;  // rows are targets, their elements classes
  RowOperand x;
  RowOperand target;
  RowOperand g;
  RowOperand y;
};

__device__ __forceinline__ i64 target_of(const CrossEntropy& p, u32 row) {
  return ((const i64*)p.target.at)[row_place(p.r, p.target, row)];
}

// The loss of each row, in f64.
extern "C" __global__ void __launch_bounds__(256) cross_entropy(const __grid_constant__ CrossEntropy p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row), target = target_of(p, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, from, i); };
  float largest = extreme_of_row(true, n, lane, x);
  float sum = narrow_sum_of_row(n, lane, [&](u32 i) { return exp_of(__fsub_rn(x(i), largest)); });
  // The logarithm and x less the largest are kept apart: their difference does not cancel.
  double rest = (double)__double2float_rn(log((double)sum));
  auto loss = [&](u32 i) { return rest - ((double)x(i) - (double)largest); };
  double all = p.smoothing > 0.0 ? wide_sum_of_row(n, lane, loss) : 0.0;
  if (lane != 0 || !at.stores) return;
  double value = 0.0;
  if (target != p.ignored) {
    value = (1.0 - p.smoothing) * loss((u32)target);
    if (p.smoothing > 0.0) value = value + p.smoothing * all / (double)n;
  }
  ((double*)p.values)[at.row] = value;
}

// How many targets count.
extern "C" __global__ void __launch_bounds__(256) count_targets(const __grid_constant__ CrossEntropy p) {
  if (((const Fault*)p.fault)->set) return;
  __shared__ u32 parts[256];
  u32 count = 0;
  for (u32 row = threadIdx.x; row < p.r.rows; row += 256) count += target_of(p, row) != p.ignored ? 1u : 0u;
  parts[threadIdx.x] = count;
  __syncthreads();
#pragma unroll 1
  for (u32 half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) *(double*)p.counted = (double)parts[0];
}

// The sum of the rows' losses in order, or their mean over those that count; or each.
extern "C" __global__ void __launch_bounds__(256) sum_of_losses(const __grid_constant__ CrossEntropy p) {
  if (((const Fault*)p.fault)->set) return;
  if (thread_index() != 0) return;
  double total = 0.0;
  for (u32 row = 0; row < p.r.rows; row++) total = __dadd_rn(total, ((const double*)p.values)[row]);
  store_wide(p.y.at, p.y.dtype, 0, p.mean ? total / *(const double*)p.counted : total);
}

extern "C" __global__ void __launch_bounds__(256) each_loss(const __grid_constant__ CrossEntropy p) {
  if (((const Fault*)p.fault)->set) return;
  u32 row = thread_index();
  if (row < p.r.rows) store_wide(p.y.at, p.y.dtype, row_place(p.r, p.y, row), ((const double*)p.values)[row]);
}

// g·(softmax − target).
extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward(const __grid_constant__ CrossEntropy p) {
  if (((const Fault*)p.fault)->set) return;
  Lane at = lane_of(p.r);
  u32 n = p.r.n, lane = at.lane;
  i64 from = row_place(p.r, p.x, at.row), to = row_place(p.r, p.y, at.row), target = target_of(p, at.row);
  auto x = [&](u32 i) { return load(p.r, p.x, from, i); };
  float largest = extreme_of_row(true, n, lane, x);
  float sum = narrow_sum_of_row(n, lane, [&](u32 i) { return exp_of(__fsub_rn(x(i), largest)); });
  if (!at.stores) return;
  float inverse = __fdiv_rn(1.0f, sum), g = load(p.g.at, p.g.dtype, row_place(p.r, p.g, at.row));
  float divisor = p.mean ? __double2float_rn(*(const double*)p.counted) : 1.0f;
  float uniform = __double2float_rn(p.smoothing / (double)n), factor = __fdiv_rn(g, divisor);
  float sure = __double2float_rn(1.0 - p.smoothing);
  for (u32 i = lane; i < n; i += LANES) {
    float v = __fsub_rn(__fmul_rn(exp_of(__fsub_rn(x(i), largest)), inverse), uniform);
    if ((i64)i == target) v = __fsub_rn(v, sure);
    store(p.r, p.y, to, i, target == p.ignored ? 0.0f : __fmul_rn(v, factor));
  }
}
