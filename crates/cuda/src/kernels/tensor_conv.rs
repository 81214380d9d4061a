//! Convolutions and their gradients on tensor cores: which they take, and how operands are laid for them.

use binade_tensor::op::Conv2d;
use binade_tensor::{Layout, Result, Shape};

use super::conv::Of;
use super::images::{Divisor, Places, Source, Taps, TensorConv};
use super::product::{Matrix, Product};
use super::{MOST, MOST_BLOCKS, copy, tensor};
use crate::backend::Cuda;
use crate::memory::CudaMemory;
use crate::module::Module;
use crate::view::View;

/// Elements of a chunk, which are copied at a time, and its bytes.
const ELEMENTS: usize = 8;
const CHUNK: u64 = 16;
/// Places of a split are a multiple of this.
const CHAIN: usize = 256;
/// With fewer blocks than this a device is idle, and long sums are cut: into parts that make twice as many blocks.
const FEW_BLOCKS: usize = 128;
/// Pixels of a split of the gradient by the weight at most: `Op::bound` counts on it.
const PIXELS: usize = 2048;
/// Each is a launch.
const MOST_RESIDUES: usize = 16;
/// Larger extents might leave 32 bits.
const FARTHEST: usize = 1 << 30;

/// Memory in which an operand was laid, if it does not lie so.
type Laid<T> = (T, Option<CudaMemory>);

/// A copy of a view with other strides, in memory of so many elements; zeros between them if there are more.
fn laid(cuda: &Cuda, op: &'static str, view: &View, strides: &Shape, elements: usize) -> Result<(u64, CudaMemory)> {
    let memory = cuda.scratch(elements * view.dtype.size())?;
    let all = View::line(memory.address(), view.dtype, Shape::new(&[elements])?);
    if elements > view.numel() {
        copy::fill(cuda, op, 0.0, &all)?;
    }
    copy::cast(cuda, op, view, &all.with_layout(Layout { shape: *view.shape(), strides: *strides, offset: 0 }))?;
    Ok((memory.address(), memory))
}

fn is_chunked(stride: usize) -> bool {
    stride.is_multiple_of(ELEMENTS)
}

/// An image with channels side by side, those of a group a multiple of a chunk, and if `even` with pixels at one
/// distance; `None` if its groups are no such.
fn image(cuda: &Cuda, op: &'static str, view: &View, groups: usize, even: bool) -> Result<Option<Laid<Source>>> {
    let ([n, c, h, w], s) = (extents(view), view.layout.strides);
    let of_group = c / groups;
    let whole = is_chunked(of_group);
    let lies = (0..4).all(|d| view.shape()[d] <= 1 || if d == 1 { s[d] == 1 } else { is_chunked(s[d]) });
    // Of one row or one image it does not matter how far the next would be.
    let at_one_distance = (h <= 1 || s[2] == w * s[3]) && (n <= 1 || s[0] == h * w * s[3]);
    let channels = of_group.next_multiple_of(ELEMENTS);
    let mut source = Source {
        at: view.at(),
        groups: of_group as i64,
        images: s[0] as i64,
        rows: s[2] as i64,
        columns: s[3] as i64,
        height: h as u32,
        width: w as u32,
        channels: Divisor::new(channels),
        ..Source::default()
    };
    if whole && lies && (at_one_distance || !even) && view.at().is_multiple_of(CHUNK) {
        return Ok(Some((source, None)));
    }
    let line = if whole { c } else { channels };
    if !whole && groups > 1 || n * h * w * line >= MOST {
        return Ok(None);
    }
    let strides = Shape::new(&[h * w * line, 1, w * line, line])?;
    let (at, memory) = laid(cuda, op, view, &strides, n * h * w * line)?;
    (source.at, source.images) = (at, (h * w * line) as i64);
    (source.rows, source.columns) = ((w * line) as i64, line as i64);
    Ok(Some((source, Some(memory))))
}

fn extents(view: &View) -> [usize; 4] {
    [0, 1, 2, 3].map(|d| view.shape()[d])
}

