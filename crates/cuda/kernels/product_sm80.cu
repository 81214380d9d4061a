// Matrix products of f16 and bf16 on tensor cores of capability 8.0 and more: `panels.cuh`.
//
// Shapes: a [..., M, K], b [..., K, N] of f16 or bf16, one dimension of each side by side in lines of a multiple of
// 16 bytes.
// Tiling: as `tensor.cuh`: 64 x 64 or 128 x 128 results to a block of four warps, 32 places at a time in 3 stages.
// Needs: at most 208 registers to a thread, 49,152 bytes of shared memory to a block.
// Checked against: products of the reference, a loop over places in f64.
#include "panels.cuh"

TENSOR_PRODUCT(product_f16, F16, 128)
TENSOR_PRODUCT(product_f16, F16, 64)
TENSOR_PRODUCT(product_bf16, BF16, 128)
TENSOR_PRODUCT(product_bf16, BF16, 64)
