// Matrix products of f16 on tensor cores of capability 7.5, which have no bf16: `panels.cuh`.
//
// Shapes: a [..., M, K], b [..., K, N] of f16, one dimension of each side by side in lines of a multiple of 16 bytes.
// Tiling: as `tensor.cuh`: 64 x 64 results to a block of four warps, 32 places at a time in 2 stages.
// Needs: at most 125 registers to a thread, 16,384 bytes of shared memory to a block.
// Checked against: products of the reference, a loop over places in f64.
#include "panels.cuh"

TENSOR_PRODUCT(product_f16, F16, 64)
