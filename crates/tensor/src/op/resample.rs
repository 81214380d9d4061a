//! Linear maps that act on each dimension by itself: flips, shifts, padding, interpolation, adaptive pooling. Each is a
//! list of taps per output position of each dimension, so one kernel serves all, and the transposed lists give the
//! gradient.

use smallvec::{SmallVec, smallvec};

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::{Backward, Op};
use crate::samples::{Inputs, Sampler};
use crate::{Array, Dims, Error, Result, Shape};

/// A separable linear map. Spatial dimensions are those from 2 on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resample {
    /// The order of elements reversed in some dimensions.
    Flip(Dims),
    /// Elements moved forward by so many places in each dimension, those beyond the end to the start.
    Roll(Shape),
    /// More elements before and after each dimension.
    Pad {
        /// Elements before.
        before: Shape,
        /// Elements after.
        after: Shape,
        /// What they hold.
        mode: PadMode,
    },
    /// Spatial dimensions of another size.
    Interpolate {
        /// The new extents.
        size: [usize; 3],
        /// How values between elements are made.
        mode: Interpolation,
        /// Output extent per input extent where given by the user, else the quotient of the extents.
        scale: Option<[f64; 3]>,
    },
    /// Means of nearly equal windows: spatial dimensions of a given size (PyTorch's adaptive average pooling).
    AdaptiveAvg {
        /// The new extents.
        size: [usize; 3],
    },
}

/// What padding holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A constant.
    Constant(f64),
    /// The mirror image, without the edge element.
    Reflect,
    /// The edge element.
    Replicate,
    /// The other end.
    Circular,
}

/// Interpolation of spatial dimensions, as PyTorch's `interpolate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Element ⌊i/scale⌋.
    Nearest,
    /// Element ⌊(i + ½)/scale⌋: the one whose centre is nearest.
    NearestExact,
    /// Between two neighbours in each dimension.
    Linear {
        /// Whether the first and last elements keep their places.
        align_corners: bool,
    },
    /// Between four neighbours in each dimension: cubic convolution with a = −¾ (Keys 1981).
    Cubic {
        /// Whether the first and last elements keep their places.
        align_corners: bool,
    },
}

/// Positions and weights that make one output position of one dimension.
pub type Taps = SmallVec<[(usize, f64); 4]>;

/// Terms of one sum that kernels add in the computing type; such sums are added in f64.
pub const TAPS_IN_A_CHAIN: usize = 64;

/// Of a sum of `n` weighted terms, which cubic weights may let cancel: two weights, two products and the result, then a
/// chain of terms, and in f64 the sums of chains.
fn roundings(n: usize) -> Bound {
    Bound::Terms(6.0 + n.min(TAPS_IN_A_CHAIN) as f64 + (n / TAPS_IN_A_CHAIN) as f64)
}

