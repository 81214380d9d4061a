//! What a case is drawn from: random numbers, extents at the edges of tiles, values and layouts that look for trouble.

use binade::tensor::{Array, Class, DType, Device, Key, Layout, Result, Shape};

/// Random numbers of one case: the same for the same seed and number, on every machine.
#[derive(Clone)]
pub struct Draw {
    key: Key,
    drawn: usize,
}

impl Draw {
    pub fn new(seed: u64, case: u64) -> Draw {
        Draw { key: Key::new(seed, case), drawn: 0 }
    }

    fn bits(&mut self) -> u32 {
        self.drawn += 1;
        self.key.bits(self.drawn - 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.bits() as u64 * n as u64) >> 32) as usize
    }

    /// A number of a range, its ends included.
    pub fn within(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn flip(&mut self) -> bool {
        self.one_in(2)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.bits() as f64 / 4_294_967_296.0
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// A key for operators that draw themselves.
    pub fn key(&mut self) -> Key {
        Key { seed: self.bits() as u64, iteration: self.bits() as u64, op: self.bits() }
    }

    /// An extent of at most `most`: 0 and 1, small ones, and those around the edges of vectors, tiles and blocks.
    pub fn extent(&mut self, most: usize) -> usize {
        const EDGES: [usize; 9] = [4, 6, 8, 16, 32, 64, 128, 256, 1024];
        let extent = match self.below(12) {
            0 => self.below(2),
            1..=6 => self.within(1, 9),
            _ => self.pick(&EDGES) - 1 + self.below(3),
        };
        if extent <= most { extent } else { self.within(1, most.max(1)) }
    }

    /// A shape of at most `rank` dimensions and `numel` elements.
    pub fn shape(&mut self, rank: usize, numel: usize) -> Vec<usize> {
        let rank = self.below(rank + 1);
        self.shape_of_rank(rank, numel)
    }

    /// A shape of `rank` dimensions and at most `numel` elements.
    pub fn shape_of_rank(&mut self, rank: usize, mut numel: usize) -> Vec<usize> {
        let mut shape = vec![1; rank];
        // Any dimension may be the long one.
        let first = self.below(rank.max(1));
        for i in 0..rank {
            let extent = self.extent(numel);
            shape[(first + i) % rank] = extent;
            numel = (numel / extent.max(1)).max(1);
        }
        shape
    }

    /// A shape that broadcasts to `to`.
    pub fn broadcasting(&mut self, to: &[usize]) -> Vec<usize> {
        let skipped = if self.one_in(4) { self.below(to.len() + 1) } else { 0 };
        to[skipped..].iter().map(|&n| if self.one_in(4) { 1 } else { n }).collect()
    }

    /// A dtype for a float operand: f32 and 16 bit, seldom f64.
    pub fn dtype(&mut self) -> DType {
        self.pick(&[DType::F32, DType::F32, DType::F32, DType::F16, DType::F16, DType::BF16, DType::BF16, DType::F64])
    }
}

/// Which values an operand has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Normal.
    Ordinary,
    /// Normal, times one power of two of the dtype's range.
    Scaled(i32),
    /// Of many magnitudes.
    Spread,
    /// Ordinary ones, and zeros, infinities, NaN, the largest and the smallest numbers among them.
    Special,
    /// Ordinary ones, and zeros, infinities and NaN among them.
    Infinite,
    /// All the same.
    Equal(f64),
    /// A mean that is large against the spread.
    LargeMean(f64),
    /// Small whole numbers: ties.
    Whole,
    /// In [0, 1].
    Unit,
    /// Above 0.
    Positive,
    /// −1 and 1.
    Signs,
}

/// How far values may go so that the result is defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// As far as the dtype does.
    Whole,
    /// Products of them are added in f32, and a sum that overflows on the way has no right value: below 2⁶⁰, or
    /// infinite.
    Products,
    /// As above, and not infinite: what an infinity times a factor that vanished gives is the kernel's own affair.
    Finite,
}

impl Values {
    /// Values for an operand.
    pub fn draw(draw: &mut Draw, range: Range) -> Values {
        match draw.below(12) {
            0..=3 => Values::Ordinary,
            4 | 5 => {
                let exponent = draw.below(12) as i32 - 6;
                let huge = if range == Range::Whole { 120 } else { 40 };
                Values::Scaled(draw.pick(&[-140, -126, -66, -30, -14, 14, 30, huge, exponent]))
            }
            6 => Values::Spread,
            7 => match range {
                Range::Whole => Values::Special,
                Range::Products => Values::Infinite,
                Range::Finite => Values::Spread,
            },
            8 => Values::Equal(if draw.flip() { draw.normal() } else { draw.pick(&[0.0, 1.0, 1000.7, -3.0, 1e-20]) }),
            9 => Values::LargeMean(draw.pick(&[1e2, 1e3, 1e4, 1e6])),
            10 => Values::Whole,
            _ => Values::Positive,
        }
    }

