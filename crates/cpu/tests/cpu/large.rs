//! Outputs that no cache keeps, which some kernels write past the caches.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Backward, Norm, NormKind};
use binade_tensor::{Array, Class, DType, Device, Op, Request, run};

/// Rows of 4000 bytes, of which every other one starts inside a cache line; together 50 MB, halves 25.
const SHAPE: [usize; 2] = [12_500, 1000];

fn array(device: &Device, dims: &[usize], seed: usize) -> Array {
    let values: Vec<f32> =
        (0..dims.iter().product::<usize>()).map(|i| ((i * 7919 + seed) % 1009) as f32 * 0.01 - 5.0).collect();
    Array::from_slice(device, &values, dims, Class::Activations).unwrap()
}

/// The first outputs of softmax and its gradient, layer norm and its gradient, on some rows.
fn results(device: &Device, rows: std::ops::Range<usize>) -> Vec<Vec<u32>> {
    let part = |x: &Array| x.with_layout(x.layout().narrow(0, rows.start, rows.len())).unwrap();
    let (x, g) = (part(&array(device, &SHAPE, 1)), part(&array(device, &SHAPE, 2)));
    let [w, b] = [3, 4].map(|seed| array(device, &SHAPE[1..], seed));
    let all = |op: Op, ins: &[&Array]| run(Request::new(&op, ins, device, DType::F32, Class::Activations)).unwrap();
    let norm = Norm { kind: NormKind::Layer { dims: 1 }, eps: 1e-5, affine: true, act: None };
    let y = all(Op::Softmax { dim: 1, log: false }, &[&x]).remove(0);
    let dx = all(Op::Backward(Backward::Softmax { dim: 1, log: false }), &[&g, &y]).remove(0);
    let normed = all(Op::Norm(norm), &[&x, &w, &b]);
    let normed_dx = all(Op::Backward(Backward::Norm(norm)), &[&g, &x, &w, &normed[1], &normed[2]]).remove(0);
    [&y, &dx, &normed[0], &normed_dx]
        .map(|a| a.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect())
        .to_vec()
}

#[test]
fn rows_of_a_large_output_have_the_bits_they_have_in_a_small_one() {
    for isa in Isa::available() {
        let device = Device::new(Cpu::with_isa(isa));
        let half = SHAPE[0] / 2;
        let (all, first, second) =
            (results(&device, 0..SHAPE[0]), results(&device, 0..half), results(&device, half..SHAPE[0]));
        for (i, (all, (first, second))) in all.iter().zip(first.iter().zip(&second)).enumerate() {
            assert!(all[..first.len()] == first[..] && all[first.len()..] == second[..], "{} result {i}", isa.name());
        }
    }
}