/// Weights as [group][column][tap, place], of output channels by input channels, or the other way round if the gradient
/// is by the input; `channels` is how many places there are under a tap.
fn weights(
    cuda: &Cuda,
    op: &'static str,
    w: &View,
    (groups, by_input, channels): (usize, bool, usize),
    [below, beside]: [Taps; 2],
) -> Result<Option<Laid<Matrix>>> {
    let ([o, inputs, ..], s) = (extents(w), w.layout.strides);
    let outputs = o / groups;
    let (outer, inner) = ((outputs, s[0]), (inputs, s[1]));
    let (columns, places) = if by_input { (inner, outer) } else { (outer, inner) };
    let line = below.count * beside.count * channels;
    let shape = [groups, columns.0, places.0, below.count, beside.count];
    let strides = [outputs * s[0], columns.1, places.1, s[2] * below.apart, s[3] * beside.apart];
    let wanted = [columns.0 * line, line, 1, beside.count * channels, channels];
    let layout = Layout {
        shape: Shape::new(&shape)?,
        strides: Shape::new(&strides)?,
        offset: w.layout.offset + below.first * s[2] + beside.first * s[3],
    };
    let view = w.with_layout(layout);
    let matrix = |at: u64, group: usize, column: usize| {
        let mut matrix = Matrix { at, rows: 1, columns: column as i64, ..Matrix::default() };
        matrix.batches[0] = group as i64;
        matrix
    };
    if line == 0 {
        return Ok(Some((matrix(w.at(), 0, 0), None)));
    }
    let lies = |d: usize| shape[d] <= 1 || if d < 2 { is_chunked(strides[d]) } else { strides[d] == wanted[d] };
    if places.0 == channels && (0..5).all(lies) && view.at().is_multiple_of(CHUNK) {
        return Ok(Some((matrix(view.at(), strides[0], strides[1]), None)));
    }
    let elements = groups * wanted[0];
    if elements >= MOST {
        return Ok(None);
    }
    let (at, memory) = laid(cuda, op, &view, &Shape::new(&wanted)?, elements)?;
    Ok(Some((matrix(at, wanted[0], wanted[1]), Some(memory))))
}

/// Queues a contraction whose result is `p.c`, by its rows and columns; in parts if there are few blocks, or if parts
/// may have so many places at most.
fn launch(
    cuda: &Cuda,
    op: &'static str,
    (kernel, dtype): (&str, &str),
    p: &TensorConv,
    longest: Option<usize>,
) -> Result<()> {
    let [m, n, k, groups] = [p.p.m, p.p.n, p.p.k, p.p.count].map(|extent| extent as usize);
    let (module, tile) = tensor::tile(cuda.capability(), [m, n], [Module::ConvSm75, Module::ConvSm80]);
    let kernel = format!("{kernel}_{dtype}_{tile}");
    let tiles = m.div_ceil(tile) * n.div_ceil(tile);
    let chains = k.div_ceil(CHAIN).max(1);
    let few = if tiles * groups < FEW_BLOCKS { (2 * FEW_BLOCKS).div_ceil(tiles * groups) } else { 1 };
    let wanted = few.max(longest.map_or(1, |longest| k.div_ceil(longest)));
    let per_split = chains.div_ceil(wanted) * CHAIN;
    let splits = k.div_ceil(per_split).max(1);
    let whole = Product { splits: splits as u32, per_split: per_split as u32, ..p.p };
    let grid = [tiles, 1, (groups * splits).min(MOST_BLOCKS)];
    if splits == 1 && longest.is_none() {
        cuda.grid(op, (module, &kernel), grid, 128, &TensorConv { p: whole, ..*p });
        return Ok(());
    }
    let parts = cuda.scratch(size_of::<f32>() * splits * groups * m * n)?;
    let mut of_parts = Matrix { at: parts.address(), columns: 1, ..Matrix::default() };
    of_parts.batches[0] = (m * n) as i64;
    let to_parts = TensorConv { p: Product { c: of_parts, ..whole }, rows: p.rows.in_lines_of(n as i64), ..*p };
    cuda.grid(op, (module, &kernel), grid, 128, &to_parts);
    let threads = (m * n).next_multiple_of(32).min(256);
    let blocks = [(m * n).div_ceil(threads), groups.min(MOST_BLOCKS), 1];
    let sum = TensorConv { p: Product { a: of_parts, ..whole }, ..*p };
    cuda.grid(op, (Module::Conv, "sum_of_splits"), blocks, threads, &sum);
    Ok(())
}

/// Output `y` of input `x` and weight `w`, one of which is the result; false if tensor cores do not take it.
pub(super) fn contract(
    cuda: &Cuda,
    op: &'static str,
    conv: &Conv2d,
    of: Of,
    [x, w, y]: [&View; 3],
    bias: Option<&View>,
) -> Result<bool> {
    let operands = match of {
        Of::Output => [x, w],
        Of::Input => [y, w],
        Of::Weight => [y, x],
        Of::Quantised => return Ok(false),
    };
    let Some(dtype) = tensor::format(cuda.capability(), operands.map(|view| view.dtype)) else { return Ok(false) };
    let ([_, _, height, width], [o, inputs, below, beside]) = (extents(x), extents(w));
    let far = |extent: usize, padding: usize| extent.saturating_add(padding.saturating_mul(2)) >= FARTHEST;
    let far = far(height, conv.padding[0]) || far(width, conv.padding[1]);
    if far || [x, w, y].iter().any(|view| view.numel() == 0) {
        return Ok(false);
    }
    let (groups, kernel) = (conv.groups, [below, beside]);
    let call = Call { cuda, op, conv, dtype, groups, outputs: o / groups, inputs, kernel };
    match of {
        Of::Weight => call.by_weight(x, w, y),
        _ => call.by_pixels(of, [x, w, y], bias),
    }
}

