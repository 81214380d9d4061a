//! [`Limits`]: what a device reaches at most, by two operators that do nothing else.

use std::time::Instant;

use binade_tensor::op::{Binary, Distribution, MatMul};
use binade_tensor::{Array, Class, DType, Device, Key, Op, Request, Shape, run, run_one};
use serde::Serialize;

use crate::Result;

/// What a device reached: operators take at least their work over the one, and their bytes over the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Floating-point operations in a second, in thousand millions: of a product of two large matrices.
    pub gflops: f64,
    /// Bytes in a second, in thousand millions: read and written, of arrays larger than caches.
    pub gbytes: f64,
}

/// Rows and columns of the matrices.
const SIDE: usize = 1024;
/// Elements of the arrays.
const ELEMENTS: usize = 32 << 20;
/// Operands of so many bytes may lie in caches.
const CACHED: u64 = 32 << 20;
/// Each is run for so many seconds, and the best run counts.
const SECONDS: f64 = 0.3;

impl Limits {
    /// Measures a device with matrices of a dtype: half a second or a little more.
    ///
    /// # Errors
    /// There is not enough memory, or the dtype is no float.
    pub fn measure(device: &Device, dtype: DType) -> Result<Limits> {
        let matrix = |seed: u64| -> Result<Array> {
            let (distribution, shape) = (Distribution::Normal { mean: 0.0, std: 1.0 }, Shape::new(&[SIDE, SIDE])?);
            let op = Op::Random { distribution, shape, key: Key::new(seed, 0) };
            Ok(run_one(&op, &[], device, dtype, Class::Workspace)?)
        };
        let (a, b) = (matrix(1)?, matrix(2)?);
        let product = Op::MatMul(MatMul::default());
        let product = best(device, || run_one(&product, &[&a, &b], device, dtype, Class::Workspace))?;
        // In place: pages of memory that nobody touched before would be measured else.
        let mut long = Some(Array::full(device, DType::F32, Shape::new(&[ELEMENTS])?, 0.5, Class::Workspace)?);
        let halve = Op::Scalar { op: Binary::Mul, value: 0.5, reversed: false };
        let pass = best(device, || {
            let request = Request::new(&halve, &[], device, DType::F32, Class::Workspace);
            let made = run(Request { given: long.take().into_iter().collect(), ..request })?.swap_remove(0);
            long = Some(made.clone());
            Ok(made)
        })?;
        let flop = 2.0 * (SIDE as f64).powi(3);
        Ok(Limits { gflops: flop / product / 1e9, gbytes: 8.0 * ELEMENTS as f64 / pass / 1e9 })
    }

    /// The part of its limit that calls reached which took so many seconds together. Of small operands memory is no
    /// limit: they lie in caches.
    pub fn share(&self, calls: usize, work: f64, bytes: u64, seconds: f64) -> Option<f64> {
        let of_memory = if bytes / calls.max(1) as u64 > CACHED { bytes as f64 / 1e9 / self.gbytes } else { 0.0 };
        let least = (work / 1e9 / self.gflops).max(of_memory);
        (least > 0.0).then_some(least / seconds)
    }
}

/// Seconds of the fastest run.
fn best(device: &Device, mut run: impl FnMut() -> binade_tensor::Result<Array>) -> Result<f64> {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while best.is_infinite() || begin.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        let _out = run()?;
        device.sync()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
