//! Products on tiles of bf16 (AMX): 16 × 16 results from 32 products each in one instruction, sixteen times the rate of
//! f32 vectors.
//!
//! An instruction sums its 32 products in two chains of 16 and adds them to the result, all in f32 and rounded to
//! nearest even; bf16 subnormals count as zero and sums below 2⁻¹²⁶ become zero. [`super::planes`] keeps operands with
//! such numbers away from here.

/// `acc[row.acc + j] (+)= Σ_terms Σ_segments Σ_l a[i][row.a + segment.a + l] · b[j][panel + segment.b + …]`, where the
/// operands are sums of bf16 planes. The [`terms`] say which planes meet. B is stored in pairs of neighbours along the
/// inner dimension.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct TileBlock<'a> {
    /// Left operand: planes, each row of which has its inner dimension densely.
    pub a: &'a [u16],
    /// Planes of the left operand and their distance.
    pub a_planes: (usize, usize),
    /// Rows, in groups of 16 that are equally far apart; 16 rows must be readable from each group's first one on.
    pub rows: &'a [Row],
    /// Right operand: planes of panels of 16 columns, `[inner / 2][16][2]`.
    pub b: &'a [u16],
    /// Planes of the right operand and their distance.
    pub b_planes: (usize, usize),
    /// Distance of neighbouring pairs in `b`.
    pub b_pair: usize,
    /// Distance of neighbouring panels in `b`.
    pub panel: usize,
    /// Columns; the accumulator's rows have room for a multiple of 16.
    pub columns: usize,
    /// The inner dimension, in stretches of a multiple of [`DEEP`].
    pub segments: &'a [Segment],
    /// Accumulator.
    pub acc: &'a mut [f32],
    /// Whether to add to the accumulator, or to overwrite it.
    pub add: bool,
}

/// A stretch of the inner dimension: where it starts in both operands, and its length.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Segment {
    /// Added to a row's place in `a`.
    pub a: usize,
    /// Added to a panel's place in `b`.
    pub b: usize,
    /// Products.
    pub len: usize,
}

/// A row of the result: its place in `a` and in the accumulator.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Index in `a`.
    pub a: usize,
    /// Index in `acc`.
    pub acc: usize,
}

/// Memory that will be needed soon, asked for a few lines at each step of the tiles, which leave the ports of memory
/// idle most of the time.
#[derive(Default)]
pub struct Ahead {
    matrices: smallvec::SmallVec<[Lines; 4]>,
    lines: usize,
    /// Lines per step.
    share: usize,
    /// What comes next: a matrix, a row of it, bytes of that.
    next: [usize; 3],
}

/// Rows of bytes.
struct Lines {
    address: usize,
    rows: usize,
    stride: usize,
    len: usize,
    written: bool,
}

impl Ahead {
    /// Nothing to ask for.
    pub fn nothing() -> Ahead {
        Ahead::default()
    }

    /// Adds `rows` rows of `len` bytes, `stride` apart, that will be read, or `written`. What lies beyond the slice is
    /// passed over.
    pub fn push(&mut self, bytes: &[u8], start: usize, [rows, stride]: [usize; 2], len: usize, written: bool) {
        if rows > 0 && len > 0 && start + (rows - 1) * stride + len <= bytes.len() {
            self.matrices.push(Lines { address: bytes.as_ptr().addr() + start, rows, stride, len, written });
            self.lines += rows * len.div_ceil(LINE);
        }
    }

