//! Convolutions, transposed convolutions, sliding windows and pooling.

use binade_tensor::op::{Conv2d, Epilogue, Numerics, PadMode, Pool, PoolKind, Scatter, Unary};
use binade_tensor::{Array, Class, DType, Error as TensorError, Op, Shape};

use super::composed;
use crate::constants::kept;
use crate::{Result, Var, apply};

/// Geometry of a 3-d convolution; triples are (depth, height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv3d {
    /// Step of the window.
    pub stride: [usize; 3],
    /// Zeros added on both sides.
    pub padding: [usize; 3],
    /// Distance between taps.
    pub dilation: [usize; 3],
    /// Number of groups of channels.
    pub groups: usize,
}

impl Default for Conv3d {
    fn default() -> Self {
        Conv3d { stride: [1; 3], padding: [0; 3], dilation: [1; 3], groups: 1 }
    }
}

/// Convolutions. All accumulate in f32; in an autocast region they run in the region's dtype.
impl Var {
    /// `act(conv2d(self, weight) + bias)`: self `[N, C, H, W]`, weight `[O, C/groups, KH, KW]`, bias `[O]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn conv2d(&self, weight: &Var, bias: Option<&Var>, conv: Conv2d, act: Option<Unary>) -> Result<Var> {
        let op = Op::Conv2d(conv, Epilogue { bias: bias.is_some(), act });
        match bias {
            Some(bias) => apply(op, &[self, weight, bias]),
            None => apply(op, &[self, weight]),
        }
    }

    /// Convolution of `[N, C, L]` with a weight `[O, C/groups, K]` and bias `[O]`. The first entry of each pair of
    /// `conv` is for the dimension of extent 1 that is added: leave it at its default.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn conv1d(&self, weight: &Var, bias: Option<&Var>, conv: Conv2d) -> Result<Var> {
        self.flat("conv1d", weight)?.conv2d(&weight.unsqueeze(2)?, bias, conv, None)?.squeeze(2)
    }

    /// Transposed convolution of `[N, C, L]` with a weight `[C, O/groups, K]` and bias `[O]`; `conv` as for
    /// [`Var::conv1d`].
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn conv_transpose1d(
        &self,
        weight: &Var,
        bias: Option<&Var>,
        conv: Conv2d,
        output_padding: usize,
    ) -> Result<Var> {
        let x = self.flat("conv_transpose1d", weight)?;
        x.conv_transpose2d(&weight.unsqueeze(2)?, bias, conv, [0, output_padding])?.squeeze(2)
    }

    fn flat(&self, op: &'static str, weight: &Var) -> Result<Var> {
        if self.shape().rank() != 3 || weight.shape().rank() != 3 {
            let expected = "expected x [N, C, L] and a weight of three dimensions".into();
            return Err(TensorError::Shape { op, expected, shapes: vec![*self.shape(), *weight.shape()] }.into());
        }
        self.unsqueeze(2)
    }

    /// Transposed convolution of `[N, C, H, W]` with a weight `[C, O/groups, KH, KW]` and bias `[O]`: the adjoint of
    /// the convolution with geometry `conv`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn conv_transpose2d(
        &self,
        weight: &Var,
        bias: Option<&Var>,
        conv: Conv2d,
        output_padding: [usize; 2],
    ) -> Result<Var> {
        let op = Op::ConvTranspose2d { conv, output_padding, bias: bias.is_some() };
        match bias {
            Some(bias) => apply(op, &[self, weight, bias]),
            None => apply(op, &[self, weight]),
        }
    }

    /// Convolution of `[N, C, D, H, W]` with a weight `[O, C/groups, KD, KH, KW]` and bias `[O]`: the depth taps become
    /// channels of a 2-d convolution, so all products of one output are accumulated together.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn conv3d(&self, weight: &Var, bias: Option<&Var>, conv: Conv3d) -> Result<Var> {
        let (xs, ws) = (*self.shape(), *weight.shape());
        let fail = |expected: &str| TensorError::Shape {
            op: "conv3d",
            expected: format!("expected {expected}"),
            shapes: vec![xs, ws],
        };
        if xs.rank() != 5 || ws.rank() != 5 {
            return Err(fail("x [N, C, D, H, W] and a weight [O, C/groups, KD, KH, KW]").into());
        }
        let (n, c, taps) = (xs[0], xs[1], ws[2]);
        let [pad, stride, step] = [conv.padding[0], conv.stride[0], conv.dilation[0]];
        let span = step.checked_mul(taps.saturating_sub(1)).and_then(|reach| reach.checked_add(1));
        let padded = pad.checked_mul(2).and_then(|both| both.checked_add(xs[2]));
        let depth = match padded.zip(span).and_then(|(padded, span)| padded.checked_sub(span)) {
            Some(room) if stride > 0 && taps > 0 && step > 0 => room / stride + 1,
            Some(_) | None => return Err(fail("a kernel no larger than the padded image, steps of at least 1").into()),
        };
        let places =
            (0..depth).flat_map(|d| (0..taps).map(move |k| (d * stride + k * step) as i64)).collect::<Vec<_>>();
        let x = self
            .pad(&[0, 0, 0, 0, pad as isize, pad as isize], PadMode::Constant(0.0))?
            .index_select(2, &self.positions(&places)?)?;
        let extents = |dims: &[usize]| dims.iter().map(|&d| d as isize).collect::<Vec<_>>();
        let x = x.reshape(&extents(&[n, c, depth, taps, xs[3], xs[4]]))?.permute(&[0, 2, 1, 3, 4, 5])?;
        let x = x.reshape(&extents(&[n * depth, c * taps, xs[3], xs[4]]))?;
        let w = weight.reshape(&extents(&[ws[0], ws[1] * taps, ws[3], ws[4]]))?;
        let pair = |v: [usize; 3]| [v[1], v[2]];
        let plane = Conv2d {
            stride: pair(conv.stride),
            padding: pair(conv.padding),
            dilation: pair(conv.dilation),
            groups: conv.groups,
        };
        let y = x.conv2d(&w, bias, plane, None)?;
        let (h, w) = (y.shape()[2], y.shape()[3]);
        y.reshape(&extents(&[n, depth, ws[0], h, w]))?.permute(&[0, 2, 1, 3, 4])
    }

    fn positions(&self, places: &[i64]) -> Result<Var> {
        let numbers: Vec<usize> = places.iter().map(|&place| place as usize).collect();
        let make = || places.to_vec();
        Ok(Var::constant(kept(self.array().device(), "positions", &numbers, &[places.len()], make)?))
    }

    /// Sliding windows of `[N, C, H, W]` as columns `[N, C·KH·KW, L]` (PyTorch's unfold, im2col). `conv.groups` is
    /// unused.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn unfold(&self, kernel: [usize; 2], conv: Conv2d) -> Result<Var> {
        composed(Numerics::Neutral, [self], |[x]| x.unfolded(kernel, conv))
    }

    fn unfolded(&self, kernel: [usize; 2], conv: Conv2d) -> Result<Var> {
        let windows = windows("unfold", self.shape(), kernel, &conv)?;
        let [ph, pw] = conv.padding.map(|p| p as isize);
        let (n, c) = (self.shape()[0], self.shape()[1]);
        let x = self.pad(&[pw, pw, ph, ph], PadMode::Constant(0.0))?;
        let x = x.index_select(2, &self.positions(&taps(&conv, kernel, windows, 0)?)?)?;
        let x = x.index_select(3, &self.positions(&taps(&conv, kernel, windows, 1)?)?)?;
        let split = [n, c, kernel[0], windows[0], kernel[1], windows[1]].map(|d| d as isize);
        let columns = [n, c * kernel[0] * kernel[1], windows[0] * windows[1]].map(|d| d as isize);
        x.reshape(&split)?.permute(&[0, 1, 2, 4, 3, 5])?.reshape(&columns)
    }

    /// The adjoint of [`Var::unfold`]: columns `[N, C·KH·KW, L]` added where they came from in `[N, C, size]`.
    ///
    /// # Errors
    /// The columns are not those of such windows.
    pub fn fold(&self, size: [usize; 2], kernel: [usize; 2], conv: Conv2d) -> Result<Var> {
        composed(Numerics::Neutral, [self], |[x]| x.folded(size, kernel, conv))
    }

    fn folded(&self, size: [usize; 2], kernel: [usize; 2], conv: Conv2d) -> Result<Var> {
        let taps_count = Shape::new(&kernel)?.numel().max(1);
        let c = self.shape().get(1).copied().unwrap_or(0) / taps_count;
        let n = self.shape().first().copied().unwrap_or(0);
        let image = Shape::new(&[n, c, size[0], size[1]])?;
        let windows = windows("fold", &image, kernel, &conv)?;
        if **self.shape() != [n, c * taps_count, windows[0] * windows[1]] {
            let expected = format!("expected [N, C·{taps_count}, {}]", windows[0] * windows[1]);
            return Err(TensorError::Shape { op: "fold", expected, shapes: vec![*self.shape()] }.into());
        }
        let [kh, kw] = kernel;
        let split = [n, c, kh, kw, windows[0], windows[1]].map(|d| d as isize);
        let rows = [n, c, kh * windows[0], kw * windows[1]];
        let x = self.reshape(&split)?.permute(&[0, 1, 2, 4, 3, 5])?.reshape(&rows.map(|d| d as isize))?;
        let (h, w) = (size[0] + 2 * conv.padding[0], size[1] + 2 * conv.padding[1]);
        let add = |x: &Var, dim: usize, extent: usize, index: Var| -> Result<Var> {
            let mut shape = x.shape().to_vec();
            let mut column = [1isize; 4];
            column[dim] = shape[dim] as isize;
            let index = index.reshape(&column)?.expand(&shape)?;
            shape[dim] = extent;
            let zeros = Array::full(x.array().device(), x.dtype(), Shape::new(&shape)?, 0.0, Class::Activations)?;
            apply(Op::Scatter { kind: Scatter::Add, dim }, &[&Var::constant(zeros), &index, x])
        };
        let x = add(&x, 2, h, self.positions(&taps(&conv, kernel, windows, 0)?)?)?;
        let x = add(&x, 3, w, self.positions(&taps(&conv, kernel, windows, 1)?)?)?;
        x.narrow(2, conv.padding[0], size[0])?.narrow(3, conv.padding[1], size[1])
    }
}

