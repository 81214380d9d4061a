//! The tiles' instructions.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::mem::MaybeUninit;

use super::{Ahead, DEEP, Row, SIDE, TileBlock, terms};

pub fn has_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: the processor has xsave, by this function's requirement.
        unsafe { _xgetbv(0) }
    }
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    // The system saves the tiles' configuration and data (bits 17 and 18).
    // SAFETY: OSXSAVE says that xgetbv works.
    features & AMX_BF16 != 0 && features & AMX_TILE != 0 && unsafe { enabled() } >> 17 & 3 == 3
}

/// Asks Linux for the tiles' data, which it gives a process only when asked.
pub fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let answer: i64;
    // SAFETY: the call changes nothing but this process's permission.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => answer, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
             out("rcx") _, out("r11") _, options(nostack));
    }
    answer == 0
}

/// Eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

const CONFIGURATION: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut i = 0;
    while i < 8 {
        bytes[16 + 2 * i] = 64;
        bytes[48 + i] = 16;
        i += 1;
    }
    Configuration(bytes)
};

macro_rules! load {
    ($tile:literal, $at:expr, $stride:expr) => {
        asm!(concat!("tileloadd ", $tile, ", [{at} + {stride}*1]"), at = in(reg) $at, stride = in(reg) $stride,
             options(nostack, preserves_flags, readonly))
    };
}
macro_rules! store {
    ($tile:literal, $at:expr, $stride:expr) => {
        asm!(concat!("tilestored [{at} + {stride}*1], ", $tile), at = in(reg) $at, stride = in(reg) $stride,
             options(nostack, preserves_flags))
    };
}
macro_rules! product {
    ($($to:literal, $a:literal, $b:literal);*) => {
        asm!($(concat!("tdpbf16ps ", $to, ", ", $a, ", ", $b)),*, options(nostack, preserves_flags, nomem))
    };
}

/// 16 rows of the block.
#[derive(Clone, Copy)]
struct Group<'a> {
    rows: &'a [Row],
    /// Distances, in bytes.
    a_stride: usize,
    acc_stride: usize,
}

impl Group<'_> {
    fn new(rows: &[Row]) -> Group<'_> {
        let (a, acc) = if rows.len() > 1 { (rows[1].a - rows[0].a, rows[1].acc - rows[0].acc) } else { (DEEP, SIDE) };
        let even = rows.iter().enumerate().all(|(i, r)| r.a == rows[0].a + i * a);
        assert!(even, "rows of a group are equally far apart");
        // An accumulator with gaps goes through a tile of its own, as an incomplete one does.
        let direct = rows.len() == SIDE && rows.iter().enumerate().all(|(i, r)| r.acc == rows[0].acc + i * acc);
        Group { rows, a_stride: 2 * a, acc_stride: if direct { 4 * acc } else { 0 } }
    }
}

/// # Safety
/// The processor has the tiles, and the process may use them.
pub unsafe fn run(mut block: TileBlock<'_>, ahead: &mut Ahead) {
    if block.rows.is_empty() || block.columns == 0 {
        return;
    }
    let panels = block.columns.div_ceil(SIDE);
    assert!(block.segments.iter().all(|s| s.len % DEEP == 0), "stretches of whole instructions");
    let groups: smallvec::SmallVec<[Group<'_>; 16]> = block.rows.chunks(SIDE).map(Group::new).collect();
    let (a_end, b_end) = block
        .segments
        .iter()
        .filter(|s| s.len > 0)
        .fold((0, 0), |(a, b), s| (a.max(s.a + s.len), b.max(s.b + (s.len / 2 - 1) * block.b_pair + 2 * SIDE)));
    let a_last = (block.a_planes.0 - 1) * block.a_planes.1;
    let a_fits = |g: &Group<'_>| a_last + g.rows[0].a + (SIDE - 1) * g.a_stride / 2 + a_end <= block.a.len();
    assert!(a_end == 0 || groups.iter().all(a_fits), "left operand too short");
    assert!(
        (block.b_planes.0 - 1) * block.b_planes.1 + (panels - 1) * block.panel + b_end <= block.b.len(),
        "right operand too short"
    );
    assert!(block.rows.iter().all(|r| r.acc + panels * SIDE <= block.acc.len()), "accumulator too short");
    let steps: usize = block.segments.iter().map(|s| s.len / DEEP).sum();
    ahead.spread(panels.div_ceil(2) * groups.len().div_ceil(2) * steps);
    // SAFETY: all addresses were checked above; the caller promises the instructions.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, preserves_flags));
        match (block.a_planes.0, block.b_planes.0) {
            (1, 1) => all::<1, 1>(&mut block, &groups, panels, ahead),
            (2, 1) => all::<2, 1>(&mut block, &groups, panels, ahead),
            (3, 1) => all::<3, 1>(&mut block, &groups, panels, ahead),
            (1, 2) => all::<1, 2>(&mut block, &groups, panels, ahead),
            (2, 2) => all::<2, 2>(&mut block, &groups, panels, ahead),
            (3, 2) => all::<3, 2>(&mut block, &groups, panels, ahead),
            (1, 3) => all::<1, 3>(&mut block, &groups, panels, ahead),
            (2, 3) => all::<2, 3>(&mut block, &groups, panels, ahead),
            _ => all::<3, 3>(&mut block, &groups, panels, ahead),
        }
        asm!("tilerelease", options(nostack, preserves_flags, nomem));
    }
}

