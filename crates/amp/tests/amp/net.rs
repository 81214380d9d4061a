//! A small network with one of each kind of layer that keeps something between steps, and a training of it.

use binade_amp::{LossScale, Policy, Result, Training};
use binade_autograd::{Var, scope};
use binade_nn::{
    AdamW, BatchNorm2d, Conv2d, Dropout, Ema, Layer as _, LayerNorm, Linear, Module, Optimizer, Plateau, Schedule,
    Visitor, state_dict,
};
use binade_tensor::op::{CrossEntropy, Unary};
use binade_tensor::{Array, Class, DType, Device};

#[derive(Clone, Module)]
pub struct Net {
    pub conv: Conv2d,
    pub norm: BatchNorm2d,
    pub drop: Dropout,
    pub middle: LayerNorm,
    pub head: Linear,
}

impl Net {
    pub fn new() -> Net {
        scope::with_key(3, 0, || Net {
            conv: Conv2d::same(1, 4, 3).unwrap(),
            norm: BatchNorm2d::new(4).unwrap(),
            drop: Dropout::new(0.25).unwrap(),
            middle: LayerNorm::new(64).unwrap(),
            head: Linear::new(64, 3).unwrap(),
        })
    }

    pub fn loss(&self) -> Result<Var> {
        let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        let x = Var::constant(Array::from_slice(&Device::cpu(), &x, &[2, 1, 4, 4], Class::Activations)?);
        let target = Var::constant(Array::from_slice(&Device::cpu(), &[0i64, 2], &[2], Class::Indices)?);
        let h = self.norm.forward(&self.conv.forward(&x)?)?.unary(Unary::Relu)?;
        let h = self.middle.forward(&self.drop.forward(&h.flatten(1)?)?)?;
        Ok(self.head.forward(&h)?.cross_entropy(&target, CrossEntropy::default())?)
    }
}

pub fn training(net: &Net, scale: LossScale) -> Training {
    let policy = if scale == LossScale::Off { Policy::OFF } else { Policy::autocast(DType::F16) };
    let mut training = Training::new(Optimizer::new(net, AdamW::default()).unwrap(), policy, scale).unwrap();
    training.clip = Some(1.0);
    training.schedule = Schedule::Exponential { gamma: 0.9 };
    training.ema = Some(Ema::new(net, 0.9).unwrap());
    training.seed = 0;
    training
}

/// Every bit that a step may change, but for the iteration and the loss scale.
pub fn state(net: &Net, t: &Training) -> Vec<u64> {
    let bits = |a: &Array| a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>();
    let mut out: Vec<u64> = state_dict(net).iter().flat_map(|(_, a)| bits(a)).collect();
    let optimizer = t.optimizers[0].state_dict().unwrap();
    out.extend(optimizer.tensors.iter().flat_map(|(_, a)| bits(a)).chain(optimizer.params.iter().map(|p| p.steps)));
    let ema = t.ema.as_ref().unwrap();
    out.extend(ema.averages().flat_map(|(_, a)| bits(a)));
    out.extend([ema.steps(), t.step]);
    out
}

/// A training with everything that has a state, under its own settings.
#[allow(dead_code)] // Not every file of tests needs it.
pub fn full_training(net: &Net, scale: LossScale) -> Training {
    let mut t = training(net, scale);
    t.seed = 9;
    t.plateau = Some(Plateau::new(0.5, 0).unwrap());
    t
}
