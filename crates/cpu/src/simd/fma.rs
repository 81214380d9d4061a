//! The inner loops of the register tiles that f32 products spend their time in. Written as instructions: compilers keep
//! a part of so many accumulators in memory, and with them twelve addresses, which takes up to twice as long.

use core::arch::asm;
use core::arch::x86_64::{__m256, __m512};
use std::ptr;

use super::amx::Segment;

/// What the loops read and count in memory, as registers hold addresses and accumulators.
#[repr(C)]
struct Walk {
    /// 0: the segment that is walked, whose fields are 8 bytes each.
    segment: *const Segment,
    /// 8: that after the last.
    end: *const Segment,
    /// 16: the right operand.
    b: *const f32,
    /// 24, 32: distances in bytes of neighbours along the inner dimension.
    a_step: usize,
    b_step: usize,
    /// 40: which bits of a segment's length are walked eight products at once.
    eights: usize,
    /// 48, 56: eights and single products that are left.
    many: usize,
    rest: usize,
}

const _: () = assert!(size_of::<Segment>() == 24 && size_of::<Walk>() == 64);

impl Walk {
    /// Eights are written for one pair of distances.
    fn new(b: *const f32, segments: &[Segment], steps: [usize; 2], eights: [usize; 2]) -> Walk {
        let std::ops::Range { start, end } = segments.as_ptr_range();
        let eights = if steps == eights { !7 } else { 0 };
        Walk { segment: start, end, b, a_step: 4 * steps[0], b_step: 4 * steps[1], eights, many: 0, rest: 0 }
    }
}

/// One row of a tile in step `n` of some: a number of A times two vectors of B, the first two of the registers, added
/// to two accumulators.
macro_rules! row {
    ($row:literal, $n:literal, $a:literal, $left:literal, $right:literal, $width:literal,
     [$b0:literal, $b1:literal, $x:literal]) => {
        concat!(
            concat!("vbroadcastss ", $x, ", dword ptr [", $row, " + rbp + ", $n, "*", $a, "]\n"),
            concat!("vfmadd231ps {", $left, ":", $width, "}, ", $x, ", ", $b0, "\n"),
            concat!("vfmadd231ps {", $right, ":", $width, "}, ", $x, ", ", $b1, "\n"),
        )
    };
}

