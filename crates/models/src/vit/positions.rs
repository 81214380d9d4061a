//! Learned positions of a grid of patches, in between for a grid of another size.

use binade_autograd::{Var, scope};
use binade_nn::Result;
use binade_tensor::{Array, Class, DType};

/// Positions `[1, prefix + rows·columns, D]` of one grid for another: cubic with antialiasing, as timm takes it. In f32
/// whatever the policy is; the tokens in front keep theirs.
pub(super) fn resampled(positions: &Var, from: [usize; 2], to: [usize; 2], prefix: usize) -> Result<Var> {
    if from == to {
        return Ok(positions.clone());
    }
    // No rounding to 16 bit: the positions are few, and added to every image's tokens.
    scope::with_cast_rule(None, || {
        let d = positions.shape()[2] as isize;
        let [rows, columns, new_rows, new_columns] = [from[0], from[1], to[0], to[1]].map(|n| n as isize);
        let grid = positions.narrow(1, prefix, from[0] * from[1])?.cast(DType::F32)?;
        let map = |d: usize| -> Result<Var> {
            let array = Array::from_slice(
                positions.array().device(),
                &weights(from[d], to[d]),
                &[to[d], from[d]],
                Class::Activations,
            )?;
            Ok(Var::constant(array))
        };
        let y = map(0)?.matmul(&grid.reshape(&[rows, columns * d])?)?; // (rows', columns·D)
        let y = y.reshape(&[new_rows, columns, d])?.transpose(0, 1)?.reshape(&[columns, new_rows * d])?;
        let y = map(1)?.matmul(&y)?; // (columns', rows'·D)
        let y = y.reshape(&[new_columns, new_rows, d])?.transpose(0, 1)?.reshape(&[1, -1, d])?;
        let y = y.cast(positions.dtype())?;
        Ok(if prefix == 0 { y } else { Var::cat(&[&positions.narrow(1, 0, prefix)?, &y], 1)? })
    })
}

/// The weights `[to, from]` of one dimension: PyTorch's bicubic interpolation with `antialias=True`. Its kernel is that
/// of cubic convolution with a = −½ (Keys 1981), stretched where the grid shrinks, and its weights add up to 1.
fn weights(from: usize, to: usize) -> Vec<f32> {
    let scale = from as f64 / to as f64;
    let (support, stretch) = (2.0 * scale.max(1.0), scale.max(1.0));
    let mut all = vec![0.0; to * from];
    for (i, row) in all.chunks_mut(from).enumerate() {
        let centre = scale * (i as f64 + 0.5);
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let weight = |j: usize| cubic((j as f64 - centre + 0.5) / stretch);
        let total: f64 = (first..last).map(weight).sum();
        (first..last).for_each(|j| row[j] = (weight(j) / total) as f32);
    }
    all
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * A - 4.0 * A
    } else {
        0.0
    }
}
