//! Tensors on a device that runs late behind memory the host cannot see.

use binade_autograd::{Backward, Error, Result, Rotary, Var, apply, checkpoint, grad, scope};
use binade_cpu as _;
use binade_tensor::remote::Remote;
use binade_tensor::samples::catalogue;
use binade_tensor::{Array, Class, DType, Device, Error as TensorError, Op};

fn remote() -> (Remote, Device) {
    let remote = Remote::over(&Device::cpu());
    (remote.clone(), Device::new(remote))
}

fn leaf(device: &Device, values: &[f32]) -> Var {
    Var::leaf(Array::from_slice(device, values, &[values.len()], Class::Weights).unwrap())
}

/// Result and gradients of an operator on some inputs; `None` where it has no gradient.
fn passes(op: &Op, ins: &[Array]) -> Option<Vec<Array>> {
    let leaf = |a: &Array| if a.dtype().is_float() { Var::leaf(a.clone()) } else { Var::constant(a.clone()) };
    let vars: Vec<Var> = ins.iter().map(leaf).collect();
    let y = apply(op.clone(), &vars.iter().collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    if !y.requires_grad() || y.array().numel() == 0 {
        return None;
    }
    let ones = Array::full(y.array().device(), y.dtype(), *y.shape(), 1.0, Class::Gradients).unwrap();
    let gradients = match y.backward_with(Backward::from(&ones)) {
        // A mask that is a leaf.
        Err(Error::NotDifferentiable { .. }) => return None,
        result => result.unwrap_or_else(|e| panic!("{op:?}: {e}")),
    };
    let mut all: Vec<Array> = vars.iter().filter_map(|v| gradients.get(v).cloned()).collect();
    all.push(y.array().clone());
    Some(all)
}

#[test]
fn no_operator_waits_between_forward_and_backward_and_gradients_have_the_same_bits() {
    let cpu = Device::cpu();
    let mut checked = 0;
    for op in catalogue().iter().filter(|op| !matches!(op, Op::Backward(_))) {
        let (remote, device) = remote();
        for dtype in [DType::F32, DType::BF16] {
            // Samples in other memory orders and with gaps are checked below autograd.
            let samples = op.samples(&device, dtype).into_iter().zip(op.samples(&cpu, dtype)).take(2);
            for (ours, theirs) in samples {
                let before = remote.counts();
                let Some(found) = passes(op, &ours) else { continue };
                let counts = remote.counts() - before;
                let transfers = counts.uploads + counts.downloads;
                assert_eq!((counts.synchronisations, transfers), (0, 0), "{op:?} in {dtype}");
                let expected = passes(op, &theirs).unwrap();
                assert_eq!(found.len(), expected.len(), "{op:?}");
                for (a, b) in found.iter().zip(&expected) {
                    let bits = |a: &Array| a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>();
                    assert!(bits(a) == bits(b), "{op:?} in {dtype}");
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "{checked} operators");
}

#[test]
fn what_is_made_for_a_tensor_is_made_where_it_is() -> Result<()> {
    let (_, device) = remote();
    let x = Var::constant(Array::from_slice(&device, &[0.25f32, 0.5, 0.75, 1.0], &[2, 2], Class::Activations)?);
    let classes = Var::constant(Array::from_slice(&device, &[1i64, 0], &[2], Class::Indices)?);
    let made = [
        x.tril(0)?,
        x.triu(0)?,
        classes.one_hot(3)?,
        x.bernoulli()?,
        x.multinomial(1, true)?,
        x.multinomial(2, false)?,
        x.slice(0, 0, 2, 2)?,
        x.rotary(0, 10_000.0, Rotary::Halves)?,
        x.index(&[&classes])?,
        x.masked_select(&x.compare_scalar(binade_tensor::op::Compare::Gt, 0.3)?)?,
        x.dropout(0.5)?,
    ];
    for y in made {
        assert!(*y.array().device() == device);
        y.array().to_f64_vec()?;
    }
    assert_eq!(x.slice(0, 0, 2, 2)?.array().to_vec::<f32>()?, [0.25, 0.5]);
    Ok(())
}

#[test]
fn the_scope_says_where_what_has_no_operands_is_made() -> Result<()> {
    let (_, device) = remote();
    scope::with_device(&device, || -> Result<()> {
        let made =
            [Var::arange(0, 3)?, Var::normal(0.0, 1.0, &[2])?, Var::randperm(4)?, Var::from_slice(&[1.0f32], &[1])?];
        assert!(made.iter().all(|v| *v.array().device() == device));
        Ok(())
    })?;
    assert!(*Var::arange(0, 3)?.array().device() != device, "the scope is left");
    Ok(())
}

#[test]
fn operators_of_two_devices_name_both_and_what_to_do() -> Result<()> {
    let (_, device) = remote();
    let here = leaf(&Device::reference(), &[1.0, 2.0]);
    let error = here.add(&leaf(&device, &[1.0, 2.0])).unwrap_err();
    assert_eq!(error.to_string(), "add: tensors on different devices, reference and remote: move one with to()");
    assert!(matches!(error, Error::Tensor { error: TensorError::Device { .. }, .. }));
    assert_eq!(here.to(&device)?.add(&leaf(&device, &[1.0, 2.0]))?.array().to_vec::<f32>()?, [2.0, 4.0]);
    Ok(())
}

#[test]
fn the_gradient_of_a_moved_tensor_comes_back_to_where_it_was() -> Result<()> {
    let (_, device) = remote();
    let x = leaf(&Device::reference(), &[1.0, 2.0]);
    // Two uses there, one here: the sum is made here.
    let there = x.to(&device)?;
    let loss = there.mul(&there)?.to(&Device::reference())?.add(&x)?.sum(&[], false)?;
    let gradients = loss.backward()?;
    let gradient = gradients.get(&x).unwrap();
    assert!(*gradient.device() == Device::reference());
    assert_eq!(gradient.to_vec::<f32>()?, [3.0, 5.0]);
    // Gradients of gradients pass through as well: d/dx (3x²) = 6x.
    let there = x.to(&device)?;
    let cube = there.mul(&there)?.mul(&there)?.to(&Device::reference())?.sum(&[], false)?;
    let first = grad(&cube, &[&x], None, true)?.remove(0).unwrap();
    let second = first.sum(&[], false)?.backward()?;
    assert_eq!(second.get(&x).unwrap().to_vec::<f32>()?, [6.0, 12.0]);
    Ok(())
}

#[test]
fn a_move_inside_what_is_run_again_is_made_again() -> Result<()> {
    let (_, device) = remote();
    let x = leaf(&Device::reference(), &[1.0, 2.0]);
    let to = device.clone();
    let y = checkpoint(move |ins| ins[0].to(&to)?.square(), &[&x])?;
    assert!(*y.array().device() == device);
    let gradients = y.sum(&[], false)?.backward()?;
    assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>()?, [2.0, 4.0]);
    Ok(())
}
