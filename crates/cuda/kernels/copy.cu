// Copies, casts, fills, comparisons and selection: elements of any dtype but f64.
//
// Shapes: tensors of any shape, strides and dtype, up to 8 dimensions that cannot be merged.
// Tiling: none: a thread has an element, and the next one a grid further on.
// Needs: at most 27 registers to a thread, no shared memory.
// Checked against: copies, comparisons and selection of the reference, and the CPU's bits.
#include "elementwise.cuh"

// Any number in f64, which holds all but integers beyond 2^53.
__device__ __forceinline__ double load_wide(const Operand& from, i64 i) {
  return from.dtype <= BF16 ? (double)load(from, i) : (double)load_integer(from, i);
}

// An integer of the operand's type; conversions from floats saturate and make NaN 0, as the host's do.
__device__ __forceinline__ void store_integer(const Operand& to, i64 i, i64 v) {
  switch (to.dtype) {
    case I64: ((i64*)to.at)[i] = v; break;
    case U32: ((u32*)to.at)[i] = (u32)v; break;
    case I8: ((i8*)to.at)[i] = (i8)v; break;
    default: ((u8*)to.at)[i] = v != 0;
  }
}

// A float as an integer of a type: toward zero, saturated.
__device__ __forceinline__ i64 saturated(double v, u32 dtype) {
  if (v != v) return 0;
  double low = dtype == U32 ? 0.0 : dtype == I8 ? -128.0 : -9223372036854775808.0;
  double high = dtype == U32 ? 4294967295.0 : dtype == I8 ? 127.0 : 9223372036854775807.0;
  if (v <= low) return dtype == U32 ? 0 : dtype == I8 ? -128 : (i64)0x8000000000000000ull;
  if (v >= high) return dtype == U32 ? 4294967295ll : dtype == I8 ? 127 : 0x7fffffffffffffffll;
  return (i64)v;
}

// Bits as they are: equal dtypes.
#define COPY(NAME, TYPE) \
  ELEMENTWISE(NAME, 1, ((TYPE*)p.out.at)[at.out] = ((const TYPE*)p.in[0].at)[at.in[0]];)
COPY(copy_1, u8)
COPY(copy_2, u16)
COPY(copy_4, u32)
COPY(copy_8, u64)

// Between floats, rounded once.
ELEMENTWISE(cast, 1, store(p.out, at.out, load(p.in[0], at.in[0]));)

// From integers and booleans, and to them.
ELEMENTWISE(convert, 1, {
  if (p.in[0].dtype <= BF16) {
    double v = (double)load(p.in[0], at.in[0]);
    if (p.out.dtype == BOOL)
      ((u8*)p.out.at)[at.out] = v != 0.0;
    else
      store_integer(p.out, at.out, saturated(v, p.out.dtype));
  } else {
    i64 v = load_integer(p.in[0], at.in[0]);
    if (p.out.dtype == F32)
      ((float*)p.out.at)[at.out] = __ll2float_rn(v);
    else if (p.out.dtype <= BF16)
      store_wide(p.out.at, p.out.dtype, at.out, (double)v);
    else
      store_integer(p.out, at.out, v);
  }
})

// The value's bits in the output's dtype.
#define FILL(NAME, TYPE) \
  ELEMENTWISE(NAME, 1, ((TYPE*)p.out.at)[at.out] = (TYPE)__double_as_longlong(p.value);)
FILL(fill_1, u8)
FILL(fill_2, u16)
FILL(fill_4, u32)
FILL(fill_8, u64)

// start, start + 1, …: the start is the value's bits. An operand is one number that is added.
ELEMENTWISE(range, 1, {
  u64 base = p.in[0].at ? ((const u64*)p.in[0].at)[at.in[0]] : 0;
  ((u64*)p.out.at)[at.out] = base + (u64)__double_as_longlong(p.value) + i;
})

// Two elements to be compared: integers beyond 2^53 by their order.
__device__ __forceinline__ void load_pair(const Elementwise& p, const Places<2>& at, double& a, double& b) {
  if (p.in[0].dtype > BF16 && p.in[1].dtype > BF16) {
    i64 left = load_integer(p.in[0], at.in[0]), right = load_integer(p.in[1], at.in[1]);
    a = left < right ? -1.0 : left > right ? 1.0 : 0.0;
    b = 0.0;
  } else {
    a = load_wide(p.in[0], at.in[0]);
    b = load_wide(p.in[1], at.in[1]);
  }
}

#define COMPARE(NAME, HOLDS)                   \
  ELEMENTWISE(NAME, 2, {                       \
    double a, b;                               \
    load_pair(p, at, a, b);                    \
    ((u8*)p.out.at)[at.out] = (HOLDS) ? 1 : 0; \
  })
#define LOGIC(NAME, HOLDS)                                                     \
  ELEMENTWISE(NAME, 2, {                                                       \
    double a = load_wide(p.in[0], at.in[0]), b = load_wide(p.in[1], at.in[1]); \
    ((u8*)p.out.at)[at.out] = (HOLDS) ? 1 : 0;                                 \
  })
COMPARE(Eq, a == b)
COMPARE(Ne, a != b)
COMPARE(Lt, a < b)
COMPARE(Le, a <= b)
COMPARE(Gt, a > b)
COMPARE(Ge, a >= b)
LOGIC(And, a != 0.0 && b != 0.0)
LOGIC(Or, a != 0.0 || b != 0.0)
LOGIC(Xor, (a != 0.0) != (b != 0.0))

// condition ? a : b, of floats.
ELEMENTWISE(where, 3, {
  bool condition = p.in[0].dtype <= BF16 ? load(p.in[0], at.in[0]) != 0.0f : load_integer(p.in[0], at.in[0]) != 0;
  store(p.out, at.out, condition ? load(p.in[1], at.in[1]) : load(p.in[2], at.in[2]));
})

// The same of bits as they are: integers and booleans.
#define SELECT(NAME, TYPE)                                                              \
  ELEMENTWISE(NAME, 3, {                                                                \
    bool condition = load_integer(p.in[0], at.in[0]) != 0;                              \
    const TYPE *a = (const TYPE*)p.in[1].at, *b = (const TYPE*)p.in[2].at;              \
    ((TYPE*)p.out.at)[at.out] = condition ? a[at.in[1]] : b[at.in[2]];                  \
  })
SELECT(where_1, u8)
SELECT(where_4, u32)
SELECT(where_8, u64)

// A 16-bit code looked up: functions of 16-bit numbers, correctly rounded, from a table of all of them.
ELEMENTWISE(look_up, 1, ((u16*)p.out.at)[at.out] = ((const u16*)p.in[1].at)[((const u16*)p.in[0].at)[at.in[0]]];)

// The 8-bit integer nearest to a multiple of the scale, which is the second operand: ties to even, at most ±127, NaN 0.
ELEMENTWISE(quantise, 2, {
  float v = rintf(__fdiv_rn(load(p.in[0], at.in[0]), load(p.in[1], at.in[1])));
  v = v < -127.0f ? -127.0f : v > 127.0f ? 127.0f : v;
  ((i8*)p.out.at)[at.out] = v == v ? (i8)__float2int_rn(v) : (i8)0;
})
