//! Parameters of the small CNN, by name.

use binade_models::{SmallCnn, SmallCnnConfig};
use binade_nn::Module;

fn main() -> binade_nn::Result<()> {
    let model = SmallCnn::new(&SmallCnnConfig::default())?;
    for (name, param) in model.named_parameters() {
        println!("{name:<10} {:?}", param.shape());
    }
    println!("{} values", model.parameter_count());
    Ok(())
}
