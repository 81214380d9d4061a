//! What the tape promises: depth, memory, versions, precision.

use binade_cpu as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use binade_autograd::{Backward, CastPlan, CastRule, Error, Var, no_grad, scope};
use binade_tensor::op::{Numerics, Unary};
use binade_tensor::{Array, Class, DType, Op};

fn leaf(values: &[f32], shape: &[usize]) -> Var {
    Var::leaf(Array::from_slice(&scope::device().unwrap(), values, shape, Class::Weights).unwrap())
}

/// Contractions in one 16-bit dtype, f32 where an operator needs it.
#[derive(Debug)]
struct Low(DType);

impl CastRule for Low {
    fn wide_weight_gradients(&self) -> bool {
        false
    }

    fn plan(&self, op: &Op, _ins: &[DType]) -> binade_tensor::Result<CastPlan> {
        Ok(match op.numerics() {
            Numerics::Lower => CastPlan { inputs: Some(self.0), output: Some(self.0) },
            Numerics::F32 | Numerics::F32Out => CastPlan { inputs: None, output: Some(DType::F32) },
            Numerics::Promote | Numerics::Neutral | Numerics::Banned => CastPlan::default(),
        })
    }
}

fn low<T>(dtype: DType, f: impl FnOnce() -> T) -> T {
    scope::with_cast_rule(Some(Arc::new(Low(dtype))), f)
}

#[test]
fn a_chain_of_a_million_operators_runs_backward_and_is_dropped_without_recursion() {
    let x = leaf(&[1.0], &[1]);
    let one = Var::constant(x.array().clone());
    let mut y = x.clone();
    for _ in 0..1_000_000 {
        y = y.add(&one).unwrap();
    }
    // Kept, so that the drop still has the whole chain.
    assert_eq!(
        y.backward_with(Backward { keep_graph: true, ..Backward::default() }).unwrap().get(&x).unwrap().item().unwrap(),
        1.0
    );
    drop(y);
}

#[test]
fn a_saved_value_that_was_changed_in_place_is_a_named_error() {
    let x = leaf(&[2.0, 3.0], &[2]);
    let y = x.square().unwrap().sum(&[], false).unwrap();
    x.array()
        .copy_from(&Array::from_slice(&scope::device().unwrap(), &[5.0f32, 6.0], &[2], Class::Weights).unwrap())
        .unwrap();
    assert!(matches!(y.backward(), Err(Error::Changed { op: "square", .. })));
}

#[test]
fn a_second_backward_needs_the_values_kept() {
    let x = leaf(&[2.0], &[1]);
    let y = x.square().unwrap();
    let first = y.backward_with(Backward { keep_graph: true, ..Backward::default() }).unwrap();
    let second = y.backward().unwrap();
    assert_eq!(first.get(&x).unwrap().item().unwrap(), second.get(&x).unwrap().item().unwrap());
    assert!(matches!(y.backward(), Err(Error::Released { op: "square", .. })));
}

#[test]
fn nothing_is_recorded_under_no_grad_or_past_detach() {
    let x = leaf(&[2.0], &[1]);
    assert!(!no_grad(|| x.square()).unwrap().requires_grad());
    assert!(matches!(x.detach().square().unwrap().backward(), Err(Error::NoGraph)));
    // The flag comes back after a panic.
    let _ = std::panic::catch_unwind(|| no_grad(|| panic!("inside")));
    assert!(scope::is_grad_enabled());
}

#[test]
fn hooks_see_and_replace_the_gradient() {
    let x = leaf(&[3.0], &[1]);
    let y = x.square().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    y.register_hook(move |g| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Array::full(g.device(), g.dtype(), *g.shape(), 10.0, Class::Gradients)?))
    })
    .unwrap();
    let z = y.sum(&[], false).unwrap();
    assert_eq!(z.backward().unwrap().get(&x).unwrap().item().unwrap(), 60.0);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn operands_that_share_a_gradient_own_separate_copies() {
    let (a, b) = (leaf(&[1.0, 2.0], &[2]), leaf(&[3.0, 4.0], &[2]));
    let gradients = a.add(&b).unwrap().sum(&[], false).unwrap().backward().unwrap();
    assert_ne!(gradients.get(&a).unwrap().storage().id(), gradients.get(&b).unwrap().storage().id());
}

