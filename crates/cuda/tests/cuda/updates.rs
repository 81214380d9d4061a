//! Multi-tensor passes: the bits of the CPU.

use std::sync::atomic::Ordering;

use binade_cuda::{Cuda, interpreted};
use binade_tensor::{Array, ArrayMut, Class, DType, Device, Error, Findings, Grad, Layout, Meta, Result, Slot, Update};

use crate::common::Faulty;

/// Sizes across the edge of a chunk.
const SIZES: [usize; 3] = [1, 700, 16_400];

fn all() -> Vec<Update> {
    let sgd = |momentum, nesterov| Update::Sgd { momentum, dampening: 0.1, weight_decay: 0.01, nesterov };
    let rms = |momentum, centered| Update::RmsProp { alpha: 0.9, eps: 1e-8, weight_decay: 0.01, momentum, centered };
    let adam = |decoupled| Update::Adam { betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.02, decoupled };
    vec![
        sgd(0.0, false),
        sgd(0.9, false),
        sgd(0.9, true),
        rms(0.0, false),
        rms(0.9, false),
        rms(0.9, true),
        adam(false),
        adam(true),
        Update::Ema,
        Update::Adagrad { weight_decay: 0.01, eps: 1e-10, initial: 0.1 },
        Update::Lion { betas: [0.9, 0.99], weight_decay: 0.1 },
        Update::Adafactor { decay: -0.8, eps: [1e-30, 1e-3], clip: 1.0, weight_decay: 0.01 },
    ]
}

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + seed * 13) as f32 * 0.37).sin()).collect()
}

fn array(device: &Device, dtype: DType, n: usize, seed: usize, class: Class) -> Array {
    Array::from_slice(device, &values(n, seed), &[n], class).unwrap().cast(dtype, class).unwrap()
}

fn bits(array: &Array) -> Vec<u64> {
    array.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect()
}

/// Three steps over parameters of some sizes; what they leave behind.
fn steps(device: &Device, update: &Update, dtype: DType, masters: bool) -> Result<Vec<Vec<u64>>> {
    let like = |n: usize, seed: usize, dtype| array(device, dtype, n, seed, Class::Weights);
    let params: Vec<Array> = SIZES.iter().map(|&n| like(n, 1, dtype)).collect();
    let copies: Vec<Option<Array>> = SIZES.iter().map(|&n| masters.then(|| like(n, 1, DType::F32))).collect();
    let states: Vec<Vec<Array>> = params
        .iter()
        .map(|param| {
            let of = |shape| Meta { dtype: DType::F32, layout: Layout::contiguous(shape) };
            let shapes = update.states(param.shape());
            shapes.into_iter().map(|shape| Array::alloc(device, of(shape), Class::Optimizer).unwrap()).collect()
        })
        .collect();
    for step in 1..=3u64 {
        let grads: Vec<Array> = SIZES.iter().map(|&n| like(n, 1 + step as usize, dtype)).collect();
        let scalars: Vec<f32> = update.scalars(0.01, step, 0.5).into_iter().map(|v| v as f32).collect();
        let scalars = Array::from_slice(device, &scalars, &[scalars.len()], Class::Optimizer).unwrap();
        let name = update.name();
        let mut slots: Vec<Slot<'_>> = (0..SIZES.len())
            .map(|i| Slot {
                param: Some(ArrayMut::new(name, &params[i]).unwrap()),
                master: copies[i].as_ref().map(|master| ArrayMut::new(name, master).unwrap()),
                grad: Grad::Read(&grads[i]),
                state: states[i].iter().map(|state| ArrayMut::new(name, state).unwrap()).collect(),
                first: step == 1,
            })
            .collect();
        update.run(&scalars, &mut slots)?.wait()?;
    }
    Ok(params.iter().chain(copies.iter().flatten()).chain(states.iter().flatten()).map(bits).collect())
}

/// Whether steps of optimisers have the CPU's bits.
pub fn optimisers(device: &Device, of: impl Fn(&Update) -> bool) -> std::result::Result<(), String> {
    let cpu = Device::cpu();
    for update in all().into_iter().filter(of) {
        for (dtype, masters) in [(DType::F32, false), (DType::BF16, true), (DType::F16, false)] {
            let told = |device| steps(device, &update, dtype, masters).map_err(|e| format!("{update:?} {dtype}: {e}"));
            if told(device)? != told(&cpu)? {
                return Err(format!("{update:?} {dtype}, masters: {masters}: other bits"));
            }
        }
    }
    Ok(())
}