/// Step `n` of 6 rows × 16 columns, of steps so many bytes apart in A and B.
macro_rules! step_6x16 {
    ($n:literal, $a:literal, $b:literal) => {
        concat!(
            concat!("vmovups ymm13, [rbx + ", $n, "*", $b, "]\n", "vmovups ymm14, [rbx + ", $n, "*", $b, " + 32]\n"),
            row!("rcx", $n, $a, "c0", "d0", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("rdx", $n, $a, "c1", "d1", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("rsi", $n, $a, "c2", "d2", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("rdi", $n, $a, "c3", "d3", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("r8", $n, $a, "c4", "d4", "y", ["ymm13", "ymm14", "ymm15"]),
            row!("r9", $n, $a, "c5", "d5", "y", ["ymm13", "ymm14", "ymm15"]),
        )
    };
}

/// As [`step_6x16`] for 12 rows × 32 columns. A panel of B and its rows of A do not fit the first-level cache together,
/// so B is asked for eight steps ahead.
macro_rules! step_12x32 {
    ($n:literal, $a:literal, $b:literal) => {
        concat!(
            concat!("vmovups zmm29, [rbx + ", $n, "*", $b, "]\n", "vmovups zmm30, [rbx + ", $n, "*", $b, " + 64]\n"),
            concat!("prefetcht0 [rbx + ", $n, "*", $b, " + 1024]\n", "prefetcht0 [rbx + ", $n, "*", $b, " + 1088]\n"),
            row!("rcx", $n, $a, "c0", "d0", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("rdx", $n, $a, "c1", "d1", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("rsi", $n, $a, "c2", "d2", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("rdi", $n, $a, "c3", "d3", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r8", $n, $a, "c4", "d4", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r9", $n, $a, "c5", "d5", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r10", $n, $a, "c6", "d6", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r11", $n, $a, "c7", "d7", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r12", $n, $a, "c8", "d8", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r13", $n, $a, "c9", "d9", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r14", $n, $a, "ca", "da", "z", ["zmm29", "zmm30", "zmm31"]),
            row!("r15", $n, $a, "cb", "db", "z", ["zmm29", "zmm30", "zmm31"]),
        )
    };
}

/// All segments: `rax` is the address of the [`Walk`], `rbp` the place in A in bytes, `rbx` the address in B. Those two
/// are the compiler's own and are given back. Additions to them take turns with products at the processor's ports:
/// where the distances are known, eight steps share them.
macro_rules! walk {
    ($step:ident, $a:literal, $b:literal) => {
        concat!(
            "push rbx\n push rbp\n mov rbp, [rax]\n",
            "2:\n mov rbx, [rbp + 16]\n mov [rax + 56], rbx\n and rbx, [rax + 40]\n sub [rax + 56], rbx\n",
            "shr rbx, 3\n mov [rax + 48], rbx\n",
            "mov rbx, [rbp + 8]\n mov rbp, [rbp]\n shl rbx, 2\n shl rbp, 2\n add rbx, [rax + 16]\n",
            "cmp qword ptr [rax + 48], 0\n je 4f\n",
            "3:\n",
            $step!("0", $a, $b),
            $step!("1", $a, $b),
            $step!("2", $a, $b),
            $step!("3", $a, $b),
            $step!("4", $a, $b),
            $step!("5", $a, $b),
            $step!("6", $a, $b),
            $step!("7", $a, $b),
            concat!("add rbp, 8*", $a, "\n add rbx, 8*", $b, "\n dec qword ptr [rax + 48]\n jne 3b\n"),
            "4:\n cmp qword ptr [rax + 56], 0\n je 6f\n",
            "5:\n",
            $step!("0", "0", "0"),
            "add rbp, [rax + 24]\n add rbx, [rax + 32]\n dec qword ptr [rax + 56]\n jne 5b\n",
            "6:\n mov rbp, [rax]\n add rbp, 24\n mov [rax], rbp\n cmp rbp, [rax + 8]\n jne 2b\n",
            "pop rbp\n pop rbx\n",
        )
    };
}

/// [`super::Lanes::accumulate`] for 6 rows × 16 columns: 12 accumulators, 2 vectors of B and a number of A in 16
/// registers.
///
/// # Safety
///
/// As there; the processor must have AVX2 and FMA.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_6x16(
    acc: &mut [[__m256; 2]; 6],
    rows: &[*const f32; 6],
    a_step: usize,
    b: *const f32,
    b_step: usize,
    segments: &[Segment],
) {
    if segments.is_empty() {
        return;
    }
    let [[c0, d0], [c1, d1], [c2, d2], [c3, d3], [c4, d4], [c5, d5]] = acc;
    macro_rules! run {
        ($a:literal, $eights:expr) => {{
            let mut walk = Walk::new(b, segments, [a_step, b_step], $eights);
            // SAFETY: reads the places the caller named, writes registers and `walk` alone.
            unsafe {
                asm!(
                    walk!(step_6x16, $a, "64"),
                    in("rax") ptr::from_mut(&mut walk),
                    in("rcx") rows[0], in("rdx") rows[1], in("rsi") rows[2],
                    in("rdi") rows[3], in("r8") rows[4], in("r9") rows[5],
                    c0 = inout(ymm_reg) *c0, d0 = inout(ymm_reg) *d0, c1 = inout(ymm_reg) *c1, d1 = inout(ymm_reg) *d1,
                    c2 = inout(ymm_reg) *c2, d2 = inout(ymm_reg) *d2, c3 = inout(ymm_reg) *c3, d3 = inout(ymm_reg) *d3,
                    c4 = inout(ymm_reg) *c4, d4 = inout(ymm_reg) *d4, c5 = inout(ymm_reg) *c5, d5 = inout(ymm_reg) *d5,
                    out("ymm13") _, out("ymm14") _, out("ymm15") _,
                );
            }
        }};
    }
    if a_step == 6 { run!("24", [6, 16]) } else { run!("4", [1, 16]) }
}

/// [`super::Lanes::accumulate`] for 12 rows × 32 columns.
///
/// # Safety
///
/// As there; the processor must have AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_12x32(
    acc: &mut [[__m512; 2]; 12],
    rows: &[*const f32; 12],
    a_step: usize,
    b: *const f32,
    b_step: usize,
    segments: &[Segment],
) {
    if segments.is_empty() {
        return;
    }
    let [
        [c0, d0],
        [c1, d1],
        [c2, d2],
        [c3, d3],
        [c4, d4],
        [c5, d5],
        [c6, d6],
        [c7, d7],
        [c8, d8],
        [c9, d9],
        [ca, da],
        [cb, db],
    ] = acc;
    macro_rules! run {
        ($a:literal, $eights:expr) => {{
            let mut walk = Walk::new(b, segments, [a_step, b_step], $eights);
            // SAFETY: reads the places the caller named, writes registers and `walk` alone.
            unsafe {
                asm!(
                    walk!(step_12x32, $a, "128"),
                    in("rax") ptr::from_mut(&mut walk),
                    in("rcx") rows[0], in("rdx") rows[1], in("rsi") rows[2], in("rdi") rows[3],
                    in("r8") rows[4], in("r9") rows[5], in("r10") rows[6], in("r11") rows[7],
                    in("r12") rows[8], in("r13") rows[9], in("r14") rows[10], in("r15") rows[11],
                    c0 = inout(zmm_reg) *c0, d0 = inout(zmm_reg) *d0, c1 = inout(zmm_reg) *c1, d1 = inout(zmm_reg) *d1,
                    c2 = inout(zmm_reg) *c2, d2 = inout(zmm_reg) *d2, c3 = inout(zmm_reg) *c3, d3 = inout(zmm_reg) *d3,
                    c4 = inout(zmm_reg) *c4, d4 = inout(zmm_reg) *d4, c5 = inout(zmm_reg) *c5, d5 = inout(zmm_reg) *d5,
                    c6 = inout(zmm_reg) *c6, d6 = inout(zmm_reg) *d6, c7 = inout(zmm_reg) *c7, d7 = inout(zmm_reg) *d7,
                    c8 = inout(zmm_reg) *c8, d8 = inout(zmm_reg) *d8, c9 = inout(zmm_reg) *c9, d9 = inout(zmm_reg) *d9,
                    ca = inout(zmm_reg) *ca, da = inout(zmm_reg) *da, cb = inout(zmm_reg) *cb, db = inout(zmm_reg) *db,
                    out("zmm29") _, out("zmm30") _, out("zmm31") _,
                );
            }
        }};
    }
    if a_step == 12 { run!("48", [12, 32]) } else { run!("4", [1, 32]) }
}