/// Padded positions of all taps of all windows of one dimension, taps outermost.
fn taps(conv: &Conv2d, kernel: [usize; 2], windows: [usize; 2], d: usize) -> Result<Vec<i64>> {
    let at = |k: usize, o: usize| (o * conv.stride[d] + k * conv.dilation[d]) as i64;
    let taps = (0..kernel[d]).flat_map(|k| (0..windows[d]).map(move |o| at(k, o)));
    listed("unfold", kernel[d] * windows[d], taps)
}

/// So many positions, of which an image without elements may have any number.
fn listed(op: &'static str, count: usize, positions: impl Iterator<Item = i64>) -> Result<Vec<i64>> {
    let bytes = count.saturating_mul(size_of::<i64>());
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| TensorError::OutOfMemory { op, bytes, class: Class::Indices })?;
    list.extend(positions);
    Ok(list)
}

/// Number of windows per spatial dimension, so that all their elements can be counted.
fn windows(op: &'static str, x: &Shape, kernel: [usize; 2], conv: &Conv2d) -> Result<[usize; 2]> {
    // The same geometry as a convolution with one channel.
    let weight = Shape::new(&[1, 1, kernel[0], kernel[1]])?;
    if x.rank() == 4 {
        let meta =
            |shape: Shape| binade_tensor::Meta { dtype: DType::F32, layout: binade_tensor::Layout::contiguous(shape) };
        let image = Shape::new(&[1, 1, x[2], x[3]])?;
        let plain = Conv2d { groups: 1, ..*conv };
        if let Ok(outs) = Op::Conv2d(plain, Default::default()).outs(&[meta(image), meta(weight)], DType::F32) {
            let windows = [outs[0].shape()[2], outs[0].shape()[3]];
            Shape::new(&[x[1], kernel[0], kernel[1], windows[0], windows[1]])?;
            return Ok(windows);
        }
    }
    let expected = format!("expected an image [N, C, H, W] no smaller than the window {kernel:?}");
    Err(TensorError::Shape { op, expected, shapes: vec![*x] }.into())
}