#[test]
fn steps_of_optimisers_have_the_cpus_bits() {
    let cuda = interpreted().unwrap();
    optimisers(&Device::new(cuda.clone()), |_| true).unwrap();
    assert_eq!(cuda.counts().fallbacks.into_keys().collect::<Vec<_>>(), ["adafactor"]);
}

/// A pass over gradients alone: what it finds and leaves.
fn over_gradients(
    device: &Device,
    update: &Update,
    scalar: f32,
    dtype: DType,
    huge: bool,
) -> Result<(Findings, Vec<Vec<u64>>)> {
    let grads: Vec<Array> = SIZES.iter().map(|&n| array(device, dtype, n, 4, Class::Gradients)).collect();
    if huge {
        grads[1].copy_from(&Array::from_slice(device, &[f32::MAX; 700], &[700], Class::Gradients).unwrap()).unwrap();
    }
    let scalars = Array::from_slice(device, &[scalar], &[1], Class::Optimizer).unwrap();
    let mut slots: Vec<Slot<'_>> = grads
        .iter()
        .map(|grad| {
            let grad = if *update == Update::Norm {
                Grad::Read(grad)
            } else {
                Grad::Write(ArrayMut::new("grad", grad).unwrap())
            };
            Slot { param: None, master: None, grad, state: vec![], first: false }
        })
        .collect();
    let found = update.run(&scalars, &mut slots)?.wait()?;
    drop(slots);
    Ok((found, grads.iter().map(bits).collect()))
}

/// Whether a pass over gradients finds and leaves what the CPU's does.
pub fn passes(device: &Device, update: &Update) -> std::result::Result<(), String> {
    let cpu = Device::cpu();
    for (dtype, huge) in [(DType::F32, false), (DType::BF16, false), (DType::F32, true)] {
        let fail = |what: &dyn std::fmt::Display| format!("{update:?} {dtype}, huge: {huge}: {what}");
        let run = |device| over_gradients(device, update, 3.0, dtype, huge).map_err(|e| fail(&e));
        let ((found, grads), (wanted, theirs)) = (run(device)?, run(&cpu)?);
        if grads != theirs {
            return Err(fail(&"other bits"));
        }
        // The other two check nothing.
        if matches!(update, Update::Norm | Update::Unscale) && (found != wanted || found.found_inf != huge) {
            return Err(fail(&format!("{found:?} is found, expected {wanted:?}")));
        }
    }
    Ok(())
}

#[test]
fn passes_over_gradients_find_and_leave_what_the_cpus_do() {
    let device = Device::new(interpreted().unwrap());
    for update in [Update::Norm, Update::Unscale, Update::Scale, Update::Clamp] {
        passes(&device, &update).unwrap();
    }
}

#[test]
fn a_pass_that_writes_needs_no_memory_and_one_that_finds_says_what_it_needs() {
    /// More than the memory that is kept holds at once.
    const TENSORS: usize = 500;
    let faulty = Faulty::default();
    let device = Device::new(Cuda::new(faulty.clone()).unwrap());
    let all = |seed| (0..TENSORS).map(|i| array(&device, DType::F32, 1 + i % 3, seed, Class::Weights)).collect();
    let (params, grads): (Vec<Array>, Vec<Array>) = (all(1), all(2));
    let scalars = Array::from_slice(&device, &[0.5f32, 1.0], &[2], Class::Optimizer).unwrap();
    faulty.full.store(true, Ordering::Relaxed);
    fn slot<'a>(param: Option<&'a Array>, grad: &'a Array) -> Slot<'a> {
        let param = param.map(|param| ArrayMut::new("sgd", param).unwrap());
        Slot { param, master: None, grad: Grad::Read(grad), state: vec![], first: true }
    }
    let mut slots: Vec<_> = grads.iter().map(|grad| slot(None, grad)).collect();
    let told = Update::Norm.run(&scalars, &mut slots).map(drop).unwrap_err();
    assert!(matches!(told, Error::OutOfMemory { op: "norm", bytes, .. } if bytes > 0), "{told:?}");
    let sgd = Update::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let before: Vec<Vec<f32>> = params.iter().map(|param| param.to_vec().unwrap()).collect();
    let mut slots: Vec<_> = params.iter().zip(&grads).map(|(param, grad)| slot(Some(param), grad)).collect();
    sgd.run(&scalars, &mut slots).unwrap().wait().unwrap();
    drop(slots);
    for ((param, before), grad) in params.iter().zip(before).zip(&grads) {
        let grad = grad.to_vec::<f32>().unwrap();
        let wanted: Vec<f32> = before.iter().zip(grad).map(|(p, g)| p - 0.5 * g).collect();
        assert_eq!(param.to_vec::<f32>().unwrap(), wanted);
    }
}
