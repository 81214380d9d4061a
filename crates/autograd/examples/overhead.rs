//! The cost of recording: adds of two 4-element variables in chains of 1,000, and their backward pass.

use binade_cpu as _;
use std::time::Instant;

use binade_autograd::{Result, Var};
use binade_tensor::{Array, Class, Device};

fn main() -> Result<()> {
    let x = Var::leaf(Array::from_slice(&Device::cpu(), &[1.0f32; 4], &[4], Class::Weights)?);
    let one = Var::constant(x.array().clone());
    const N: u32 = 1000;
    let (mut forward, mut total) = (vec![], vec![]);
    for _ in 0..301 {
        let start = Instant::now();
        let mut y = x.clone();
        for _ in 0..N {
            y = y.add(&one)?;
        }
        forward.push(start.elapsed() / N);
        y.sum(&[], false)?.backward()?;
        total.push(start.elapsed() / N);
    }
    forward.sort();
    total.sort();
    println!("medians: recorded add {:?}, with its backward and drop {:?}", forward[150], total[150]);
    Ok(())
}
