//! The backend that runs late behind memory the host cannot see: the same results, errors that arrive late, counts.

use binade_tensor::op::{Binary, Scatter, Unary};
use binade_tensor::remote::Remote;
use binade_tensor::samples::catalogue;
use binade_tensor::{
    Array, ArrayMut, Class, DType, Device, Error, Grad, Op, Request, Result, Shape, Slot, Update, run, run_one,
};

fn array(device: &Device, values: &[f32]) -> Array {
    Array::from_slice(device, values, &[values.len()], Class::Activations).unwrap()
}

fn remote() -> (Remote, Device) {
    let remote = Remote::new();
    (remote.clone(), Device::new(remote))
}

/// The elements' bytes: NaNs too are compared by their bits.
fn bits(array: &Array) -> Vec<u8> {
    array.device().download(&array.contiguous(Class::Workspace).unwrap()).unwrap()
}

#[test]
fn every_operator_gives_the_bits_of_the_reference() {
    let ((_, device), reference) = (remote(), Device::reference());
    let mut strided = 0;
    for op in catalogue() {
        for dtype in DType::FLOATS {
            let samples = op.samples(&device, dtype).into_iter().zip(op.samples(&reference, dtype));
            for (ours, theirs) in samples {
                strided += ours.iter().any(|a| !a.layout().is_dense()) as usize;
                let results = [(&ours, &device), (&theirs, &reference)].map(|(ins, device)| {
                    let ins: Vec<&Array> = ins.iter().collect();
                    let outs = run(Request::new(&op, &ins, device, dtype, Class::Activations));
                    outs.unwrap_or_else(|e| panic!("{op:?}: {e}"))
                });
                for (ours, theirs) in results[0].iter().zip(&results[1]) {
                    assert_eq!(ours.meta(), theirs.meta(), "{op:?}");
                    assert!(bits(ours) == bits(theirs), "{op:?} in {dtype}");
                }
            }
        }
    }
    assert!(strided > 100, "{strided} samples with gaps");
}

#[test]
fn results_are_written_over_operands_as_on_the_host() {
    let (_, device) = remote();
    let given = array(&device, &[1.0, 2.0]);
    let storage = given.storage().id();
    let op = Op::Scalar { op: Binary::Mul, value: 3.0, reversed: false };
    let request = Request::new(&op, &[], &device, DType::F32, Class::Activations);
    let out = &run(Request { given: [given].into_iter().collect(), ..request }).unwrap()[0];
    assert_eq!((out.storage().id(), out.to_vec::<f32>().unwrap()), (storage, vec![3.0, 6.0]));
}

#[test]
fn views_are_checked_and_whole_arrays_known_in_memory_of_a_device() {
    let (_, device) = remote();
    let x = array(&device, &[1.0, 2.0, 3.0, 4.0]);
    assert!(x.is_whole() && x.storage().size() == 16);
    let part = x.with_layout(x.layout().narrow(0, 1, 3)).unwrap();
    assert!(!part.is_whole());
    assert_eq!(part.to_vec::<f32>().unwrap(), [2.0, 3.0, 4.0]);
    let far = binade_tensor::Layout { offset: 2, ..*part.layout() };
    assert!(matches!(x.with_layout(far), Err(Error::Length { found: 4, .. })));
}

#[test]
fn nothing_runs_before_somebody_waits_and_one_wait_is_one_synchronisation() {
    let (remote, device) = remote();
    let x = array(&device, &[4.0, 9.0]);
    let y = run_one(&Op::Unary(Unary::Sqrt), &[&x], &device, DType::F32, Class::Activations).unwrap();
    let z = run_one(&Op::Binary(Binary::Add), &[&x, &y], &device, DType::F32, Class::Activations).unwrap();
    let counts = remote.counts();
    assert_eq!((counts.synchronisations, counts.uploads, counts.uploaded, counts.operators), (0, 1, 8, 2));
    assert_eq!(z.to_vec::<f32>().unwrap(), [6.0, 12.0]);
    device.sync().unwrap();
    let after = remote.counts() - counts;
    assert_eq!(
        (after.synchronisations, after.downloads, after.downloaded),
        (1, 1, 8),
        "there was nothing left to wait for"
    );
}

#[test]
fn an_error_of_a_kernel_arrives_at_the_next_wait_with_the_operator_and_once() {
    let (_, device) = remote();
    let table = Array::full(&device, DType::F32, Shape::new(&[3, 2]).unwrap(), 1.0, Class::Weights).unwrap();
    let index = Array::from_slice(&device, &[7i64], &[1], Class::Indices).unwrap();
    let rows = run_one(&Op::Embedding, &[&table, &index], &device, DType::F32, Class::Activations).unwrap();
    // It is queued behind the error, so it does not run.
    table.copy_from(&Array::full(&device, DType::F32, *table.shape(), 2.0, Class::Weights).unwrap()).unwrap();
    let error = rows.to_vec::<f32>().unwrap_err();
    assert!(matches!(error, Error::IndexOutOfRange { op: "embedding", index: 7, size: 3, .. }), "{error}");
    assert_eq!(table.to_vec::<f32>().unwrap(), [1.0; 6]);
    let error = rows.to_vec::<f32>().unwrap_err();
    assert!(error.to_string().contains("never written"), "{error}");
}

