//! Samples of every operator: what the registry's checks run on. An operator without samples does not compile.

use crate::op::*;
use crate::{Array, Class, DType, Device, Key, Layout, Op, Shape, run_one};

/// Inputs for one run of an operator.
pub type Inputs = Vec<Array>;

/// Operators with their attributes, each family and row at least once.
pub fn catalogue() -> Vec<Op> {
    CATALOGUES.iter().flat_map(|family| family()).collect()
}

/// The random stream of operators in the catalogue.
pub(crate) const KEY: Key = Key { seed: 3, iteration: 1 << 33, op: 7 };

/// Makes inputs on a device whose floats have a dtype. Samples are small: a device without room for them cannot be
/// tested.
pub(crate) struct Sampler<'a> {
    pub(crate) device: &'a Device,
    pub(crate) dtype: DType,
}

/// Sizes across the edges of blocks: a scalar, nothing, one element, and more.
pub(crate) const SIZES: [&[usize]; 7] = [&[], &[0], &[1], &[17], &[1031], &[3, 130], &[2, 3, 65]];

impl Sampler<'_> {
    /// Normal values, the same on every device.
    pub(crate) fn x(&self, dims: &[usize], stream: u64) -> Array {
        let op = Op::Random {
            distribution: Distribution::Normal { mean: 0.25, std: 1.0 },
            shape: Shape::from_slice(dims),
            key: Key::new(11, stream),
        };
        self.one(&op, &[])
    }

    /// Squares of normal values.
    pub(crate) fn positive(&self, dims: &[usize], stream: u64) -> Array {
        self.one(&Op::Unary(Unary::Square), &[&self.x(dims, stream)])
    }

    /// Indices below a number.
    pub(crate) fn index(&self, dims: &[usize], below: i64) -> Array {
        let n: usize = dims.iter().product();
        let v: Vec<i64> = (0..n as i64).map(|i| (i * 7 + 3) % below).collect();
        Array::from_slice(self.device, &v, dims, Class::Indices).expect("samples fit in memory")
    }

    /// A gradient of a result.
    pub(crate) fn gradient(&self, of: &Array) -> Array {
        self.x(of.shape(), 9)
    }

    /// All outputs of an operator.
    pub(crate) fn run(&self, op: Op, ins: &[&Array]) -> Vec<Array> {
        let request = crate::Request::new(&op, ins, self.device, self.dtype, Class::Activations);
        crate::run(request).expect("samples fit in memory").into_iter().collect()
    }

    /// The one output of an operator.
    pub(crate) fn one(&self, op: &Op, ins: &[&Array]) -> Array {
        run_one(op, ins, self.device, self.dtype, Class::Activations).expect("samples fit in memory")
    }

    /// The inputs with the first one in several layouts.
    pub(crate) fn vary(&self, inputs: Inputs) -> Vec<Inputs> {
        layouts(&inputs[0]).into_iter().map(|first| [&[first], &inputs[1..]].concat()).collect()
    }

    /// One tensor of many sizes.
    pub(crate) fn sizes(&self) -> Vec<Inputs> {
        SIZES.iter().flat_map(|s| self.vary(vec![self.x(s, 1)])).collect()
    }

    /// One tensor of three dimensions, of many sizes.
    pub(crate) fn volumes(&self) -> Vec<Inputs> {
        let sizes = [[2, 3, 5], [1, 1, 1], [3, 40, 130], [300, 2, 9]];
        sizes.iter().flat_map(|s| self.vary(vec![self.x(s, 1)])).collect()
    }
}

/// Copies of the values in other layouts: transposed in memory, and with a gap between rows.
fn layouts(array: &Array) -> Vec<Array> {
    let rank = array.shape().rank();
    let mut out = vec![array.clone()];
    if rank >= 2 {
        let order: Vec<usize> = if rank == 4 { vec![0, 2, 3, 1] } else { (0..rank).rev().collect() };
        for layout in [Layout::with_order(*array.shape(), &order), gaps(array.shape())] {
            let dense = array.contiguous(Class::Workspace).and_then(|dense| array.device().download(&dense));
            out.extend(dense.and_then(|bytes| laid_out(array.device(), array.dtype(), layout, &bytes)));
        }
    }
    out
}

/// Rows two elements longer than needed.
fn gaps(shape: &Shape) -> Layout {
    let mut wide = *shape;
    let last = wide.len() - 1;
    wide[last] += 2;
    Layout { shape: *shape, strides: wide.row_major(), offset: 0 }
}

/// An array of any strides with the elements whose bytes are given in row-major order; gaps are zeros.
pub(crate) fn laid_out(device: &Device, dtype: DType, layout: Layout, bytes: &[u8]) -> crate::Result<Array> {
    let (size, shape) = (dtype.size(), layout.shape);
    let mut memory = vec![0; layout.end() * size];
    for (flat, value) in bytes.chunks(size).enumerate() {
        let step = |(at, rest): (usize, usize), d: usize| (at + rest % shape[d] * layout.strides[d], rest / shape[d]);
        let (at, _) = (0..shape.rank()).rev().fold((layout.offset, flat), step);
        memory[at * size..(at + 1) * size].copy_from_slice(value);
    }
    let whole = Array::from_bytes(device, dtype, &memory, &[layout.end()], Class::Activations)?;
    whole.with_layout(layout)
}