unsafe fn all<const PA: usize, const PB: usize>(
    block: &mut TileBlock<'_>,
    groups: &[Group<'_>],
    panels: usize,
    ahead: &mut Ahead,
) {
    for panel in (0..panels).step_by(2) {
        for pair in groups.chunks(2) {
            // SAFETY: `run` checked the addresses.
            unsafe {
                match (pair.len(), panels - panel) {
                    (2, 2..) => tiles::<PA, PB, 2, 2>(block, pair, panel, ahead),
                    (2, _) => tiles::<PA, PB, 2, 1>(block, pair, panel, ahead),
                    (_, 2..) => tiles::<PA, PB, 1, 2>(block, pair, panel, ahead),
                    (_, _) => tiles::<PA, PB, 1, 1>(block, pair, panel, ahead),
                }
            }
        }
    }
}

/// Up to 2 × 2 tiles: tmm0 to tmm3 are results, tmm4 and tmm5 of A, tmm6 and tmm7 of B.
#[inline(always)]
unsafe fn tiles<const PA: usize, const PB: usize, const MB: usize, const NB: usize>(
    block: &mut TileBlock<'_>,
    groups: &[Group<'_>],
    panel: usize,
    ahead: &mut Ahead,
) {
    #[repr(C, align(64))]
    struct Scratch([MaybeUninit<[f32; SIDE * SIDE]>; 4]);
    let mut scratch = Scratch([MaybeUninit::uninit(); 4]);
    let (g0, g1) = (groups[0], groups[MB - 1]);
    // Where the results of a tile stand: in the accumulator, or in a tile of its own.
    let mut place = |g: &Group<'_>, i: usize, j: usize| -> (*mut f32, usize) {
        if g.acc_stride > 0 {
            // SAFETY: `run` checked the accumulator.
            (unsafe { block.acc.as_mut_ptr().add(g.rows[0].acc + (panel + j) * SIDE) }, g.acc_stride)
        } else {
            // Cleared only where it is used: most blocks have no such tile.
            let tile = scratch.0[2 * i + j].write([0.0; SIDE * SIDE]);
            if block.add {
                for (r, to) in g.rows.iter().zip(tile.chunks_mut(SIDE)) {
                    to.copy_from_slice(&block.acc[r.acc + (panel + j) * SIDE..][..SIDE]);
                }
            }
            (tile.as_mut_ptr(), 4 * SIDE)
        }
    };
    let c00 = place(&g0, 0, 0);
    let c01 = if NB == 2 { place(&g0, 0, 1) } else { c00 };
    let c10 = if MB == 2 { place(&g1, 1, 0) } else { c00 };
    let c11 = if MB == 2 && NB == 2 { place(&g1, 1, 1) } else { c00 };
    // SAFETY: `run` checked that all that is read and written lies inside the operands.
    unsafe {
        if block.add {
            load!("tmm0", c00.0, c00.1);
            if NB == 2 {
                load!("tmm1", c01.0, c01.1);
            }
            if MB == 2 {
                load!("tmm2", c10.0, c10.1);
            }
            if MB == 2 && NB == 2 {
                load!("tmm3", c11.0, c11.1);
            }
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, preserves_flags, nomem)
            );
        }
        let (a0, a1) = (block.a.as_ptr().wrapping_add(g0.rows[0].a), block.a.as_ptr().wrapping_add(g1.rows[0].a));
        let b0 = block.b.as_ptr().wrapping_add(panel * block.panel);
        let (b_pair, b_step) = (2 * block.b_pair, DEEP / 2 * block.b_pair);
        for segment in block.segments {
            for step in 0..segment.len / DEEP {
                let at = segment.a + step * DEEP;
                let (a0, a1, b) =
                    (a0.wrapping_add(at), a1.wrapping_add(at), b0.wrapping_add(segment.b + step * b_step));
                let (mut last_a, mut last_b) = (PA, PB);
                ahead.ask();
                for &(i, j) in const { terms(PA, PB) } {
                    if i != last_a {
                        load!("tmm4", a0.wrapping_add(i * block.a_planes.1), g0.a_stride);
                        if MB == 2 {
                            load!("tmm5", a1.wrapping_add(i * block.a_planes.1), g1.a_stride);
                        }
                    }
                    if j != last_b {
                        let b = b.wrapping_add(j * block.b_planes.1);
                        load!("tmm6", b, b_pair);
                        if NB == 2 {
                            load!("tmm7", b.wrapping_add(block.panel), b_pair);
                        }
                    }
                    (last_a, last_b) = (i, j);
                    match (MB, NB) {
                        (2, 2) => {
                            product!(
                                "tmm0", "tmm4", "tmm6"; "tmm1", "tmm4", "tmm7";
                                "tmm2", "tmm5", "tmm6"; "tmm3", "tmm5", "tmm7"
                            )
                        }
                        (2, _) => product!("tmm0", "tmm4", "tmm6"; "tmm2", "tmm5", "tmm6"),
                        (_, 2) => product!("tmm0", "tmm4", "tmm6"; "tmm1", "tmm4", "tmm7"),
                        (_, _) => product!("tmm0", "tmm4", "tmm6"),
                    }
                }
            }
        }
        store!("tmm0", c00.0, c00.1);
        if NB == 2 {
            store!("tmm1", c01.0, c01.1);
        }
        if MB == 2 {
            store!("tmm2", c10.0, c10.1);
        }
        if MB == 2 && NB == 2 {
            store!("tmm3", c11.0, c11.1);
        }
    }
    for (i, g) in groups[..MB].iter().enumerate().filter(|(_, g)| g.acc_stride == 0) {
        for j in 0..NB {
            // SAFETY: `place` wrote it.
            let tile = unsafe { scratch.0[2 * i + j].assume_init_ref() };
            for (r, from) in g.rows.iter().zip(tile.chunks(SIDE)) {
                block.acc[r.acc + (panel + j) * SIDE..][..SIDE].copy_from_slice(from);
            }
        }
    }
}