/// Pooling.
impl Var {
    /// Max pooling of `[N, C, H, W]`.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn max_pool2d(&self, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Result<Var> {
        apply(Op::Pool(Pool::new(PoolKind::Max, kernel, stride, padding)), &[self])
    }

    /// Average pooling of `[N, C, H, W]`; padding counts, as in PyTorch.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn avg_pool2d(&self, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Result<Var> {
        apply(Op::Pool(Pool::new(PoolKind::Avg, kernel, stride, padding)), &[self])
    }

    /// Any pooling of `[N, C, H, W]`.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn pool2d(&self, pool: Pool) -> Result<Var> {
        apply(Op::Pool(pool), &[self])
    }

    /// Max pooling of `[N, C, L]`.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn max_pool1d(&self, kernel: usize, stride: usize, padding: usize) -> Result<Var> {
        self.pool1d("max_pool1d", Pool::new(PoolKind::Max, [1, kernel], [1, stride], [0, padding]))
    }

    /// Average pooling of `[N, C, L]`; padding counts.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn avg_pool1d(&self, kernel: usize, stride: usize, padding: usize) -> Result<Var> {
        self.pool1d("avg_pool1d", Pool::new(PoolKind::Avg, [1, kernel], [1, stride], [0, padding]))
    }

    fn pool1d(&self, op: &'static str, pool: Pool) -> Result<Var> {
        if self.shape().rank() != 3 {
            return Err(
                TensorError::Shape { op, expected: "expected [N, C, L]".into(), shapes: vec![*self.shape()] }.into()
            );
        }
        self.unsqueeze(2)?.pool2d(pool)?.squeeze(2)
    }

    /// The largest of nearly equal windows of the spatial dimensions of `[N, C, …]` (PyTorch's adaptive max pooling).
    /// The first of a window's largest elements gets its gradient.
    ///
    /// # Errors
    /// Not one extent per spatial dimension; an image without pixels.
    pub fn adaptive_max_pool(&self, size: &[usize]) -> Result<Var> {
        if size.is_empty() || size.len() + 2 != self.shape().rank() || self.shape()[2..].contains(&0) {
            let message =
                format!("takes one extent per spatial dimension of [N, C, …], got {size:?} for {:?}", self.shape());
            return Err(TensorError::Argument { op: "adaptive_max_pool", message }.into());
        }
        Shape::new(&[&self.shape()[..2], size].concat())?;
        composed(Numerics::Neutral, [self], |[x]| x.largest_of_windows(size))
    }

    /// The largest of a window is the largest of its rows' largest: one dimension at a time, the rows first.
    fn largest_of_windows(&self, size: &[usize]) -> Result<Var> {
        let mut x = self.clone();
        for (i, &out) in size.iter().enumerate().rev() {
            let (d, n) = (i + 2, self.shape()[i + 2]);
            // What is counted below.
            Shape::new(&[out.max(1), n + 1])?;
            let window = |o: usize| o * n / out..((o + 1) * n).div_ceil(out);
            let longest = (0..out).map(|o| window(o).len()).max().unwrap_or(1);
            // Shorter windows repeat their last element.
            let place = |o: usize, k: usize| (window(o).start + k).min(window(o).end - 1) as i64;
            let places = (0..out).flat_map(|o| (0..longest).map(move |k| place(o, k)));
            let places = listed("adaptive_max_pool", out * longest, places)?;
            let mut shape: Vec<isize> = x.shape().iter().map(|&d| d as isize).collect();
            shape.splice(d..=d, [out as isize, longest as isize]);
            x = x
                .index_select(d as isize, &self.positions(&places)?)?
                .reshape(&shape)?
                .max_dim(d as isize + 1, false)?
                .0;
        }
        Ok(x)
    }

    /// Dropout of whole channels (dimension 1) in training mode: what is kept is divided by 1 − p.
    ///
    /// # Errors
    /// `p` is outside 0 to 1; fewer than two dimensions.
    pub fn dropout_channels(&self, p: f64) -> Result<Var> {
        super::random::probability("dropout_channels", p)?;
        if !crate::scope::is_training() || p == 0.0 {
            return Ok(self.clone());
        }
        if self.shape().rank() < 2 {
            let expected = "expected [N, C, …]".into();
            return Err(TensorError::Shape { op: "dropout_channels", expected, shapes: vec![*self.shape()] }.into());
        }
        let mut shape = vec![1; self.shape().rank()];
        shape[..2].copy_from_slice(&self.shape()[..2]);
        composed(Numerics::Neutral, [self], |[x]| {
            let ones = Array::full(x.array().device(), x.dtype(), Shape::new(&shape)?, 1.0, Class::Activations)?;
            x.mul(&Var::constant(ones).dropout(p)?)
        })
    }
}
