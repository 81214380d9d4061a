// Convolutions of f16 and their gradients on tensor cores of capability 7.5, which have no bf16: `pixels.cuh`.
//
// Shapes: images and weights of f16 in groups of a multiple of 8 channels, channels side by side.
// Tiling: as `tensor.cuh`: 64 x 64 results to a block of four warps, 32 places at a time in 2 stages.
// Needs: at most 128 registers to a thread, 16,384 bytes of shared memory to a block.
// Checked against: convolutions of the reference, a loop over taps in f64.
#include "pixels.cuh"

TENSOR_CONV(f16, F16, 64)
