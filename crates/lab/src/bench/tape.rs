//! The cost of recording.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use binade::autograd::Var;
use binade::tensor::{Array, Class, Device};
use binade::train::Precision;
use serde_json::json;

use super::cases::{Case, dtype};
use super::timing::{median, round};

/// Adds of two 4-element variables in a chain of 1,000, recorded and released, with or without a backward pass between.
/// `us_per_call` is all of it for one add, `record_us` the add alone.
pub fn adds(backward: bool, precision: Precision) -> Result<Case> {
    const CALLS: usize = 1000;
    let four = |v: f32| -> Result<Array> {
        let array = Array::from_slice(&Device::cpu(), &[v; 4], &[4], Class::Weights)?;
        Ok(array.cast(dtype(precision), Class::Weights)?)
    };
    // Ones and their opposites in turn: the sums are exact in every format.
    let (x, steps) = (Var::leaf(four(1.0)?), [Var::constant(four(1.0)?), Var::constant(four(-1.0)?)]);
    let chain = {
        let x = x.clone();
        move || (0..CALLS).try_fold(x.clone(), |y, i| y.add(&steps[i % 2]))
    };
    let recorded = Rc::new(RefCell::new(Vec::new()));
    let (all, checked) = (recorded.clone(), chain.clone());
    Ok(Case {
        name: if backward { "tape_add_backward" } else { "tape_add" }.into(),
        run: Box::new(move || {
            let start = Instant::now();
            let y = chain()?;
            recorded.borrow_mut().push(start.elapsed().as_secs_f64() * 1e6 / CALLS as f64);
            if backward {
                y.sum(&[], false)?.backward()?;
            }
            Ok(())
        }),
        check: Box::new(move || {
            let y = checked()?;
            ensure!(y.array().to_f64_vec()? == [1.0; 4], "the sum is wrong");
            let gradients = y.sum(&[], false)?.backward()?;
            let gradient = gradients.get(&x).map(Array::to_f64_vec).transpose()?;
            ensure!(gradient.as_deref() == Some(&[1.0; 4]), "the gradient is wrong: {gradient:?}");
            Ok(())
        }),
        flops: 0.0,
        rate: None,
        extra: Box::new(move |ms| {
            let record = median(&all.borrow());
            vec![("us_per_call", json!(round(ms * 1e3 / CALLS as f64))), ("record_us", json!(round(record)))]
        }),
    })
}
