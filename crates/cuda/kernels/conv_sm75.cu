// Convolutions of f16 and their gradients on tensor cores of capability 7.5, which have no bf16: `pixels.cuh`.
#include "pixels.cuh"

TENSOR_CONV(f16, F16, 64)
