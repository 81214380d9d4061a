//! Results that take the memory of an operand.

use binade_cuda::interpreted;
use binade_tensor::{Array, Class, DType, Device, Op, Request, run};

use crate::common::{all_there, bits, operators, outs, there};

/// Runs `op` with operand `at` given up; the result, and whether it took that operand's memory.
fn over(op: &Op, host: &[Array], at: usize, device: &Device, dtype: DType) -> (Array, bool) {
    // Operands before it are given up too, but kept here as well.
    let kept = all_there(device, host).unwrap();
    let mut given = kept[..at].to_vec();
    given.push(there(device, &host[at]).unwrap());
    let storage = given[at].storage().id();
    let rest: Vec<&Array> = kept[at + 1..].iter().collect();
    let request = Request::new(op, &rest, device, dtype, Class::Activations);
    let out = run(Request { given: given.into(), ..request }).unwrap().swap_remove(0);
    let taken = out.storage().id() == storage;
    (out, taken)
}

#[test]
fn a_result_written_over_an_operand_has_the_bits_of_one_with_memory_of_its_own() {
    let (host, device) = (Device::cpu(), Device::new(interpreted().unwrap()));
    let mut overwritten = 0;
    for op in operators() {
        for dtype in [DType::F32, DType::BF16] {
            // The first dense sample that is more than a few elements, and the first that is not in row-major order.
            let samples = op.samples(&host, dtype);
            let large = |ins: &&Vec<Array>| ins.first().is_some_and(|x| x.numel() > 100);
            let dense = samples.iter().filter(large).find(|ins| ins[0].layout().is_contiguous());
            let strided = samples.iter().filter(large).find(|ins| !ins[0].layout().is_contiguous());
            for ins in dense.into_iter().chain(strided) {
                let places: Vec<usize> = (0..ins.len()).filter(|&at| op.may_overwrite(at)).collect();
                if places.is_empty() {
                    continue;
                }
                let here = all_there(&device, ins).unwrap();
                let apart = bits(&outs(&op, &here, &device, dtype).unwrap()[0]).unwrap();
                for at in places {
                    let (found, taken) = over(&op, ins, at, &device, dtype);
                    assert!(bits(&found).unwrap() == apart, "{op:?} over operand {at}, {dtype}");
                    overwritten += usize::from(taken);
                }
            }
        }
    }
    assert!(overwritten > 500, "{overwritten} results took an operand's memory");
}
