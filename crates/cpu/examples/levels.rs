//! The instruction sets of this processor, and a matrix product at each.

use std::time::Instant;

use binade_cpu::{Cpu, Isa, simd::vector_length};
use binade_tensor::{Device, Tensor, bf16};

fn main() -> binade_tensor::Result<()> {
    for isa in Isa::available() {
        let device = Device::new(Cpu::with_isa(isa));
        let x = Tensor::<bf16>::full(&device, 0.1, &[512, 512])?;
        let start = Instant::now();
        let y = x.matmul(&x)?;
        let time = start.elapsed();
        println!("{:8} {:2} numbers at a time: {} in {time:?}", isa.name(), vector_length(isa), y.to_vec()?[0]);
    }
    Ok(())
}