#[test]
fn the_findings_of_a_pass_are_waited_for() {
    let (remote, device) = remote();
    let (grad, scalars) = (array(&device, &[3.0, 4.0]), array(&device, &[1.0]));
    let slot = Slot { param: None, master: None, grad: Grad::Read(&grad), state: vec![], first: false };
    let outcome = Update::Norm.run(&scalars, &mut [slot]).unwrap();
    assert_eq!(remote.counts().synchronisations, 0);
    let found = outcome.wait().unwrap();
    assert_eq!((found.norm, found.found_inf, remote.counts().synchronisations), (5.0, false, 1));
}

#[test]
fn an_outcome_of_a_pass_behind_an_error_is_an_error_too() {
    let (_, device) = remote();
    let table = Array::full(&device, DType::F32, Shape::new(&[3, 2]).unwrap(), 1.0, Class::Weights).unwrap();
    let index = Array::from_slice(&device, &[-1i64], &[1], Class::Indices).unwrap();
    let (grad, scalars) = (array(&device, &[3.0, 4.0]), array(&device, &[1.0]));
    let _rows = run_one(&Op::Embedding, &[&table, &index], &device, DType::F32, Class::Activations).unwrap();
    let slot = Slot { param: None, master: None, grad: Grad::Read(&grad), state: vec![], first: false };
    let outcome = Update::Norm.run(&scalars, &mut [slot]).unwrap();
    assert!(matches!(device.sync(), Err(Error::IndexOutOfRange { .. })), "who waits first is told");
    assert!(matches!(outcome.wait(), Err(Error::NotRun { op: "norm", .. })));
}

#[test]
fn an_allocation_fails_where_it_is_told_to() {
    let (remote, device) = remote();
    let x = array(&device, &[1.0]);
    remote.fail_allocation(2);
    let square = || run_one(&Op::Unary(Unary::Sqrt), &[&x], &device, DType::F32, Class::Activations);
    assert!(square().is_ok());
    assert!(matches!(square(), Err(Error::OutOfMemory { op: "sqrt", bytes: 4, class: Class::Activations })));
    assert!(square().is_ok());
    let live = device.memory().live(Class::Activations);
    assert_eq!(live, 4, "what failed is not counted");
}

#[test]
fn arrays_move_between_devices_and_operators_of_two_name_both() {
    let ((_, device), host) = (remote(), Device::reference());
    let x = Array::from_slice(&host, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], Class::Weights).unwrap();
    for source in [x.clone(), x.with_layout(x.layout().transpose(0, 1)).unwrap()] {
        let there = source.to(&device).unwrap();
        assert_eq!((there.layout(), there.storage().class()), (source.layout(), Class::Weights), "memory order stays");
        assert_eq!(there.to_vec::<f32>().unwrap(), source.to_vec::<f32>().unwrap());
        assert_eq!(there.to(&host).unwrap().to_vec::<f32>().unwrap(), source.to_vec::<f32>().unwrap());
    }
    let half = x.cast_when_read(DType::F16, Class::Casts).unwrap().to(&device).unwrap();
    assert_eq!((half.dtype(), half.to_f64_vec().unwrap()), (DType::F16, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let there = x.to(&device).unwrap();
    let message = "add: tensors on different devices, remote and reference: move one with to()";
    let mixed = run_one(&Op::Binary(Binary::Add), &[&there, &x], &device, DType::F32, Class::Activations);
    assert_eq!(mixed.unwrap_err().to_string(), message);
    there.copy_from(&Array::full(&host, DType::F32, *x.shape(), 7.0, Class::Weights).unwrap()).unwrap();
    assert_eq!(there.to_vec::<f32>().unwrap(), [7.0; 6]);
    let grad = array(&host, &[1.0]);
    let slot = Slot { param: None, master: None, grad: Grad::Read(&grad), state: vec![], first: false };
    let error = Update::Norm.run(&array(&device, &[1.0]), &mut [slot]).unwrap_err();
    assert_eq!(error.to_string(), "norm: tensors on different devices, remote and reference: move one with to()");
}

#[test]
fn what_is_only_borrowed_for_writing_keeps_its_version() -> Result<()> {
    let (_, device) = remote();
    let x = array(&device, &[1.0]);
    let version = x.storage().version();
    drop(ArrayMut::new("probe", &x)?);
    assert_eq!(x.storage().version(), version);
    x.copy_from(&array(&device, &[2.0]))?;
    assert_eq!(x.storage().version(), version + 1);
    Ok(())
}

#[test]
fn integers_that_f64_does_not_hold_are_moved_exactly() {
    let (_, device) = remote();
    let large = [i64::MAX, i64::MIN, (1 << 53) + 1, 4];
    let x = Array::from_slice(&device, &large, &[4], Class::Indices).unwrap();
    let index = Array::from_slice(&device, &[2i64, 0], &[2], Class::Indices).unwrap();
    let op = Op::Scatter { kind: Scatter::Set, dim: 0 };
    let from = Array::from_slice(&device, &[i64::MAX - 1, 5], &[2], Class::Indices).unwrap();
    let out = run_one(&op, &[&x, &index, &from], &device, DType::I64, Class::Indices).unwrap();
    assert_eq!(out.to_vec::<i64>().unwrap(), [5, i64::MIN, i64::MAX - 1, 4]);
}
