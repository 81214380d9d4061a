//! Every allocation of every operator fails in turn: an error arrives that names the operator, and no output is
//! garbage.

use binade_cpu::{Cpu, Isa};
use binade_tensor::{Class, DType, Device, Error, Request, run, samples};

#[test]
fn each_allocation_of_each_operator_that_fails_is_an_error_that_names_it() {
    let cpu = Cpu::with_isa(Isa::detect());
    let pool = cpu.pool().clone();
    let device = Device::new(cpu);
    // The scratch of kernels is allocated by several threads: which one fails differs, that one does not.
    for (op, ins) in samples::catalogue().iter().flat_map(|op| {
        // One sample of each layout is enough, and f16 takes kernels through their buffers.
        let of = |dtype| op.samples(&device, dtype).into_iter().take(2).map(move |ins| (op, ins));
        of(DType::F32).chain(of(DType::F16)).collect::<Vec<_>>()
    }) {
        let ins: Vec<_> = ins.iter().collect();
        let dtypes: Vec<_> = ins.iter().map(|x| x.dtype()).collect();
        let want = op.natural_dtype(&dtypes);
        let before = pool.accounting().stats().live;
        for failing in 0.. {
            pool.fail_after(failing);
            let result = run(Request::new(op, &ins, &device, want, Class::Activations));
            if pool.stop_failing() {
                result.unwrap();
                break;
            }
            let error = result.expect_err(op.name());
            assert!(
                matches!(error, Error::OutOfMemory { op, .. } if !op.is_empty()),
                "{}, allocation {failing}: {error}",
                op.name()
            );
            assert!(failing < 10_000, "{} asks for memory without end", op.name());
        }
        assert_eq!(pool.accounting().stats().live, before, "{} keeps memory", op.name());
    }
}
