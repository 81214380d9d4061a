//! How many instructions of lanes the interpreter executes in a second, with every check on: `cargo xtask ptx speed`.
//! The best of some runs, on one core.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use binade_cpu as _;
use binade_cuda::{Cuda, Interpreted};
use binade_tensor::op::{Attention, Binary, Distribution, MatMul, Unary};
use binade_tensor::{Array, Class, DType, Device, Key, Op, Request, Shape, run};

/// Runs of each operator.
const RUNS: usize = 5;

fn normal(device: &Device, dims: &[usize], stream: u64) -> Result<Array, binade_tensor::Error> {
    let distribution = Distribution::Normal { mean: 0.0, std: 1.0 };
    let op = Op::Random { distribution, shape: Shape::new(dims)?, key: Key::new(5, stream) };
    binade_tensor::run_one(&op, &[], device, DType::F32, Class::Activations)
}

fn main() -> Result<(), Box<dyn Error>> {
    let interpreter = Interpreted::default();
    let device = Device::new(Cuda::new(interpreter.clone())?);
    let attention = Attention { causal: true, ..Attention::default() };
    let cases: [(&str, Op, Vec<Vec<usize>>); 5] = [
        ("product 192 × 192 × 192", Op::MatMul(MatMul::default()), vec![vec![192, 192]; 2]),
        ("softmax 256 × 500", Op::Softmax { dim: 1, log: false }, vec![vec![256, 500]]),
        ("add 400 × 500", Op::Binary(Binary::Add), vec![vec![400, 500]; 2]),
        ("gelu 400 × 500", Op::Unary(Unary::Gelu), vec![vec![400, 500]]),
        ("attention, causal, 4 heads, 96 × 96 × 32", Op::Attention(attention), vec![vec![1, 4, 96, 32]; 3]),
    ];
    for (name, op, shapes) in cases {
        let ins = shapes.iter().zip(1..).map(|(dims, i)| normal(&device, dims, i)).collect::<Result<Vec<_>, _>>()?;
        let ins: Vec<&Array> = ins.iter().collect();
        let mut best = 0.0f64;
        let mut instructions = 0;
        // The first run reads the PTX.
        for i in 0..=RUNS {
            let (before, start) = (interpreter.executed().1.lane_instructions, Instant::now());
            run(Request { ins: &ins, ..Request::new(&op, &[], &device, DType::F32, Class::Activations) })?;
            instructions = interpreter.executed().1.lane_instructions - before;
            if i > 0 {
                best = best.max(instructions as f64 / start.elapsed().as_secs_f64());
            }
        }
        let (millions, rate) = (instructions as f64 / 1e6, best / 1e6);
        writeln!(std::io::stdout(), "{name}: {millions:.1} M lane instructions, {rate:.0} M a second")?;
    }
    Ok(())
}