    /// Spreads what is to be asked for over so many steps.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    fn spread(&mut self, steps: usize) {
        self.share = self.lines.div_ceil(steps.max(1));
    }

    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    fn ask(&mut self) {
        for _ in 0..self.share {
            let [matrix, row, at] = self.next;
            let Some(&Lines { address, rows, stride, len, written }) = self.matrices.get(matrix) else { return };
            super::prefetch::ask_later(address + row * stride + at, written);
            self.next = match (at + LINE < len, row + 1 < rows) {
                (true, _) => [matrix, row, at + LINE],
                (false, true) => [matrix, row + 1, 0],
                (false, false) => [matrix + 1, 0, 0],
            };
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Products per instruction.
pub const DEEP: usize = 32;
/// Rows and columns of a tile.
pub const SIDE: usize = 16;

/// Which planes of the operands meet, in an order in which neighbours share a plane, which is then loaded once; the
/// largest product is the last. Of three planes each, the three products of less than 2⁻²⁵ of the whole are left out:
/// together at most half a unit roundoff of f32.
pub const fn terms(a: usize, b: usize) -> &'static [(usize, usize)] {
    match (a, b) {
        (1, 1) => &[(0, 0)],
        (2, 1) => &[(1, 0), (0, 0)],
        (1, 2) => &[(0, 1), (0, 0)],
        (2, 2) => &[(1, 0), (1, 1), (0, 1), (0, 0)],
        (3, 1) => &[(2, 0), (1, 0), (0, 0)],
        (1, 3) => &[(0, 2), (0, 1), (0, 0)],
        (3, 2) => &[(2, 0), (1, 0), (1, 1), (0, 1), (0, 0)],
        (2, 3) => &[(0, 2), (0, 1), (1, 1), (1, 0), (0, 0)],
        _ => &[(2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0)],
    }
}

/// Whether the processor has the instructions, the system lets this process use them, and they compute what they
/// should.
pub fn detect() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return x86::has_tiles() && x86::is_permitted() && agrees();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// One product of small integers, exact in any order of sums, of all planes and ragged extents.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn agrees() -> bool {
    const ROWS: usize = 19;
    const COLUMNS: usize = 35;
    let value = |i: usize, l: usize| (i * 31 + l * 17) % 13;
    let bits = |v: usize| ((v as f32).to_bits() >> 16) as u16;
    let a: Vec<u16> =
        (0..3 * 32 * DEEP).map(|i| if i < ROWS * DEEP { bits(value(i / DEEP, i % DEEP)) } else { 0 }).collect();
    let panels = COLUMNS.div_ceil(SIDE);
    let mut b = vec![0u16; 3 * panels * DEEP * SIDE];
    for (j, l) in (0..COLUMNS).flat_map(|j| (0..DEEP).map(move |l| (j, l))) {
        b[j / SIDE * DEEP * SIDE + l / 2 * 2 * SIDE + j % SIDE * 2 + l % 2] = bits(value(j, l + 5));
    }
    let ld = panels * SIDE;
    let mut acc = vec![1.0; ROWS * ld];
    let rows: Vec<Row> = (0..ROWS).map(|i| Row { a: i * DEEP, acc: i * ld }).collect();
    let segments = &[Segment { a: 0, b: 0, len: DEEP }];
    let (a_planes, b_planes) = ((3, 32 * DEEP), (3, panels * DEEP * SIDE));
    let (panel, b_pair) = (DEEP * SIDE, 2 * SIDE);
    // SAFETY: `detect` found the instructions.
    unsafe {
        let block = TileBlock {
            a: &a,
            a_planes,
            rows: &rows,
            b: &b,
            b_planes,
            b_pair,
            panel,
            columns: COLUMNS,
            segments,
            acc: &mut acc,
            add: true,
        };
        x86::run(block, &mut Ahead::nothing());
    }
    (0..ROWS).all(|i| {
        (0..COLUMNS).all(|j| {
            let sum: usize = (0..DEEP).map(|l| value(i, l) * value(j, l + 5)).sum();
            acc[i * ld + j] == 1.0 + sum as f32
        })
    })
}

/// Runs a block. Does nothing useful, and is not called, where [`super::Isa::Amx`] is not available.
///
/// # Panics
/// The block's parts do not lie inside its slices, or the level is not available.
pub fn run(isa: super::Isa, block: TileBlock<'_>) {
    run_asking(isa, block, &mut Ahead::nothing());
}

/// As [`run`], asking for memory on the way.
///
/// # Panics
/// As [`run`].
pub fn run_asking(isa: super::Isa, block: TileBlock<'_>, ahead: &mut Ahead) {
    assert_eq!(isa, super::Isa::Amx, "tiles need the level amx");
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: the level exists only after its features were detected.
    unsafe {
        x86::run(block, ahead);
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let _ = (block, ahead);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86 {
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
            let (a, acc) =
                if rows.len() > 1 { (rows[1].a - rows[0].a, rows[1].acc - rows[0].acc) } else { (DEEP, SIDE) };
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
}
