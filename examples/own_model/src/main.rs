//! A model and data of one's own, trained in fp32, fp16 and bf16 and compared: `cargo run --release`.

use binade::nn;
use binade::prelude::*;

/// Two spirals of points in the plane: which one is a point on?
fn spirals(n: usize) -> binade::train::Result<InMemory> {
    let (mut inputs, mut labels) = (Vec::new(), Vec::new());
    for i in 0..n {
        let (class, radius) = (i % 2, (i as f32 * 0.618).fract());
        let angle = 6.0 * radius + class as f32 * std::f32::consts::PI;
        inputs.extend([radius * angle.cos(), radius * angle.sin()]);
        labels.push(class);
    }
    InMemory::classes(inputs, &[2], &labels)
}

#[derive(Clone, Module)]
struct Mlp {
    hidden: Vec<Linear>,
    head: Linear,
}

impl Layer for Mlp {
    fn run(&self, x: &Var) -> nn::Result<Var> {
        let h = self.hidden.iter().try_fold(x.clone(), |h, layer| layer.forward_act(&h, Unary::Relu))?; // (B, 64)
        self.head.forward(&h) // (B, 2)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (train_data, test_data) = spirals(4000)?.split_at(3200);
    let resume = std::env::args().any(|a| a == "--resume");
    let fit = Config { epochs: 15, batch_size: 64, lr: 5e-3, ..Config::default() };
    let config = RunConfig { name: "spirals".into(), fit, resume, ..RunConfig::default() };
    let build = || Ok(Mlp { hidden: vec![Linear::new(2, 64)?, Linear::new(64, 64)?], head: Linear::new(64, 2)? });
    let run = train(build, &Classify::new(2), &Splits::new(train_data, test_data), &config)?;
    println!("{} summaries in {}", run.summaries.len(), run.folder.display());
    Ok(())
}
