// Convolutions of f16 and bf16 and their gradients on tensor cores of capability 8.0 and more: `pixels.cuh`.
//
// Shapes: images and weights of f16 or bf16 in groups of a multiple of 8 channels, channels side by side.
// Tiling: as `tensor.cuh`: 64 x 64 or 128 x 128 results to a block of four warps, 32 places at a time in 3 stages.
// Needs: at most 230 registers to a thread, 49,152 bytes of shared memory to a block.
// Checked against: convolutions of the reference, a loop over taps in f64.
#include "pixels.cuh"

TENSOR_CONV(f16, F16, 128)
TENSOR_CONV(f16, F16, 64)
TENSOR_CONV(bf16, BF16, 128)
TENSOR_CONV(bf16, BF16, 64)
