// The sum of 256 numbers by a block of 256 threads, which halve what is left in shared memory; and the same with a
// barrier missing. sum.ptx is what they become.
template <bool WAITS>
__device__ void halve(const float* x, float* y) {
  __shared__ float parts[256];
  parts[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    if (WAITS) __syncthreads();
  }
  if (threadIdx.x == 0) *y = parts[0];
}

extern "C" __global__ void sum(const float* x, float* y) { halve<true>(x, y); }
extern "C" __global__ void hasty_sum(const float* x, float* y) { halve<false>(x, y); }
