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
mod x86;
