//! What a training step takes at its peak, by the accounting of the device.

use binade_amp::{LossScale, Policy, Training};
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_models::{SmallCnn, SmallCnnConfig};
use binade_nn::{AdamW, Layer, Optimizer};
use binade_tensor::op::{CrossEntropy, Distribution};
use binade_tensor::{Array, Class, DType, Key, Op, Shape, run_one};

/// Bytes at the peak of the second step on `n` images, above those before it: the first one makes the optimiser's
/// state.
fn peak(config: &SmallCnnConfig, n: usize) -> usize {
    let device = scope::device().unwrap();
    let model = scope::with_key(1, 0, || SmallCnn::new(config)).unwrap();
    let shape = Shape::new(&[n, config.in_channels, config.size, config.size]).unwrap();
    let images = Op::Random { distribution: Distribution::Normal { mean: 0.0, std: 1.0 }, shape, key: Key::new(2, 1) };
    let x = Var::constant(run_one(&images, &[], &device, DType::F32, Class::Activations).unwrap());
    let labels: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
    let target = Var::constant(Array::from_slice(&device, &labels, &[n], Class::Indices).unwrap());
    let mut training =
        Training::new(Optimizer::new(&model, AdamW::default()).unwrap(), Policy::OFF, LossScale::Off).unwrap();
    let loss = || Ok::<_, binade_amp::Error>(model.forward(&x)?.cross_entropy(&target, CrossEntropy::default())?);
    let _applied = training.step(loss).unwrap();
    device.reset_peak_memory();
    let before = device.memory().live.iter().sum::<usize>();
    let _applied = training.step(loss).unwrap();
    device.memory().peak_total - before
}

#[test]
fn a_cnns_peak_is_at_its_last_pooling_and_holds_nothing_twice() {
    let n = 64;
    // Few hidden features: the gradients of linear layers need little scratch.
    let config = SmallCnnConfig { in_channels: 3, size: 32, fc: 16, ..SmallCnnConfig::default() };
    // Each thread has scratch of its own.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let peak = threads.install(|| peak(&config, n));
    let pixels = |side: usize, channels: usize| 4 * n * side * side * channels;
    // Outputs of both first convolutions and their pooling, of both last ones, and the gradients by the last one's
    // output, before and after pooling.
    let (first, last) = (pixels(32, 32 + 64) + pixels(16, 64), 2 * pixels(16, 128));
    let gradients = pixels(16, 128) + pixels(8, 128);
    // Of the weights only the linear layers' gradients exist by then.
    let weights = 4 * (16 * 8192 + 11 * 16 + 10);
    let expected = first + last + gradients + weights;
    assert!((expected..expected + (1 << 20)).contains(&peak), "{peak} bytes at the peak, {expected} expected");
}