impl Resample {
    /// The operator's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Resample::Flip(_) => "flip",
            Resample::Roll(_) => "roll",
            Resample::Pad { .. } => "pad",
            Resample::Interpolate { mode: Interpolation::Nearest, .. } => "upsample_nearest",
            Resample::Interpolate { mode: Interpolation::NearestExact, .. } => "upsample_nearest_exact",
            Resample::Interpolate { mode: Interpolation::Linear { .. }, .. } => "upsample_linear",
            Resample::Interpolate { mode: Interpolation::Cubic { .. }, .. } => "upsample_bicubic",
            Resample::AdaptiveAvg { .. } => "adaptive_avg_pool",
        }
    }

    /// Its numeric class: interpolation is in PyTorch's f32 list.
    pub const fn numerics(&self) -> Numerics {
        match self {
            Resample::Flip(_) | Resample::Roll(_) | Resample::Pad { .. } | Resample::AdaptiveAvg { .. } => {
                Numerics::Neutral
            }
            Resample::Interpolate { .. } => Numerics::F32,
        }
    }

    /// Whether every output is one input, or the padding's constant.
    pub const fn is_exact(&self) -> bool {
        match self {
            Resample::Flip(_) | Resample::Roll(_) | Resample::Pad { .. } => true,
            Resample::Interpolate { mode: Interpolation::Nearest | Interpolation::NearestExact, .. } => true,
            Resample::Interpolate { .. } | Resample::AdaptiveAvg { .. } => false,
        }
    }

    /// What outputs without taps hold.
    pub const fn fill(&self) -> f64 {
        match self {
            Resample::Pad { mode: PadMode::Constant(value), .. } => *value,
            Resample::Pad { .. } | Resample::Flip(_) | Resample::Roll(_) => 0.0,
            Resample::Interpolate { .. } | Resample::AdaptiveAvg { .. } => 0.0,
        }
    }

    /// Shape of the result.
    ///
    /// # Errors
    /// Another rank than the attributes are for; padding larger than the mode allows; an empty extent to sample from.
    pub fn shape(&self, x: &Shape) -> Result<Shape> {
        let op = self.name();
        let fail =
            |expected: &str| Err(Error::Shape { op, expected: format!("expected {expected}"), shapes: vec![*x] });
        let mut out = *x;
        match self {
            Resample::Flip(dims) => {
                if let Some(dim) = dims.iter().find(|&d| d >= x.rank()) {
                    return Err(Error::DimOutOfRange { op, dim: dim as isize, rank: x.rank() });
                }
            }
            Resample::Roll(shifts) if shifts.rank() != x.rank() => return fail("one shift per dimension"),
            Resample::Roll(_) => {}
            Resample::Pad { before, after, mode } => {
                if before.rank() != x.rank() || after.rank() != x.rank() {
                    return fail("padding for every dimension");
                }
                for d in 0..x.rank() {
                    let most = before[d].max(after[d]);
                    let fits = match mode {
                        PadMode::Constant(_) => true,
                        PadMode::Reflect => most == 0 || most < x[d],
                        PadMode::Replicate => most == 0 || x[d] > 0,
                        PadMode::Circular => most <= x[d],
                    };
                    if !fits {
                        return fail(&format!("more elements in dimension {d} than the padding {most} takes from it"));
                    }
                    match before[d].checked_add(after[d]).and_then(|added| added.checked_add(x[d])) {
                        Some(extent) => out[d] = extent,
                        None => return fail("padding that can be counted"),
                    }
                }
            }
            Resample::Interpolate { size, .. } | Resample::AdaptiveAvg { size } => {
                if !(3..=5).contains(&x.rank()) {
                    return fail("[N, C, W], [N, C, H, W] or [N, C, D, H, W]");
                }
                for d in 2..x.rank() {
                    out[d] = size[d - 2];
                    if x[d] == 0 || out[d] == 0 && matches!(self, Resample::Interpolate { .. }) {
                        return fail("spatial extents of at least 1, before and after");
                    }
                }
            }
        }
        Ok(out)
    }

    /// The taps of every output position of dimension `d` with `n` input positions.
    pub fn taps(&self, d: usize, n: usize) -> Vec<Taps> {
        let same = || (0..n).map(|i| smallvec![(i, 1.0)]).collect();
        match self {
            Resample::Flip(dims) if dims.contains(d) => (0..n).rev().map(|i| smallvec![(i, 1.0)]).collect(),
            Resample::Flip(_) => same(),
            Resample::Roll(shifts) => (0..n).map(|i| smallvec![((i + n - shifts[d] % n) % n, 1.0)]).collect(),
            Resample::Pad { before, after, mode } => (0..before[d] + n + after[d])
                .map(|i| match padded(i as isize - before[d] as isize, n as isize, mode) {
                    Some(i) => smallvec![(i as usize, 1.0)],
                    None => smallvec![],
                })
                .collect(),
            Resample::Interpolate { size, mode, scale } if d >= 2 => {
                let out = size[d - 2];
                (0..out).map(|i| mode.taps(i, n, out, scale.map(|s| s[d - 2]))).collect()
            }
            Resample::AdaptiveAvg { size } if d >= 2 => {
                let out = size[d - 2];
                let window = |i: usize| i * n / out..((i + 1) * n).div_ceil(out);
                (0..out).map(|i| window(i).map(|j| (j, 1.0 / window(i).len() as f64)).collect()).collect()
            }
            Resample::Interpolate { .. } | Resample::AdaptiveAvg { .. } => same(),
        }
    }

    /// The most inputs that make one output.
    pub fn most_taps(&self, x: &Shape) -> usize {
        (0..x.rank()).map(|d| self.taps(d, x[d]).iter().map(|t| t.len()).max().unwrap_or(1)).product()
    }
}

/// The position that a padded position `i` of `n` shows.
fn padded(i: isize, n: isize, mode: &PadMode) -> Option<isize> {
    if (0..n).contains(&i) {
        return Some(i);
    }
    match mode {
        PadMode::Constant(_) => None,
        PadMode::Reflect => Some(if i < 0 { -i } else { 2 * (n - 1) - i }),
        PadMode::Replicate => Some(i.clamp(0, n - 1)),
        PadMode::Circular => Some(i.rem_euclid(n)),
    }
}

impl Interpolation {
    /// The taps of output position `i`; positions beyond the edge are the edge.
    fn taps(self, i: usize, n: usize, out: usize, scale: Option<f64>) -> Taps {
        let step = scale.map_or(n as f64 / out as f64, |s| 1.0 / s);
        let place = |align_corners: bool| match align_corners {
            true if out > 1 => i as f64 * ((n - 1) as f64 / (out - 1) as f64),
            true => 0.0,
            false => (i as f64 + 0.5) * step - 0.5,
        };
        let at = |j: f64| j.clamp(0.0, (n - 1) as f64) as usize;
        match self {
            // In f32, as PyTorch: the two differ where i·step is an integer in one and just below in the other.
            Interpolation::Nearest => smallvec![(at((i as f32 * step as f32).floor() as f64), 1.0)],
            Interpolation::NearestExact => smallvec![(at((((i as f64 + 0.5) * step) as f32).floor() as f64), 1.0)],
            Interpolation::Linear { align_corners } => {
                let x = place(align_corners).max(0.0);
                let t = x - x.floor();
                smallvec![(at(x.floor()), 1.0 - t), (at(x.floor() + 1.0), t)]
            }
            Interpolation::Cubic { align_corners } => {
                let x = place(align_corners);
                let t = x - x.floor();
                (-1..=2).map(|j| (at(x.floor() + j as f64), cubic((t - j as f64).abs()))).collect()
            }
        }
    }
}

