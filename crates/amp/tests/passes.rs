//! How often a step reads gradients: alone in its binary, as the profile counts for all threads.

use binade_amp::{LossScale, Policy, StepOutcome, Training};
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_nn::{AdamW, Layer, Linear, Module, Optimizer, Result, Visitor};
use binade_tensor::{Array, Class, DType, profile};

#[test]
fn a_step_makes_one_pass_for_check_and_norm_and_one_for_the_rest() {
    for (dtype, scale) in
        [(DType::F32, LossScale::Off), (DType::F16, LossScale::Static(128.0)), (DType::BF16, LossScale::Off)]
    {
        let layer = scope::with_key(1, 0, || Linear::new(8, 4)).unwrap();
        let x = Var::constant(
            Array::from_slice(&scope::device().unwrap(), &[0.5f32; 16], &[2, 8], Class::Activations).unwrap(),
        );
        let mut t =
            Training::new(Optimizer::new(&layer, AdamW::default()).unwrap(), Policy::autocast(dtype), scale).unwrap();
        t.clip = Some(0.5);
        profile::start();
        let step = t.step(|| -> binade_amp::Result<Var> { Ok(layer.forward(&x)?.square()?.sum(&[], false)?) }).unwrap();
        let rows = profile::rows(&profile::stop());
        assert_eq!(step.outcome, StepOutcome::Applied);
        let passes: Vec<_> = rows.iter().filter(|r| r.name.ends_with("of 2 tensors")).collect();
        let mut names: Vec<&str> = passes.iter().map(|r| r.name.as_str()).collect();
        names.sort();
        assert_eq!(names, ["adamw of 2 tensors", "norm of 2 tensors"], "{dtype}");
        assert!(passes.iter().all(|r| r.calls == 1));
    }
    a_profile_names_the_layer_that_ran_forward_and_backward();
}

#[derive(Clone, Module)]
struct Pair {
    first: Linear,
    last: Linear,
}

impl Layer for Pair {
    fn run(&self, x: &Var) -> Result<Var> {
        self.last.forward(&self.first.forward(x)?.relu()?)
    }
}

/// Called by the other test: what runs at the same time would be recorded too.
fn a_profile_names_the_layer_that_ran_forward_and_backward() {
    let model =
        scope::with_key(1, 0, || -> Result<Pair> { Ok(Pair { first: Linear::new(8, 6)?, last: Linear::new(6, 4)? }) });
    let (model, x) = (model.unwrap(), Var::from_slice(&[0.5f32; 16], &[2, 8]).unwrap());
    profile::start_by(scope::path);
    model.forward(&x).unwrap().square().unwrap().sum(&[], false).unwrap().backward().unwrap();
    let rows = profile::rows(&profile::stop());
    for (layer, least) in [("first", 2), ("last", 3)] {
        let products = rows.iter().filter(|row| row.name.starts_with("matmul") && &*row.layer == layer);
        let calls: usize = products.map(|row| row.calls).sum();
        assert!(calls >= least, "{layer}: {calls} in {rows:?}");
    }
    assert!(rows.iter().any(|row| row.layer.is_empty() && row.name.starts_with("square")), "{rows:?}");
    assert!(rows.iter().all(|row| matches!(&*row.layer, "" | "first" | "last")), "{rows:?}");
}
