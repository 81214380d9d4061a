//! Parameters of the networks, and of the small CNN by name.

use binade_cpu as _;
use binade_models::{Gpt, GptConfig, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, UNet, UNetConfig, Vit, VitConfig};
use binade_nn::Module;

fn main() -> binade_nn::Result<()> {
    let cnn = SmallCnn::new(&SmallCnnConfig::default())?;
    for (name, param) in cnn.named_parameters() {
        println!("{name:<10} {:?}", param.shape());
    }
    let counts = [
        ("small CNN", cnn.parameter_count()),
        ("ResNet-18", ResNet::new(&ResNetConfig::default())?.parameter_count()),
        ("ViT", Vit::new(&VitConfig::default())?.parameter_count()),
        ("GPT", Gpt::new(&GptConfig::default())?.parameter_count()),
        ("U-Net", UNet::new(&UNetConfig::default())?.parameter_count()),
    ];
    for (name, count) in counts {
        println!("{name:<10} {count:>10} values");
    }
    Ok(())
}
