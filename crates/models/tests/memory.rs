//! What a training step takes at its peak, by the accounting of the device.

use binade_amp::{LossScale, Policy, Training};
use binade_autograd::{Var, scope};
use binade_models::{SmallCnn, SmallCnnConfig};
use binade_nn::{AdamW, Layer, Optimizer};
use binade_tensor::op::{CrossEntropy, Distribution};
use binade_tensor::{Array, Class, DType, Device, Key, Op, Shape, run_one};

#[test]
fn a_cnns_peak_is_at_its_last_pooling_and_holds_nothing_twice() {
    let (n, device) = (32, Device::cpu());
    let config = SmallCnnConfig { in_channels: 3, size: 32, ..SmallCnnConfig::default() };
    let model = scope::with_key(1, 0, || SmallCnn::new(&config)).unwrap();
    let shape = Shape::new(&[n, 3, 32, 32]).unwrap();
    let image = Op::Random { distribution: Distribution::Normal { mean: 0.0, std: 1.0 }, shape, key: Key::new(2, 1) };
    let x = Var::constant(run_one(&image, &[], &device, DType::F32, Class::Activations).unwrap());
    let labels: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
    let target = Var::constant(Array::from_slice(&device, &labels, &[n], Class::Indices).unwrap());
    let mut training = Training::new(Optimizer::new(&model, AdamW::default()), Policy::OFF, LossScale::Off).unwrap();
    let mut step =
        || training.step(|| Ok::<_, binade_amp::Error>(model.forward(&x)?.cross_entropy(&target, CrossEntropy::default())?));
    // The first step makes the optimiser's state.
    let _applied = step().unwrap();
    device.reset_peak_memory();
    let before = device.memory().live.iter().sum::<usize>();
    let _applied = step().unwrap();
    let peak = device.memory().peak_total - before;
    let pixels = |side: usize, channels: usize| 4 * n * side * side * channels;
    // Outputs of both first convolutions and their pooling, of both last ones, and the gradients by the last one's output, before and after pooling.
    let (first, last) = (pixels(32, 32 + 64) + pixels(16, 64), 2 * pixels(16, 128));
    let gradients = pixels(16, 128) + pixels(8, 128);
    // Of the weights only the linear layers' gradients exist by then; kernels have some scratch.
    let weights = 4 * (256 * 8192 + 11 * 256 + 10);
    let expected = first + last + gradients + weights;
    assert!((expected..expected + (1 << 20)).contains(&peak), "{peak} bytes at the peak, {expected} expected");
}
