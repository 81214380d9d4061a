//! Fused operators beside their definition in primitives, both on the device.

use binade_cuda::interpreted;
use binade_tensor::{Array, Class, DType, Device, Op, run_one};

use crate::common::{all_there, operators, outs};

fn values(array: &Array) -> Vec<f64> {
    array.to(&Device::cpu()).unwrap().to_f64_vec().unwrap()
}

#[test]
fn fused_operators_equal_their_definition_in_primitives() {
    /// Roundings of sums that are cut differently, relative to the largest element.
    const ALLOWED: f64 = 2e-5;
    let (host, device) = (Device::cpu(), Device::new(interpreted().unwrap()));
    let mut compared = 0;
    for op in operators() {
        // The smallest that has some elements: the definition has many steps.
        let samples = op.samples(&host, DType::F32);
        let size = |ins: &&Vec<Array>| ins.iter().map(|a| a.numel()).sum::<usize>();
        let Some(ins) = samples.iter().filter(|ins| size(ins) > 20).min_by_key(size) else { continue };
        let metas: Vec<_> = ins.iter().map(|a| a.meta()).collect();
        let Some(program) = op.compose(&metas).unwrap() else { continue };
        let ins = all_there(&device, ins).unwrap();
        let step = |op: &Op, ins: &[&Array], want| run_one(op, ins, &device, want, Class::Activations);
        let composed = program.run(&ins, step).unwrap_or_else(|e| panic!("{op:?}: {e}"));
        let (composed, fused) = (values(&composed[0]), values(&outs(&op, &ins, &device, DType::F32).unwrap()[0]));
        let largest = fused.iter().filter(|v| v.is_finite()).fold(1.0, |m: f64, v| m.max(v.abs()));
        assert_eq!(composed.len(), fused.len(), "{op:?}");
        for (c, f) in composed.iter().zip(&fused) {
            let same = (c - f).abs() <= ALLOWED * largest || c.is_nan() && f.is_nan() || c == f;
            assert!(same, "{op:?}: {f} fused, {c} composed");
        }
        compared += 1;
    }
    assert!(compared > 100, "{compared} operators");
}