    fn value(self, draw: &mut Draw, dtype: DType) -> f64 {
        let normal = draw.normal();
        // 16 bit has a range of its own.
        let narrow = |exponent: i32| if dtype == DType::F16 { (exponent / 9).clamp(-15, 13) } else { exponent };
        match self {
            Values::Ordinary => normal,
            Values::Scaled(exponent) => normal * 2f64.powi(narrow(exponent)),
            Values::Spread => normal * 2f64.powi(narrow(draw.below(80) as i32 - 40)),
            Values::Special => {
                if !draw.one_in(8) {
                    return normal;
                }
                let (max, small, least) = if dtype == DType::F16 {
                    (65504.0, 2f64.powi(-14), 2f64.powi(-24))
                } else {
                    (1.5 * 2f64.powi(127), 2f64.powi(-126), 2f64.powi(-133))
                };
                draw.pick(&[
                    0.0,
                    -0.0,
                    f64::INFINITY,
                    f64::NEG_INFINITY,
                    f64::NAN,
                    max,
                    -max,
                    small,
                    -small,
                    least,
                    -least,
                ])
            }
            Values::Infinite if draw.one_in(20) => draw.pick(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]),
            Values::Infinite => normal,
            Values::Equal(value) => value,
            // Within the range of f16.
            Values::LargeMean(mean) => {
                if dtype == DType::F16 {
                    mean.min(1e4) + normal
                } else {
                    mean + normal
                }
            }
            Values::Whole => draw.below(7) as f64 - 3.0,
            Values::Unit => draw.uniform(),
            Values::Positive => normal.abs() + 0.01,
            Values::Signs => draw.pick(&[-1.0, 1.0]),
        }
    }
}

/// A float operand with such values, in any layout.
pub fn floats(draw: &mut Draw, device: &Device, dtype: DType, shape: &[usize], values: Values) -> Result<Array> {
    let data: Vec<f64> = (0..shape.iter().product()).map(|_| values.value(draw, dtype)).collect();
    place(draw, shape, &data, f64::NAN, |data, shape| {
        Array::from_slice(device, data, shape, Class::Activations)?.cast(dtype, Class::Activations)
    })
}

/// Indices below `below`, in any layout.
pub fn indices(draw: &mut Draw, device: &Device, shape: &[usize], below: usize) -> Result<Array> {
    let data: Vec<i64> = (0..shape.iter().product()).map(|_| draw.below(below.max(1)) as i64).collect();
    place(draw, shape, &data, i64::MIN, |data, shape| Array::from_slice(device, data, shape, Class::Indices))
}

/// Integers of 8 bits, all of them, in any layout.
pub fn bytes(draw: &mut Draw, device: &Device, shape: &[usize]) -> Result<Array> {
    let data: Vec<i8> = (0..shape.iter().product()).map(|_| draw.below(256) as u8 as i8).collect();
    place(draw, shape, &data, i8::MIN, |data, shape| Array::from_slice(device, data, shape, Class::Weights))
}

/// Truth values, in any layout.
pub fn bools(draw: &mut Draw, device: &Device, shape: &[usize]) -> Result<Array> {
    let odds = draw.within(1, 4);
    let data: Vec<bool> = (0..shape.iter().product()).map(|_| !draw.one_in(odds + 1)).collect();
    place(draw, shape, &data, true, |data, shape| Array::from_slice(device, data, shape, Class::Indices))
}

/// Lays elements, given in row-major order, out in memory: dimensions in any order, with gaps that hold `stray`, from
/// an offset.
fn place<T: Copy>(
    draw: &mut Draw,
    shape: &[usize],
    data: &[T],
    stray: T,
    make: impl Fn(&[T], &[usize]) -> Result<Array>,
) -> Result<Array> {
    let rank = shape.len();
    if rank == 0 || draw.flip() {
        return make(data, shape);
    }
    let mut order: Vec<usize> = (0..rank).collect();
    if draw.flip() {
        (1..rank).for_each(|i| order.swap(i, draw.below(i + 1)));
    }
    let gaps: Vec<[usize; 2]> =
        (0..rank).map(|_| if draw.one_in(3) { [draw.below(3), draw.below(3)] } else { [0, 0] }).collect();
    let wide: Vec<usize> = (0..rank).map(|d| gaps[d][0] + shape[d] + gaps[d][1]).collect();
    let memory: Vec<usize> = order.iter().map(|&d| wide[d]).collect();
    let base = make(&vec![stray; memory.iter().product()], &memory)?;
    // The permutation that brings the memory's dimensions back into the logical order.
    let back: Vec<usize> = (0..rank).map(|d| order.iter().position(|&o| o == d).unwrap_or(d)).collect();
    let whole = base.layout().permute(&back);
    let layout = (0..rank).fold(whole, |layout: Layout, d| layout.narrow(d, gaps[d][0], shape[d]));
    let mut filled = vec![stray; memory.iter().product()];
    for (flat, value) in data.iter().enumerate() {
        let (mut rest, mut at) = (flat, layout.offset);
        for d in (0..rank).rev() {
            at += rest % shape[d] * layout.strides[d];
            rest /= shape[d];
        }
        filled[at] = *value;
    }
    make(&filled, &memory)?.with_layout(layout)
}

/// A shape of the tensor crate.
pub fn shape(dims: &[usize]) -> Result<Shape> {
    Shape::new(dims)
}
