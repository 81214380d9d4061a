//! Modules, optimisers, averages and state dicts on another device.

use binade_autograd::{Gradients, Var, scope};
use binade_cpu as _;
use binade_nn::{
    AdamW, BatchNorm2d, Buffer, Ema, Error, Init, Layer, Linear, Module, Optimizer, Param, Result, Sgd, StepOutcome,
    Visitor, load_state_dict, read_safetensors, state_dict, write_safetensors,
};
use binade_tensor::remote::Remote;
use binade_tensor::{Array, Class, DType, Device, Shape};

fn device() -> Device {
    Device::new(Remote::over(&Device::cpu()))
}

#[derive(Clone, Module)]
struct Net {
    linear: Linear,
    norm: BatchNorm2d,
    tied: Param,
}

fn net() -> Net {
    let linear = Linear::new(2, 2).unwrap();
    Net { tied: linear.weight.clone(), linear, norm: BatchNorm2d::new(2).unwrap() }
}

fn values(module: &dyn Module) -> Vec<Vec<f64>> {
    state_dict(module).iter().map(|(_, a)| a.to_f64_vec().unwrap()).collect()
}

#[test]
fn a_module_moves_in_place_with_ties_buffers_and_identities() -> Result<()> {
    let (net, device) = (net(), device());
    let (before, ids) = (values(&net), net.parameters().iter().map(Param::id).collect::<Vec<_>>());
    let clone = net.clone();
    net.to(&device)?;
    assert!(state_dict(&net).iter().all(|(_, a)| *a.device() == device));
    assert!(clone.device() == Some(device.clone()), "a clone shares it");
    assert_eq!(net.tied.array().storage().id(), net.linear.weight.array().storage().id(), "what was tied is");
    assert_eq!(net.parameters().iter().map(Param::id).collect::<Vec<_>>(), ids);
    assert_eq!(values(&net), before);
    let storage = net.tied.array().storage().id();
    net.to(&device)?;
    assert_eq!(net.tied.array().storage().id(), storage, "what is there stays");
    Ok(())
}

#[test]
fn a_module_does_not_move_while_a_graph_or_gradients_hold_it() -> Result<()> {
    let (linear, device) = (Linear::new(2, 1)?, device());
    let x = Var::constant(Array::full(&Device::cpu(), DType::F32, Shape::new(&[1, 2])?, 1.0, Class::Activations)?);
    linear.to(&Device::cpu())?;
    let message = "weight cannot be moved: its gradients or a graph are in use; take the step or drop them first";
    let refused = |linear: &Linear| {
        let error = linear.to(&device).unwrap_err();
        assert!(matches!(error, Error::Held { .. }));
        assert_eq!(error.to_string(), message);
        assert!(*linear.weight.array().device() != device && linear.bias.as_ref().unwrap().device() != device);
    };
    let loss = linear.forward(&x)?.sum(&[], false)?;
    refused(&linear);
    let gradients = loss.backward()?;
    drop(loss);
    refused(&linear);
    drop(gradients);
    linear.to(&device)
}

#[test]
fn a_module_is_made_on_the_device_of_the_scope_with_the_same_values() -> Result<()> {
    let device = device();
    let made = |device: &Device| scope::with_device(device, || scope::with_key(3, 0, net));
    let there = made(&device);
    assert!(state_dict(&there).iter().all(|(_, a)| *a.device() == device));
    assert_eq!(values(&there), values(&made(&Device::cpu())));
    let truncated = Init::TruncatedNormal { mean: 0.0, std: 1.0 };
    assert!(*scope::with_device(&device, || truncated.array(&[3]))?.device() == device);
    Ok(())
}

#[test]
fn moments_masters_and_averages_follow_a_parameter() -> Result<()> {
    // Steps of 1, 2 and 3, with a move before the second.
    let run = |devices: [Device; 3]| -> Result<Vec<Vec<f64>>> {
        let start = Array::from_slice(&Device::cpu(), &[0.5f32, -1.5], &[2], Class::Weights)?
            .cast(DType::BF16, Class::Weights)?;
        let param = Param::new(start);
        let mut optimizer = Optimizer::new(&param, AdamW::default())?;
        let mut ema = Ema::new(&param, 0.5)?;
        for (device, gradient) in devices.iter().zip([1.0f32, 2.0, 3.0]) {
            param.to(device)?;
            let mut gradients = Gradients::default();
            gradients.insert(param.id(), Array::from_slice(device, &[gradient, -gradient], &[2], Class::Gradients)?);
            assert_eq!(optimizer.step(&gradients)?, StepOutcome::Applied);
            ema.update()?;
        }
        let all = optimizer.state_dict()?.tensors.into_iter().chain(ema.state_dict().tensors).chain(state_dict(&param));
        Ok(all.map(|(_, a)| a.to_f64_vec().unwrap()).collect())
    };
    let (cpu, there) = (Device::cpu(), device());
    assert_eq!(run([cpu.clone(), there, cpu.clone()])?, run([cpu.clone(), cpu.clone(), cpu])?);
    Ok(())
}

#[test]
fn gradients_of_another_device_are_an_error_that_changes_nothing() -> Result<()> {
    let device = device();
    let param = Param::new(Array::from_slice(&device, &[1.0f32], &[1], Class::Weights)?);
    let mut optimizer = Optimizer::new(&param, AdamW::default())?;
    let mut gradients = Gradients::default();
    gradients.insert(param.id(), Array::from_slice(&Device::reference(), &[1.0f32], &[1], Class::Gradients)?);
    let error = optimizer.step(&gradients).unwrap_err().to_string();
    assert_eq!(error, "adamw: tensors on different devices, remote and reference: move one with to()");
    assert_eq!(param.array().to_vec::<f32>()?, [1.0]);
    assert!(optimizer.steps().is_empty());
    Ok(())
}

