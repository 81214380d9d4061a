//! What the machine could do at most: fused multiply-adds on registers, with nothing else in the loop.

use std::hint::black_box;
use std::time::Instant;

use binade::cpu::Isa;
use binade::cpu::simd::{Kernel, Lanes, dispatch};

/// A chain on each of so many registers: as many as two units of four cycles' latency and more keep busy.
const CHAINS: usize = 12;
const ROUNDS: usize = 1 << 22;

struct MultiplyAdd;

impl Kernel<f32> for MultiplyAdd {
    /// Operations done.
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> f64 {
        let (factor, mut sums) = (black_box(L::splat(0.999)), [L::splat(1.0); CHAINS]);
        let addend = black_box(L::splat(1e-3));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, addend);
            }
        }
        black_box(sums);
        (2 * L::N * CHAINS * ROUNDS) as f64
    }
}

/// GFLOP/s in f32 of all threads together, the best of some rounds. Tiles (AMX) do more in 16 bit.
pub fn gflops() -> f64 {
    let round = || {
        let start = Instant::now();
        let done: f64 = rayon::broadcast(|_| dispatch(Isa::detect(), MultiplyAdd)).into_iter().sum();
        done / start.elapsed().as_secs_f64() / 1e9
    };
    (0..10).map(|_| round()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_processor_does_something() {
        assert!(super::gflops() > 0.1);
    }
}
