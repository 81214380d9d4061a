//! Losses of the parts of a step: how they are weighted, and how their values are read.

use binade_amp::{GradScaler, LossScale, Policy, Result, StepOutcome, Training};
use binade_autograd::Var;
use binade_cpu as _;
use binade_nn::{Optimizer, Param, Sgd};
use binade_tensor::remote::Remote;
use binade_tensor::{Array, Class, DType, Device};

fn param(device: &Device, values: &[f64], dtype: DType) -> Param {
    let array = Array::from_slice(device, values, &[values.len()], Class::Weights).unwrap();
    Param::new(array.cast(dtype, Class::Weights).unwrap())
}

fn training(param: &Param, scale: LossScale) -> Training {
    let optimizer = Optimizer::new(param, Sgd { lr: 1.0, ..Sgd::default() }).unwrap();
    Training::new(optimizer, Policy::OFF, scale).unwrap()
}

fn values(param: &Param) -> Vec<f64> {
    param.array().to_f64_vec().unwrap()
}

/// The sum of a parameter's elements times `factor`, in `dtype`.
fn loss(param: &Param, factor: f64, dtype: DType) -> Result<Var> {
    Ok((&param.var().sum(&[], false)? * factor)?.cast(dtype)?)
}

#[test]
fn a_loss_in_16_bit_is_weighted_in_f32() {
    // Four samples of a loss in f32, one of a loss in f16, of which the scale is the largest that a quarter of fits.
    let p = param(&Device::cpu(), &[2.0], DType::F32);
    let mut training = training(&p, LossScale::Static(131_072.0));
    let mut group = training.group();
    group.add(|| -> Result<_> { Ok((loss(&p, 1.0, DType::F32)?, 4.0)) }).unwrap();
    group.add(|| Ok((loss(&p, 6.0, DType::F16)?, 1.0))).unwrap();
    let step = group.step().unwrap();
    assert_eq!((step.outcome, step.loss), (StepOutcome::Applied, (4.0 * 2.0 + 12.0) / 5.0));
    assert_eq!(values(&p), [0.0]);
}

#[test]
fn a_loss_in_f64_is_weighted_in_f64() {
    let p = param(&Device::cpu(), &[0.0], DType::F64);
    let mut training = training(&p, LossScale::Off);
    training.clip = None;
    let step = training.step_over(&[(1.0, 3.0), (2.0, 1.0)], |&(factor, count)| -> Result<_> {
        Ok((loss(&p, factor, DType::F64)?, count))
    });
    assert_eq!(step.unwrap().outcome, StepOutcome::Applied);
    // The sum is divided as it is read, by a number in f32.
    let third = (1.0 / (4.0f64 / 3.0)) as f32 as f64;
    assert!((values(&p)[0] + (1.0 + 2.0 / 3.0) * third).abs() < 1e-14, "{:?}", values(&p));
}

#[test]
fn losses_of_several_dtypes_have_their_own_values() {
    let p = param(&Device::cpu(), &[1.0], DType::F32);
    let mut training = training(&p, LossScale::Off);
    let step = training.step_over(&[(2.0, DType::F16), (70_000.0, DType::F32)], |&(factor, dtype)| -> Result<_> {
        Ok((loss(&p, factor, dtype)?, 1.0))
    });
    assert_eq!(step.unwrap().loss, 35_001.0);
}

#[test]
fn losses_are_read_together_each_where_it_lies() {
    let mut reads = Vec::new();
    for parts in 1..=3 {
        let remote = Remote::over(&Device::cpu());
        let p = param(&Device::new(remote.clone()), &[1.0, 2.0], DType::F32);
        let mut training = training(&p, LossScale::Off);
        let mut group = training.group();
        for part in 1..=parts {
            let p = &p;
            // The second element of a vector.
            let loss = move || -> Result<_> { Ok(((&p.var() * part as f64)?.narrow(0, 1, 1)?, 1.0)) };
            group.add(loss).unwrap();
        }
        let before = remote.counts();
        assert_eq!(group.step().unwrap().loss, 2.0 * (1..=parts).sum::<i32>() as f64 / parts as f64);
        reads.push((remote.counts() - before).downloads);
    }
    assert_eq!((reads[0], reads[0]), (reads[1], reads[2]), "{reads:?}");
}

#[test]
fn a_loss_is_not_waited_for_when_it_is_scaled() {
    let remote = Remote::over(&Device::cpu());
    let p = param(&Device::new(remote.clone()), &[1.0, 2.0], DType::F32);
    let losses: Vec<Var> = (1..4).map(|i| loss(&p, i as f64, DType::F32).unwrap()).collect();
    for scale in [LossScale::Off, LossScale::dynamic()] {
        let (mut scaler, before) = (GradScaler::new(scale).unwrap(), remote.counts());
        losses.iter().for_each(|loss| drop(scaler.scale(loss).unwrap()));
        let counts = remote.counts() - before;
        assert_eq!((counts.synchronisations, counts.downloads), (0, 0));
    }
}