#[test]
fn a_state_dict_loads_onto_the_device_of_the_module_and_files_are_of_none() -> Result<()> {
    let (here, there, device) = (net(), net(), device());
    there.to(&device)?;
    load_state_dict(&there, &state_dict(&here))?;
    assert!(there.device() == Some(device.clone()));
    assert_eq!(values(&there), values(&here));
    let path = std::env::temp_dir().join(format!("binade-devices-{}.safetensors", std::process::id()));
    write_safetensors(&path, &state_dict(&there), Default::default())?;
    let (read, _) = scope::with_device(&device, || read_safetensors(&path, Class::Weights))?;
    assert!(read.iter().all(|(_, a)| *a.device() == device));
    let again = net();
    load_state_dict(&again, &read)?;
    assert_eq!(values(&again), values(&here));
    std::fs::remove_file(&path).unwrap();
    Ok(())
}

#[test]
fn numbers_of_a_step_that_changed_are_few_and_written_by_the_device_or_uploaded_once() -> Result<()> {
    let remote = Remote::over(&Device::cpu());
    let device = Device::new(remote.clone());
    // Two groups, one pass each.
    let model = scope::with_device(&device, net);
    let mut optimizer = Optimizer::grouped(&model, |name, _| AdamW {
        weight_decay: if name.ends_with("weight") { 0.1 } else { 0.0 },
        ..AdamW::default()
    })?;
    let mut ema = Ema::new(&model, 0.5)?.without_warm_up();
    let mut step = |factor: f64| -> Result<(usize, usize)> {
        let mut gradients = Gradients::default();
        for param in model.parameters() {
            gradients.insert(param.id(), Array::full(&device, DType::F32, param.shape(), 1.0, Class::Gradients)?);
        }
        let before = remote.counts();
        optimizer.step_scaled(&gradients, factor)?;
        ema.update()?;
        let counts = remote.counts() - before;
        assert_eq!(counts.synchronisations, 0);
        Ok((counts.uploads, counts.operators))
    };
    step(1.0)?;
    // Adam's two corrections of each group are other numbers at each step, the average's rate is not.
    assert_eq!((step(1.0)?, step(1.0)?), ((0, 4), (0, 4)));
    // With the factor six are.
    assert_eq!(step(0.5)?, (1, 0));
    Ok(())
}

/// A parameter on each of two devices, with their gradients.
fn two_devices(there: &Device) -> (Vec<(String, Param)>, Gradients) {
    let (mut params, mut gradients) = (Vec::new(), Gradients::default());
    for (device, value) in [(&Device::cpu(), 2.0f32), (there, 4.0)] {
        let param = Param::new(Array::from_slice(device, &[value], &[1], Class::Weights).unwrap());
        gradients.insert(param.id(), Array::from_slice(device, &[1.0f32], &[1], Class::Gradients).unwrap());
        params.push((value.to_string(), param));
    }
    (params, gradients)
}

#[test]
fn an_optimiser_of_two_devices_keeps_the_numbers_of_both() -> Result<()> {
    let remote = Remote::over(&Device::cpu());
    let (params, gradients) = two_devices(&Device::new(remote.clone()));
    let mut optimizer = Optimizer::empty().with_group(params.clone(), Sgd { lr: 1.0, ..Sgd::default() })?;
    assert!(optimizer.device() == Some(Device::cpu()) && Optimizer::empty().device().is_none());
    optimizer.step_scaled(&gradients, 1.0)?;
    let before = remote.counts();
    optimizer.step_scaled(&gradients, 1.0)?;
    assert_eq!((remote.counts() - before).uploads, 0, "they are the same");
    assert_eq!((params[0].1.array().item()?, params[1].1.array().item()?), (0.0, 2.0));
    Ok(())
}

#[test]
fn averages_of_parameters_on_two_devices_are_made_on_each() -> Result<()> {
    #[derive(Module)]
    struct Both {
        here: Param,
        there: Param,
    }
    let device = device();
    let (params, _) = two_devices(&device);
    let both = Both { here: params[0].1.clone(), there: params[1].1.clone() };
    let mut ema = Ema::new(&both, 0.5)?.without_warm_up();
    for (_, param) in &params {
        let zero = Array::full(param.array().device(), DType::F32, param.shape(), 0.0, Class::Weights)?;
        param.array().copy_from(&zero)?;
    }
    ema.update()?;
    let found: Vec<f64> = ema.averages().map(|(_, average)| average.item().unwrap()).collect();
    assert_eq!(found, [1.0, 2.0]);
    assert!(ema.averages().all(|(param, average)| param.array().device() == average.device()));
    Ok(())
}

#[test]
fn the_count_of_batches_is_not_read() -> Result<()> {
    let remote = Remote::over(&Device::cpu());
    let norm = scope::with_device(&Device::new(remote.clone()), || BatchNorm2d::new(2))?;
    let shape = Shape::new(&[2, 2, 2, 2])?;
    let x = Array::full(&norm.device().unwrap(), DType::F32, shape, 1.0, Class::Activations)?;
    for _ in 0..3 {
        scope::no_grad(|| norm.forward(&Var::constant(x.clone())))?;
    }
    assert_eq!(remote.counts().synchronisations, 0);
    assert_eq!(norm.num_batches_tracked.array().to_vec::<i64>()?, [3]);
    Ok(())
}

#[test]
fn a_buffer_moves_by_itself() -> Result<()> {
    let (buffer, device) = (Buffer::new(Array::from_slice(&Device::cpu(), &[1.0f32], &[1], Class::Weights)?), device());
    buffer.to(&device)?;
    assert!(*buffer.array().device() == device);
    Ok(())
}
