//! Every operator with every extent 0: the result within its bound, by the device itself.

use std::collections::BTreeMap;

use binade_cuda::{ON_HOST, interpreted};
use binade_tensor::op::Backward;
use binade_tensor::testing::{Exact, empties};
use binade_tensor::{Array, DType, Device, Op};

use crate::common::{all_there, operators};

/// The smallest sample of each combination of ranks: the layouts of the others do not matter without elements.
fn small(samples: Vec<Vec<Array>>) -> Vec<Vec<Array>> {
    let ranks = |ins: &Vec<Array>| ins.iter().map(|a| a.shape().rank()).collect::<Vec<_>>();
    let size = |ins: &Vec<Array>| ins.iter().map(|a| a.numel()).sum::<usize>();
    let mut smallest = BTreeMap::<Vec<usize>, Vec<Array>>::new();
    for ins in samples {
        let kept = smallest.entry(ranks(&ins)).or_insert_with(|| ins.clone());
        if size(&ins) < size(kept) {
            *kept = ins;
        }
    }
    smallest.into_values().collect()
}

#[test]
fn what_has_nothing_to_compute_with_has_its_result_from_the_device() {
    let (host, cuda) = (Device::cpu(), interpreted().unwrap());
    let device = Device::new(cuda.clone());
    let (mut failures, mut results) = (Vec::new(), 0);
    for op in operators() {
        for ins in small(op.samples(&host, DType::F32)) {
            for (op, ins) in empties(&op, &ins).unwrap() {
                // The sample's log-sum-exp is that of other scores: autograd's registry has this gradient.
                let scoreless = matches!(op, Op::Backward(Backward::Attention { .. }));
                if scoreless && ins[1].numel() == 0 && ins[0].numel() > 0 {
                    continue;
                }
                // What is inconsistent is refused before a device sees it.
                let Ok(exact) = Exact::of(&op, &ins) else { continue };
                match exact.check(&op, &all_there(&device, &ins).unwrap(), &device, DType::F32) {
                    Ok((_, None)) => results += 1,
                    Ok((_, Some(failure))) => failures.push(failure),
                    Err(error) => failures.push(format!("{op:?}: {error}")),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of them: {:#?}", failures.len(), &failures[..failures.len().min(20)]);
    assert!(results > 1000, "{results} results");
    let known = |name: &&str| ON_HOST.iter().any(|(known, _)| known == name);
    let unexpected: Vec<&str> = cuda.counts().fallbacks.into_keys().filter(|name| !known(name)).collect();
    assert!(unexpected.is_empty(), "run by the host: {unexpected:?}");
}