/// Keys' kernel with a = −¾ at distance `s` in 0..=2.
fn cubic(s: f64) -> f64 {
    const A: f64 = -0.75;
    if s <= 1.0 { ((A + 2.0) * s - (A + 3.0)) * s * s + 1.0 } else { ((A * s - 5.0 * A) * s + 8.0 * A) * s - 4.0 * A }
}

/// The taps of the transposed map: for each of `n` inputs the outputs it is in, in order.
pub fn transposed(taps: &[Taps], n: usize) -> Vec<Taps> {
    let mut out = vec![Taps::new(); n];
    for (i, taps) in taps.iter().enumerate() {
        taps.iter().for_each(|&(j, w)| out[j].push((i, w)));
    }
    out
}

impl Family for Resample {
    fn name(&self) -> &'static str {
        self.name()
    }

    fn numerics(&self) -> Numerics {
        self.numerics()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (map, ins) = (self, check.ins);
        check.count(1)?;
        if !map.is_exact() {
            check.floats(0..1)?;
        }
        Ok(smallvec![check.moved(|i| self.moves(i), ins[0].layout.like(map.shape(ins[0].shape())?))?])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        if self.is_exact() { Bound::Ulps(0.0) } else { roundings(self.most_taps(ins[0].shape())) }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.vary(vec![s.x(&[2, 3, 9, 8], 1)])
    }

    fn moves(&self, _input: usize) -> bool {
        self.is_exact()
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        let mut map = *self;
        match &mut map {
            Resample::Interpolate { size, .. } | Resample::AdaptiveAvg { size } => {
                let changed = change(&Shape::from_slice(size));
                size.copy_from_slice(&changed);
                Some(Op::Resample(map))
            }
            Resample::Flip(_) | Resample::Roll(_) | Resample::Pad { .. } => None,
        }
    }
}

/// [`Backward::Resample`].
#[derive(Clone, Copy, Debug)]
pub struct ResampleBackward {
    /// The map.
    pub map: Resample,
    /// Shape of x.
    pub shape: Shape,
}

impl Family for ResampleBackward {
    fn name(&self) -> &'static str {
        "resample_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (ResampleBackward { map, shape }, ins) = (self, check.ins);
        check.count(1)?;
        if map.shape(shape)? != *ins[0].shape() {
            return check.shape("the gradient of the map's output");
        }
        Ok(smallvec![check.float(ins[0].layout.like(*shape))])
    }

    /// As many terms as outputs show one input: at most the whole output.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        let ResampleBackward { map, shape } = self;
        let most = |d: usize| transposed(&map.taps(d, shape[d]), shape[d]).iter().map(|t| t.len()).max().unwrap_or(1);
        roundings((0..shape.rank()).map(most).product())
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let ResampleBackward { map, shape } = self;
        let y = map.shape(shape).expect("the catalogue's maps fit");
        vec![vec![s.x(&y, 9)]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Backward(Backward::Resample { map: self.map, shape: change(&self.shape) }))
    }
}

/// The maps of the catalogue, for [2, 3, 9, 8].
fn maps() -> Vec<Resample> {
    let shape = |dims: [usize; 4]| Shape::from_slice(&dims);
    let interpolate = |size: [usize; 3], mode| Resample::Interpolate { size, mode, scale: None };
    let mut maps = vec![
        Resample::Flip(Dims::one(1).with(3)),
        Resample::Roll(shape([1, 0, 2, 5])),
        Resample::AdaptiveAvg { size: [1, 1, 1] },
        Resample::AdaptiveAvg { size: [4, 3, 1] },
        Resample::AdaptiveAvg { size: [11, 8, 1] },
        interpolate([18, 16, 1], Interpolation::Nearest),
        interpolate([5, 13, 1], Interpolation::Nearest),
        interpolate([5, 13, 1], Interpolation::NearestExact),
    ];
    maps.extend(
        [PadMode::Constant(1.5), PadMode::Reflect, PadMode::Replicate, PadMode::Circular].map(|mode| Resample::Pad {
            before: shape([0, 1, 0, 2]),
            after: shape([0, 0, 3, 1]),
            mode,
        }),
    );
    for align_corners in [false, true] {
        for size in [[18, 16, 1], [4, 11, 1], [1, 1, 1]] {
            maps.push(interpolate(size, Interpolation::Linear { align_corners }));
            maps.push(interpolate(size, Interpolation::Cubic { align_corners }));
        }
    }
    maps
}

pub(super) fn catalogue() -> Vec<Op> {
    let shape = Shape::from_slice(&[2, 3, 9, 8]);
    maps().into_iter().flat_map(|map| [Op::Resample(map), Op::Backward(Backward::Resample { map, shape })]).collect()
}
