// Convolutions of f16 and bf16 and their gradients on tensor cores of capability 8.0 and more: `pixels.cuh`.
#include "pixels.cuh"

TENSOR_CONV(f16, F16, 128)
TENSOR_CONV(f16, F16, 64)
TENSOR_CONV(bf16, BF16, 128)
TENSOR_CONV(bf16, BF16, 64)