/// A convolution that tensor cores may take. Channels are those of a group.
struct Call<'a> {
    cuda: &'a Cuda,
    op: &'static str,
    conv: &'a Conv2d,
    dtype: &'static str,
    groups: usize,
    outputs: usize,
    inputs: usize,
    kernel: [usize; 2],
}

impl Call<'_> {
    /// What all have: batches are groups, and the result has its own strides.
    fn product(&self, [m, n, k]: [usize; 3], result: &View, of_group: i64) -> Result<Product> {
        let mut p = Product::new(self.cuda, [m, n, k], &Shape::new(&[self.groups])?);
        p.c = Matrix::of(result);
        p.c.batches[0] = of_group;
        Ok(p)
    }

    /// Outputs, or the gradient by the input: of that the pixels whose numbers leave one residue meet the same taps.
    fn by_pixels(&self, of: Of, [x, w, y]: [&View; 3], bias: Option<&View>) -> Result<bool> {
        let forward = of == Of::Output;
        let (from, to) = if forward { (x, y) } else { (y, x) };
        let apart = if forward { [1, 1] } else { self.conv.stride };
        if apart[0].saturating_mul(apart[1]) > MOST_RESIDUES {
            return Ok(false);
        }
        let Some((source, _memory)) = image(self.cuda, self.op, from, self.groups, false)? else { return Ok(false) };
        for residue in (0..apart[0]).flat_map(|y| (0..apart[1]).map(move |x| [y, x])) {
            let taps = [0, 1].map(|d| match forward {
                true => Taps::forward(self.conv, d, self.kernel[d]),
                false => Taps::backward(self.conv, d, self.kernel[d], residue[d]),
            });
            if !self.of_residue(forward, (residue, apart, taps), source, w, to, bias)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The pixels of a result from one on, so many apart.
    fn of_residue(
        &self,
        forward: bool,
        (residue, apart, taps): ([usize; 2], [usize; 2], [Taps; 2]),
        source: Source,
        w: &View,
        to: &View,
        bias: Option<&View>,
    ) -> Result<bool> {
        let (n, places) = if forward { (self.outputs, self.inputs) } else { (self.inputs, self.outputs) };
        let [images, _, height, width] = extents(to);
        let [height, width] =
            [(height, 0), (width, 1)].map(|(extent, d)| extent.saturating_sub(residue[d]).div_ceil(apart[d]));
        let channels = places.next_multiple_of(ELEMENTS);
        let [m, k] = [images * height * width, taps[0].count * taps[1].count * channels];
        if m == 0 || k >= MOST {
            return Ok(m == 0);
        }
        let form = (self.groups, !forward, channels);
        let Some((b, _memory)) = weights(self.cuda, self.op, w, form, taps)? else { return Ok(false) };
        let s = to.layout.strides;
        let offset = to.layout.offset + residue[0] * s[2] + residue[1] * s[3];
        let result = to.with_layout(Layout { offset, ..to.layout });
        let mut p = self.product([m, n, k], &result, n as i64 * to.stride(1))?;
        (p.b, p.c.columns) = (b, to.stride(1));
        p.bias = bias.map_or(Matrix::default(), Matrix::of_columns);
        let strides = [to.stride(0), to.stride(2) * apart[0] as i64, to.stride(3) * apart[1] as i64];
        let conv = TensorConv {
            p,
            source: source.under(taps),
            pixels: [Divisor::new(width), Divisor::new(height)],
            rows: Places::new(height, width, strides),
            columns: Places::new(1, n, [0, 0, to.stride(1)]),
        };
        launch(self.cuda, self.op, ("conv", self.dtype), &conv, None)?;
        Ok(true)
    }

    /// The gradient by the weight.
    fn by_weight(&self, x: &View, w: &View, y: &View) -> Result<bool> {
        let taps = [0, 1].map(|d| Taps::forward(self.conv, d, self.kernel[d]));
        let [images, _, height, width] = extents(y);
        let channels = self.inputs.next_multiple_of(ELEMENTS);
        let [m, n, k] = [self.outputs, self.kernel[0] * self.kernel[1] * channels, images * height * width];
        if n.max(m * n) >= MOST {
            return Ok(false);
        }
        let Some((g, _g)) = image(self.cuda, self.op, y, self.groups, true)? else { return Ok(false) };
        let Some((source, _x)) = image(self.cuda, self.op, x, self.groups, false)? else { return Ok(false) };
        let s = [0, 1, 2, 3].map(|d| w.stride(d));
        let mut p = self.product([m, n, k], w, m as i64 * s[0])?;
        p.a = Matrix { at: g.at, columns: g.columns, ..Matrix::default() };
        p.a.batches[0] = g.groups;
        let conv = TensorConv {
            p,
            source: source.under(taps),
            pixels: [Divisor::new(width), Divisor::new(height)],
            rows: Places::new(1, m, [0, 0, s[0]]),
            columns: Places { limit: self.inputs as u32, ..Places::new(self.kernel[1], channels, [s[2], s[3], s[1]]) },
        };
        launch(self.cuda, self.op, ("weight", self.dtype), &conv, Some(PIXELS))?;
        Ok(true)
    }
}
