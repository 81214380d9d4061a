//! Sums of many taps.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Backward, Interpolation, Resample};
use binade_tensor::testing::check_op;
use binade_tensor::{Array, Class, DType, Device, Layout, Op, Request, Shape, run};

fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).collect()
}

/// All equal, in memory in this order of dimensions.
fn equal(device: &Device, dtype: DType, shape: &[usize], order: &[usize], value: f32) -> Array {
    let values = vec![value; shape.iter().product()];
    let dense = Array::from_slice(device, &values, &[values.len()], Class::Activations).unwrap();
    let layout = Layout::with_order(Shape::new(shape).unwrap(), order);
    dense.cast(dtype, Class::Activations).unwrap().with_layout(layout).unwrap()
}

#[test]
fn one_element_that_makes_many_or_is_the_mean_of_many_loses_no_digits() {
    let interpolate = |mode| Resample::Interpolate { size: [150, 300, 1], mode, scale: None };
    let gradient =
        |mode| Op::Backward(Backward::Resample { map: interpolate(mode), shape: Shape::new(&[1, 2, 1, 1]).unwrap() });
    let mean = Op::Resample(Resample::AdaptiveAvg { size: [1, 1, 1] });
    let count = (150 * 300) as f64;
    for device in devices() {
        for order in [[0, 1, 2, 3], [0, 2, 3, 1], [0, 1, 3, 2]] {
            for (op, times) in [
                (gradient(Interpolation::Nearest), count),
                (gradient(Interpolation::Linear { align_corners: false }), count),
                (gradient(Interpolation::Cubic { align_corners: false }), count),
                (mean.clone(), 1.0),
            ] {
                let x = [equal(&device, DType::F32, &[1, 2, 150, 300], &order, 0.1)];
                let y = run(Request::new(&op, &[&x[0]], &device, DType::F32, Class::Activations)).unwrap();
                for y in y[0].to_f64_vec().unwrap() {
                    let off = (y / (f64::from(0.1f32) * times) - 1.0).abs();
                    assert!(off < 1e-6, "{op:?} in order {order:?}: off by {off:e}");
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_resampling_is_within_its_bound_whatever_cancels() {
    for device in devices() {
        for mode in [Interpolation::Nearest, Interpolation::Cubic { align_corners: true }] {
            for (dims, size) in [([3, 1, 1], [37, 30, 2]), ([1, 2, 1], [3, 500, 5]), ([2, 3, 4], [5, 4, 3])] {
                let shape = Shape::new(&[&[1, 2][..], &dims].concat()).unwrap();
                let map = Resample::Interpolate { size, mode, scale: None };
                let out = map.shape(&shape).unwrap();
                // Ones, and at the end of their opposites what is left.
                let n = out.numel();
                let g: Vec<f32> = (0..n).map(|i| if i < n / 2 { 1.1 } else { -1.1 + 1e-6 * (i % 7) as f32 }).collect();
                for dtype in [DType::F32, DType::F16, DType::F64] {
                    let g = Array::from_slice(&device, &g, &out, Class::Activations).unwrap();
                    let g = [g.cast(dtype, Class::Activations).unwrap()];
                    let op = Op::Backward(Backward::Resample { map, shape });
                    assert_eq!(check_op(&op, &g, &device, dtype).unwrap().1, None);
                }
            }
        }
    }
}
