// Matrix products of f16 and bf16 on tensor cores of capability 8.0 and more: `panels.cuh`.
#include "panels.cuh"

TENSOR_PRODUCT(product_f16, F16, 128)
TENSOR_PRODUCT(product_f16, F16, 64)
TENSOR_PRODUCT(product_bf16, BF16, 128)
TENSOR_PRODUCT(product_bf16, BF16, 64)
