//! The inner loops of the register tiles that f32 products spend their time in. Written as instructions: compilers keep a part of so many
//! accumulators in memory, and with them twelve addresses, which takes up to twice as long.

use core::arch::asm;
use core::arch::x86_64::{__m256, __m512};

/// One row of a tile: a number of A times two vectors of B, the third and the first two of the registers, added to two accumulators.
macro_rules! row {
    ($address:literal, $left:literal, $right:literal, $width:literal, [$b0:literal, $b1:literal, $x:literal]) => {
        concat!(
            concat!("vbroadcastss ", $x, ", [", $address, "]\n"),
            concat!("vfmadd231ps {", $left, ":", $width, "}, ", $x, ", ", $b0, "\n"),
            concat!("vfmadd231ps {", $right, ":", $width, "}, ", $x, ", ", $b1, "\n"),
        )
    };
}

/// [`super::Lanes::accumulate`] for 6 rows × 16 columns: 12 accumulators, 2 vectors of B and a number of A in 16 registers.
///
/// # Safety
///
/// As there; the processor must have AVX2 and FMA. `len` is not 0.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_6x16(
    acc: &mut [[__m256; 2]; 6],
    rows: &[*const f32; 6],
    [a, a_step]: [usize; 2],
    b: *const f32,
    b_step: usize,
    len: usize,
) {
    let [[c0, d0], [c1, d1], [c2, d2], [c3, d3], [c4, d4], [c5, d5]] = acc;
    // SAFETY: reads the places the caller named, writes registers alone.
    unsafe {
        asm!(
            "2:",
            "vmovups ymm13, [{b}]",
            "vmovups ymm14, [{b} + 32]",
            row!("{r0} + 4*{at}", "c0", "d0", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("{r1} + 4*{at}", "c1", "d1", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("{r2} + 4*{at}", "c2", "d2", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("{r3} + 4*{at}", "c3", "d3", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("{r4} + 4*{at}", "c4", "d4", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("{r5} + 4*{at}", "c5", "d5", "y", ["ymm13", "ymm14", "ymm15"]),
            "add {at}, {a_step}",
            "lea {b}, [{b} + 4*{b_step}]",
            "dec {len}",
            "jne 2b",
            r0 = in(reg) rows[0], r1 = in(reg) rows[1], r2 = in(reg) rows[2],
            r3 = in(reg) rows[3], r4 = in(reg) rows[4], r5 = in(reg) rows[5],
            at = inout(reg) a => _, a_step = in(reg) a_step,
            b = inout(reg) b => _, b_step = in(reg) b_step, len = inout(reg) len => _,
            c0 = inout(ymm_reg) *c0, d0 = inout(ymm_reg) *d0, c1 = inout(ymm_reg) *c1, d1 = inout(ymm_reg) *d1,
            c2 = inout(ymm_reg) *c2, d2 = inout(ymm_reg) *d2, c3 = inout(ymm_reg) *c3, d3 = inout(ymm_reg) *d3,
            c4 = inout(ymm_reg) *c4, d4 = inout(ymm_reg) *d4, c5 = inout(ymm_reg) *c5, d5 = inout(ymm_reg) *d5,
            out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack, readonly),
        );
    }
}

/// [`super::Lanes::accumulate`] for 12 rows × 32 columns. The rows are three times four at equal distances, so that their addresses fit the
/// registers: `rows` are the first of each four, `apart` is the distance in bytes. A panel of B and its rows of A do not fit the first-level
/// cache together, so both are asked for eight steps ahead: two lines of B, and the lines of the first and the last number of a column of A.
///
/// # Safety
///
/// As there; the processor must have AVX-512F. `len` is not 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_12x32(
    acc: &mut [[__m512; 2]; 12],
    rows: [*const f32; 3],
    apart: usize,
    a_step: usize,
    b: *const f32,
    b_step: usize,
    len: usize,
) {
    let [[c0, d0], [c1, d1], [c2, d2], [c3, d3], [c4, d4], [c5, d5], [c6, d6], [c7, d7], [c8, d8], [c9, d9], [ca, da], [cb, db]] =
        acc;
    // SAFETY: reads the places the caller named, writes registers alone.
    unsafe {
        asm!(
            "2:",
            "vmovups zmm29, [{b}]",
            "vmovups zmm30, [{b} + 64]",
            "prefetcht0 [{b} + 1024]",
            "prefetcht0 [{b} + 1088]",
            "prefetcht0 [{r0} + 8*{a_step}]",
            "prefetcht0 [{r8} + 8*{a_step} + 12]",
            row!("{r0}", "c0", "d0", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r0} + {apart}", "c1", "d1", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r0} + 2*{apart}", "c2", "d2", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r0} + {thrice}", "c3", "d3", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r4}", "c4", "d4", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r4} + {apart}", "c5", "d5", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r4} + 2*{apart}", "c6", "d6", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r4} + {thrice}", "c7", "d7", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r8}", "c8", "d8", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r8} + {apart}", "c9", "d9", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r8} + 2*{apart}", "ca", "da", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("{r8} + {thrice}", "cb", "db", "z", ["zmm29", "zmm30", "zmm31"]),
            "add {r0}, {a_step}",
            "add {r4}, {a_step}",
            "add {r8}, {a_step}",
            "add {b}, {b_step}",
            "dec {len}",
            "jne 2b",
            r0 = inout(reg) rows[0] => _, r4 = inout(reg) rows[1] => _, r8 = inout(reg) rows[2] => _,
            apart = in(reg) apart, thrice = in(reg) apart.wrapping_mul(3), a_step = in(reg) 4 * a_step,
            b = inout(reg) b => _, b_step = in(reg) 4 * b_step, len = inout(reg) len => _,
            c0 = inout(zmm_reg) *c0, d0 = inout(zmm_reg) *d0, c1 = inout(zmm_reg) *c1, d1 = inout(zmm_reg) *d1,
            c2 = inout(zmm_reg) *c2, d2 = inout(zmm_reg) *d2, c3 = inout(zmm_reg) *c3, d3 = inout(zmm_reg) *d3,
            c4 = inout(zmm_reg) *c4, d4 = inout(zmm_reg) *d4, c5 = inout(zmm_reg) *c5, d5 = inout(zmm_reg) *d5,
            c6 = inout(zmm_reg) *c6, d6 = inout(zmm_reg) *d6, c7 = inout(zmm_reg) *c7, d7 = inout(zmm_reg) *d7,
            c8 = inout(zmm_reg) *c8, d8 = inout(zmm_reg) *d8, c9 = inout(zmm_reg) *c9, d9 = inout(zmm_reg) *d9,
            ca = inout(zmm_reg) *ca, da = inout(zmm_reg) *da, cb = inout(zmm_reg) *cb, db = inout(zmm_reg) *db,
            out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(nostack, readonly),
        );
    }
}
