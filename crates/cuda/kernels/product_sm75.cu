// Matrix products of f16 on tensor cores of capability 7.5, which have no bf16: `panels.cuh`.
#include "panels.cuh"

TENSOR_PRODUCT(product_f16, F16, 64)
