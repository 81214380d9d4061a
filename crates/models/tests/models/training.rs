//! Every model trains: the same bits for any number of threads, losses that fall, and the number of weights of the
//! originals.

use crate::common::{Subject, bits, subject};
use binade_amp::{LossScale, Policy, Training};
use binade_autograd::scope;
use binade_cpu as _;
use binade_models::{
    Airbench, AirbenchConfig, Gpt, GptConfig, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, UNet, UNetConfig, Vit,
    VitConfig,
};
use binade_nn::{AdamW, Module, Optimizer, state_dict};
use binade_tensor::DType;

const NAMES: [&str; 5] = ["small_cnn", "resnet", "vit", "gpt", "unet"];

/// The state after some steps, and their losses.
fn train(name: &str, policy: Policy, steps: usize) -> (Vec<Vec<u64>>, Vec<f64>) {
    let Subject { model, loss } = scope::with_key(5, 0, || subject(name));
    let rule = AdamW { lr: 1e-2, ..AdamW::default() };
    let mut training = Training::new(Optimizer::new(&model, rule).unwrap(), policy, LossScale::Static(64.0)).unwrap();
    training.clip = Some(1.0);
    let losses = (0..steps).map(|_| training.step(&loss).unwrap().loss).collect();
    (state_dict(&model).iter().map(|(_, a)| bits(a)).collect(), losses)
}

#[test]
fn whole_steps_give_the_same_bits_for_any_number_of_threads() {
    for name in NAMES.into_iter().chain(["airbench"]) {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(name, Policy::autocast(DType::BF16), 2))
        };
        let one = with(1);
        for threads in [2, 3, 8] {
            assert!(with(threads) == one, "{name} with {threads} threads");
        }
    }
}

#[test]
fn losses_fall_in_every_precision() {
    for name in NAMES {
        for policy in [Policy::OFF, Policy::autocast(DType::F16), Policy::autocast(DType::BF16)] {
            let (_, losses) = train(name, policy.clone(), 12);
            assert!(
                losses.iter().all(|l| l.is_finite()) && losses[11] < 0.9 * losses[0],
                "{name} {policy:?}: {losses:?}"
            );
        }
    }
}

#[test]
fn parameter_counts_are_those_of_the_originals() {
    let cnn = SmallCnnConfig { in_channels: 3, size: 32, ..SmallCnnConfig::default() };
    let counts = [
        SmallCnn::new(&cnn).unwrap().parameter_count(),
        Airbench::new(&AirbenchConfig::default()).unwrap().parameter_count(),
        ResNet::new(&ResNetConfig::default()).unwrap().parameter_count(),
        Vit::new(&VitConfig::default()).unwrap().parameter_count(),
        Gpt::new(&GptConfig::default()).unwrap().parameter_count(),
        UNet::new(&UNetConfig::default()).unwrap().parameter_count(),
    ];
    // Counted in PyTorch from the classes of `torch_bench.py`.
    assert_eq!(counts, [2_340_810, 1_971_640, 11_173_962, 2_693_578, 10_770_816, 6_472_195]);
}
