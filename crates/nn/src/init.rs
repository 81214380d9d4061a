//! [`Init`]: initial values of parameters.

use binade_autograd::scope;
use binade_tensor::op::Distribution;
use binade_tensor::random::normal_pair;
use binade_tensor::{Array, Class, DType, Layout, Meta, Op, Shape, run_one};

use crate::{Error, Result};

/// How a parameter is filled. Fans follow PyTorch: for `[out, in, …]`, fan-in is in × receptive field, fan-out is out ×
/// it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One value.
    Constant(f64),
    /// Uniform in [low, high).
    Uniform {
        /// Smallest value.
        low: f64,
        /// Bound.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Normal, drawn again outside mean ± 2·std.
    TruncatedNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation before truncation.
        std: f64,
    },
    /// Uniform in ±gain·√(3/fan_in) (He et al. 2015). Gain √2 is for ReLU; √(1/3) is PyTorch's default for Linear and
    /// Conv.
    KaimingUniform {
        /// Gain of the activation.
        gain: f64,
    },
    /// Normal with std gain/√fan_in.
    KaimingNormal {
        /// Gain of the activation.
        gain: f64,
    },
    /// Uniform in ±gain·√(6/(fan_in + fan_out)) (Glorot and Bengio 2010).
    XavierUniform {
        /// Gain of the activation.
        gain: f64,
    },
    /// Normal with std gain·√(2/(fan_in + fan_out)).
    XavierNormal {
        /// Gain of the activation.
        gain: f64,
    },
}

impl Init {
    /// PyTorch's default for the weights of Linear and Conv: uniform in ±1/√fan_in.
    pub fn default_weight() -> Init {
        Init::KaimingUniform { gain: (1.0f64 / 3.0).sqrt() }
    }

    /// PyTorch's default for biases: uniform in ±1/√fan_in of the weight.
    pub fn default_bias(fan_in: usize) -> Init {
        let bound = if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() };
        Init::Uniform { low: -bound, high: bound }
    }

    /// An array for a parameter that is stored in `dtype`: [`Init::array`], or inside [`scope::without_initial_values`]
    /// arbitrary values in memory that was not touched. Constants are written all the same.
    pub(crate) fn stored(self, shape: &[usize], dtype: DType) -> Result<Array> {
        if scope::is_drawn() || matches!(self, Init::Constant(_)) {
            return Ok(self.array(shape)?.cast(dtype, Class::Weights)?);
        }
        // What is drawn later is the same with and without these values.
        scope::next_key();
        let meta = Meta { dtype, layout: Layout::contiguous(Shape::new(shape)?) };
        Ok(Array::alloc(&scope::device()?, meta, Class::Weights).map_err(|error| error.during("init"))?)
    }

    /// An f32 array on the scope's device, drawn from its stream.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn array(self, shape: &[usize]) -> Result<Array> {
        let shape = Shape::new(shape)?;
        let receptive: usize = shape.iter().skip(2).product();
        let fan_in = (shape.get(1).or(shape.first()).copied().unwrap_or(1) * receptive).max(1) as f64;
        let fan_out = (shape.first().copied().unwrap_or(1) * receptive).max(1) as f64;
        let uniform = |bound: f64| Distribution::Uniform { low: -bound, high: bound };
        let normal = |std: f64| Distribution::Normal { mean: 0.0, std };
        let distribution = match self {
            Init::Constant(value) => {
                return Ok(Array::full(&scope::device()?, DType::F32, shape, value, Class::Weights)?);
            }
            Init::TruncatedNormal { mean, std } => return truncated(&shape, mean, std),
            Init::Uniform { low, high } => Distribution::Uniform { low, high },
            Init::Normal { mean, std } => Distribution::Normal { mean, std },
            Init::KaimingUniform { gain } => uniform(gain * (3.0 / fan_in).sqrt()),
            Init::KaimingNormal { gain } => normal(gain / fan_in.sqrt()),
            Init::XavierUniform { gain } => uniform(gain * (6.0 / (fan_in + fan_out)).sqrt()),
            Init::XavierNormal { gain } => normal(gain * (2.0 / (fan_in + fan_out)).sqrt()),
        };
        let op = Op::Random { distribution, shape, key: scope::next_key() };
        Ok(run_one(&op, &[], &scope::device()?, DType::F32, Class::Weights)?)
    }
}

fn truncated(shape: &Shape, mean: f64, std: f64) -> Result<Array> {
    Error::unless(
        std >= 0.0 && std.is_finite(),
        "TruncatedNormal",
        "standard deviation",
        "at least 0 and finite",
        std,
    )?;
    Error::unless(mean.is_finite(), "TruncatedNormal", "mean", "finite", mean)?;
    let key = scope::next_key();
    let n = shape.numel();
    let draw = |i: usize| {
        // Attempt after attempt from blocks of its own, so that an element's value depends on nothing else.
        (0u32..).map(|attempt| key.block((i as u32).wrapping_add(attempt.wrapping_mul(n as u32)))).find_map(
            |[a, b, c, d]| {
                let candidates = [normal_pair(a, b), normal_pair(c, d)].concat();
                candidates.into_iter().find(|z| z.abs() <= 2.0)
            },
        )
    };
    let values: Vec<f32> = (0..n).map(|i| (mean + std * draw(i).unwrap_or(0.0)) as f32).collect();
    Ok(Array::from_slice(&scope::device()?, &values, shape, Class::Weights)?)
}
