//! Gradients of planes without eps whose 1/deviation is beyond the range: element by element, in units in which it is
//! not.

use super::feature_map_walk::Planes;
use super::feature_maps::groups_of;
use super::{fill_walk, workspace};
use crate::elementwise::before_activation;
use crate::kernel::{Context, Out};
use crate::operand::{Compute as _, Operand};
use crate::rows::write;
use binade_tensor::Result;
use binade_tensor::op::Norm;

/// As the gradient of other planes: `(g·w − mean(g·w) − x̂·mean(g·w·x̂))·rstd/unit` with x̂ = (x/unit − mean)·rstd, and
/// the sums of g·x̂ and g by weight and bias. `sets` has mean, 1/deviation and unit of each set of statistics.
pub(super) fn gradient_in_units(
    cx: Context<'_>,
    norm: &Norm,
    p: &Planes,
    [g, x]: [&Operand<'_>; 2],
    [w, b]: [Vec<f64>; 2],
    sets: &[[f64; 3]],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    let count = p.samples * p.channels * p.pixels;
    let mut room = workspace::<f64>(cx.pool, 2 * count)?;
    let (gs, xs) = room.as_mut_slice::<f64>()[..2 * count].split_at_mut(count);
    g.load(isa, 0, gs);
    x.load(isa, 0, xs);
    let groups = groups_of(norm, p);
    // Set and channel of an element.
    let place = |flat: usize| {
        let sample = flat / (p.channels * p.pixels);
        let channel = if p.last { flat % p.channels } else { flat / p.pixels % p.channels };
        let sample = if sets.len() > groups { sample } else { 0 };
        (sample * groups + channel / (p.channels / groups), channel)
    };
    for (flat, x) in xs.iter_mut().enumerate() {
        let [mean, rstd, unit] = sets[place(flat).0];
        *x = (*x / unit - mean) * rstd;
    }
    if let Some(act) = norm.act {
        for (flat, (g, hat)) in gs.iter_mut().zip(&*xs).enumerate() {
            let (channel, mut before) = (place(flat).1, [0.0]);
            before_activation(isa, act, &[*g], &mut [hat * w[channel] + b[channel]], &mut before);
            [*g] = before;
        }
    }
    let (mut sums, mut dw, mut db) = (vec![[0.0; 2]; sets.len()], vec![0.0; p.channels], vec![0.0; p.channels]);
    for (flat, (g, hat)) in gs.iter().zip(&*xs).enumerate() {
        let (set, channel) = place(flat);
        sums[set][0] += g * w[channel];
        sums[set][1] += g * w[channel] * hat;
        dw[channel] += g * hat;
        db[channel] += g;
    }
    let n = count as f64 / sets.len() as f64;
    for (flat, (g, hat)) in gs.iter_mut().zip(&*xs).enumerate() {
        let (set, channel) = place(flat);
        let ([_, rstd, unit], [shift, slope]) = (sets[set], sums[set]);
        *g = (*g * w[channel] - shift / n - hat * slope / n) * rstd / unit;
    }
    let dx = &*gs;
    fill_walk::<f64, _, ()>(
        cx,
        &mut outs[0],
        &p.walk,
        count,
        || (),
        |(), _, dtype, to| f64::store(isa, dx, to, dtype),
    )?;
    if norm.affine {
        write(isa, &dw, &mut outs[1]);
        write(isa, &db, &mut outs[2]);
    }
    Ok(())
}