#[test]
fn widening_gives_the_bits_of_an_explicit_cast_and_saves_the_narrow_tensor() {
    let values: Vec<f32> = (0..96).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    for dtype in [DType::F16, DType::BF16] {
        let x = leaf(&values, &[8, 12]);
        let narrow = x.cast(dtype).unwrap();
        let implicit = low(dtype, || narrow.log_softmax(-1)).unwrap();
        let explicit = narrow.cast(DType::F32).unwrap().log_softmax(-1).unwrap();
        assert_eq!(implicit.dtype(), DType::F32);
        assert_eq!(implicit.array().to_vec::<f32>().unwrap(), explicit.array().to_vec::<f32>().unwrap());
        let gradient = |y: &Var| {
            y.square()
                .unwrap()
                .sum(&[], false)
                .unwrap()
                .backward_with(Backward { keep_graph: true, ..Backward::default() })
                .unwrap()
                .get(&x)
                .unwrap()
                .to_vec::<f32>()
                .unwrap()
        };
        assert_eq!(gradient(&implicit), gradient(&explicit));
    }
}

#[test]
fn gradients_of_a_weight_used_many_times_are_added_in_f32() {
    // 4,096 uses of gradient 1 + 2⁻¹⁰: a 16-bit sum would stall at 2,048 (f16) or 256 (bf16).
    let w = leaf(&[1.0], &[1, 1]);
    let x =
        Var::constant(Array::from_slice(&scope::device().unwrap(), &[1.0f32], &[1, 1], Class::Activations).unwrap());
    let total = low(DType::F16, || {
        let mut total: Option<Var> = None;
        for _ in 0..4096 {
            let y = x.matmul(&w).unwrap().cast(DType::F32).unwrap();
            total = Some(match total {
                Some(t) => t.add(&y).unwrap(),
                None => y,
            });
        }
        total.unwrap()
    });
    assert_eq!(total.backward().unwrap().get(&w).unwrap().item().unwrap(), 4096.0);
}

#[test]
fn a_weight_cast_is_made_once_per_region_and_not_kept_for_backward() {
    let device = scope::device().unwrap();
    let w = leaf(&vec![0.5; 64 * 64], &[64, 64]);
    let x =
        Var::constant(Array::full(&device, DType::F16, [2, 64].try_into().unwrap(), 1.0, Class::Activations).unwrap());
    let casts = Arc::new(Mutex::new(Vec::new()));
    let y = low(DType::F16, || {
        let y = x.matmul(&w).unwrap().add(&x.matmul(&w).unwrap()).unwrap();
        casts.lock().unwrap().extend(w.array().storage().derived(DType::F16, w.array().layout()));
        y
    });
    assert_eq!(casts.lock().unwrap().drain(..).count(), 1);
    assert!(w.array().storage().derived(DType::F16, w.array().layout()).is_none(), "the cache outlives its region");
    let gradient = y.sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(gradient.get(&w).unwrap().to_vec::<f32>().unwrap(), vec![4.0; 64 * 64]);
}

#[test]
fn an_error_names_operator_and_shapes() {
    let (a, b) = (leaf(&[1.0; 6], &[2, 3]), leaf(&[1.0; 8], &[2, 4]));
    assert_eq!(
        a.matmul(&b).unwrap_err().to_string(),
        "matmul: expected […, m, k] and […, k, n], got [2, 3] and [2, 4]"
    );
}

#[test]
fn fused_activations_equal_the_two_operators() {
    let (x, w, b) =
        (leaf(&[0.3, -0.7, 1.9, 0.2], &[2, 2]), leaf(&[1.0, -2.0, 0.5, 0.25], &[2, 2]), leaf(&[0.1, -0.1], &[2]));
    for act in [Unary::Relu, Unary::Gelu, Unary::Tanh] {
        let fused = x.linear(&w, Some(&b), Some(act)).unwrap();
        let composed = binade_autograd::apply(Op::Unary(act), &[&x.linear(&w, Some(&b), None).unwrap()]).unwrap();
        assert_eq!(fused.array().to_vec::<f32>().unwrap(), composed.array().to_vec::<f32>().unwrap());
        let gradient = |y: Var| {
            y.square().unwrap().sum(&[], false).unwrap().backward().unwrap().get(&w).unwrap().to_vec::<f32>().unwrap()
        };
        assert_eq!(gradient(fused), gradient(composed));
    }
}
