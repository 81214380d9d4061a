//! Every model in small, with a loss over a fixed batch, on the scope's device.

use binade_amp::Result;
use binade_autograd::Var;
use binade_models::{
    Airbench, AirbenchConfig, Gpt, GptConfig, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, UNet, UNetConfig, Vit,
    VitConfig,
};
use binade_nn::{Layer, Module};
use binade_tensor::Array;
use binade_tensor::op::{CrossEntropy, Reduction};

/// A model and its loss.
pub struct Subject {
    pub model: Box<dyn Module>,
    pub loss: Box<dyn Fn() -> Result<Var>>,
}

fn values(dims: &[usize]) -> Result<Var> {
    let x: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i as f32 * 0.7).sin()).collect();
    Ok(Var::from_slice(&x, dims)?)
}

fn indices(dims: &[usize], below: i64) -> Result<Var> {
    let x: Vec<i64> = (0..dims.iter().product::<usize>() as i64).map(|i| i * 7 % below).collect();
    Ok(Var::from_slice(&x, dims)?)
}

fn classifier<M: Layer + Module + Clone + 'static>(model: M, channels: usize, size: usize) -> Subject {
    let own = model.clone();
    let loss = move || {
        let y = own.forward(&values(&[2, channels, size, size])?)?;
        Ok(y.cross_entropy(&indices(&[2], 3)?, CrossEntropy::default())?)
    };
    Subject { model: Box::new(model), loss: Box::new(loss) }
}

/// The model of a name; call it under a key.
pub fn subject(name: &str) -> Subject {
    match name {
        "small_cnn" => {
            let config = SmallCnnConfig { channels: [4, 4, 6, 6], fc: 8, classes: 3, ..SmallCnnConfig::default() };
            classifier(SmallCnn::new(&config).unwrap(), 1, 8)
        }
        "airbench" => {
            let config = AirbenchConfig { size: 10, widths: [4, 4, 6], classes: 3, ..AirbenchConfig::default() };
            classifier(Airbench::new(&config).unwrap(), 3, 10)
        }
        "resnet" => {
            let config = ResNetConfig { blocks: vec![1, 1], classes: 3, ..ResNetConfig::default() }.with_width(4);
            classifier(ResNet::new(&config).unwrap(), 3, 8)
        }
        "vit" => {
            let config = VitConfig { size: [8; 2], depth: 2, classes: 3, ..VitConfig::default() }.with_width(16, 2);
            classifier(Vit::new(&config).unwrap(), 3, 8)
        }
        "gpt" => {
            let small =
                GptConfig { vocabulary: 11, context: 8, features: 16, depth: 2, heads: 2, ..GptConfig::default() };
            let model = Gpt::new(&small).unwrap();
            let own = model.clone();
            let loss = move || {
                let y = own.forward(&indices(&[2, 8], 11)?)?.reshape(&[16, 11])?;
                Ok(y.cross_entropy(&indices(&[16], 11)?, CrossEntropy::default())?)
            };
            Subject { model: Box::new(model), loss: Box::new(loss) }
        }
        // As few operations as there can be, for devices that are slow.
        "small_unet" => unet(vec![1, 1], 4),
        _ => unet(vec![1, 2], 8),
    }
}

fn unet(levels: Vec<usize>, size: usize) -> Subject {
    let config = UNetConfig { base: 32, levels, blocks: 1, attention: vec![1], ..UNetConfig::default() };
    let model = UNet::new(&config).unwrap();
    let own = model.clone();
    let loss = move || {
        let y = own.forward(&values(&[1, 3, size, size])?, &indices(&[1], 1000)?)?;
        Ok(y.mse_loss(&values(&[1, 3, size, size])?, Reduction::Mean)?)
    };
    Subject { model: Box::new(model), loss: Box::new(loss) }
}

/// Bits of an array.
pub fn bits(a: &Array) -> Vec<u64> {
    a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect()
}
