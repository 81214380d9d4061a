//! The names that `#[derive(Module)]` gives.

use binade_cpu as _;
use binade_nn::{Linear, Module, Visitor};

#[derive(Module)]
struct Block {
    #[module(rename = "attn")]
    attention: Linear,
    layers: Vec<Linear>,
}

fn main() -> binade_nn::Result<()> {
    let block = Block { attention: Linear::new(4, 4)?, layers: vec![Linear::without_bias(4, 2)?] };
    for (name, _) in block.named_parameters() {
        println!("{name}");
    }
    Ok(())
}
