// Attention of f16 and bf16 on tensor cores of capability 8.0 and more: `attention_tiles.cuh`.
//
// Shapes: q [..., T, D], k [..., S, D], v [..., S, E] of f16 or bf16, features side by side in lines of a multiple of
// 16 bytes; D and E multiples of 8 up to 256; heads of q a multiple of those of k and v.
// Tiling: 64 queries to a block of four warps; 64 keys at a time of up to 128 features, 16 of more.
// Needs: at most 186 registers to a thread, 49,152 bytes of shared memory to a block.
// Checked against: attention of the reference, a matrix of scores in f64.
#include "attention_tiles.cuh"

ATTENTION(true, 64, 64)
ATTENTION(true, 128, 64)
ATTENTION(true, 256, 16)
