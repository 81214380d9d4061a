//! Runs a case: at every instruction set, on several numbers of threads, forward, backward and backward again; every
//! operator that runs on the way is compared with the reference.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use binade::autograd::{Var, apply, grad, scope};
use binade::cpu::{Cpu, Isa};
use binade::tensor::testing::Exact;
use binade::tensor::{Array, Class, DType, Device, Op, Request, Result, run};
use rayon::ThreadPool;

use super::cases::{Case, of_inference};
use super::coverage::Coverage;
use super::draw::{Draw, Values, floats};

/// What is wrong with a case.
#[derive(Debug)]
pub struct Fault {
    /// What it is counted under: the operator, and the kind of fault.
    pub kind: String,
    pub text: String,
}

fn fault(op: &Op, kind: &str, text: impl std::fmt::Display) -> Fault {
    Fault { kind: format!("{} {kind}", op.name()), text: text.to_string() }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// An operator that ran.
struct Ran {
    op: Op,
    ins: Vec<Array>,
    outs: Vec<Array>,
}

/// The machine's instruction sets, and pools of threads.
pub struct Machine {
    devices: Vec<(Isa, Device)>,
    pools: Vec<ThreadPool>,
}

impl Machine {
    pub fn new() -> anyhow::Result<Machine> {
        let pools = [1, 2, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build()).into_iter();
        let devices = Isa::available()
            .into_iter()
            .filter(|isa| *isa <= Isa::detect())
            .map(|isa| (isa, Device::new(Cpu::with_isa(isa))))
            .collect();
        Ok(Machine { devices, pools: pools.collect::<Result<_, _>>()? })
    }

    /// Runs case `number` of a seed; the number of comparisons.
    pub fn check(&self, seed: u64, number: u64, coverage: &mut Coverage) -> std::result::Result<usize, Fault> {
        self.devices.iter().try_fold(0, |sum, (isa, device)| {
            let checked = catch_unwind(AssertUnwindSafe(|| self.check_on(seed, number, device, coverage)));
            let checked = checked.unwrap_or_else(|p| Err(Fault { kind: "panic".into(), text: message(&*p).into() }));
            Ok(sum + checked.map_err(|f| Fault { text: format!("{}: {}", isa.name(), f.text), ..f })?)
        })
    }

    fn check_on(
        &self,
        seed: u64,
        number: u64,
        device: &Device,
        coverage: &mut Coverage,
    ) -> std::result::Result<usize, Fault> {
        let mut draw = Draw::new(seed, number);
        let case =
            Case::draw(&mut draw, device).map_err(|e| Fault { kind: "the case itself".into(), text: e.to_string() })?;
        coverage.drawn(&case.op, case.twice);
        let mut all: Option<Vec<Ran>> = None;
        for pool in &self.pools {
            let (ran, ended) = self.record(&case, device, pool, draw.clone());
            ended?;
            match &all {
                None => all = Some(ran),
                Some(first) => {
                    for (a, b) in first.iter().zip(&ran) {
                        if a.op != b.op || bits(&a.outs) != bits(&b.outs) {
                            let threads = pool.current_num_threads();
                            return Err(fault(&a.op, "threads", format!("other bits on {threads} threads than on 1")));
                        }
                    }
                }
            }
        }
        let mut ran = all.unwrap_or_default();
        if of_inference(&case.op) {
            ran.push(widest(&case, device).map_err(|e| fault(&case.op, "in f64", e))?);
        }
        ran.iter().for_each(|step| coverage.ran(&step.op));
        // Views run no kernel: what reads them is compared. Nor is a number compared that was rounded for f32 operands,
        // and is not for f64 results.
        let widens = |step: &Ran| {
            matches!(step.op, Op::Scalar { .. })
                && step.outs[0].dtype() == DType::F64
                && step.ins[0].dtype() != DType::F64
        };
        ran.iter()
            .filter(|step| !matches!(step.op, Op::View(_)) && !widens(step))
            .try_for_each(|step| compare(step, device))?;
        Ok(ran.len())
    }

    /// Runs the case on a pool and records every operator.
    fn record(
        &self,
        case: &Case,
        device: &Device,
        pool: &ThreadPool,
        draw: Draw,
    ) -> (Vec<Ran>, std::result::Result<(), Fault>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        let observer: scope::Observer = Arc::new(move |event| {
            let ran = Ran {
                op: event.op.clone(),
                ins: event.ins.iter().map(|a| (*a).clone()).collect(),
                outs: event.outs.to_vec(),
            };
            note.lock().unwrap_or_else(PoisonError::into_inner).push(ran);
        });
        let ended = pool.install(|| {
            let differentiate = || scope::with_device(device, || differentiate(case, device, draw));
            catch_unwind(AssertUnwindSafe(|| scope::with_observer(observer, differentiate)))
        });
        let ran = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = ended.unwrap_or_else(|panic| Err(fault(&case.op, "panic", message(&*panic))));
        (ran, ended)
    }
}

/// The operator with results in f64, which the bound holds to the last of the integers that were added.
fn widest(case: &Case, device: &Device) -> Result<Ran> {
    let ins: Vec<&Array> = case.ins.iter().collect();
    let outs = run(Request::new(&case.op, &ins, device, DType::F64, Class::Activations))?.into_vec();
    Ok(Ran { op: case.op.clone(), ins: case.ins.clone(), outs })
}

/// The operator, its gradients, and theirs.
fn differentiate(case: &Case, device: &Device, mut draw: Draw) -> std::result::Result<(), Fault> {
    // A float mask's own gradient is refused by name: it needs all scores. So are those of what is for inference.
    let fixed = |i: usize| matches!(case.op, Op::Attention(_)) && i == 3 || of_inference(&case.op);
    let variable = |(i, a): (usize, &Array)| {
        if a.dtype().is_float() && !fixed(i) { Var::leaf(a.clone()) } else { Var::constant(a.clone()) }
    };
    let vars: Vec<Var> = case.ins.iter().enumerate().map(variable).collect();
    let y = match apply(case.op.clone(), &vars.iter().collect::<Vec<_>>()) {
        Ok(y) => y,
        // An error is a result too, where the reference has it.
        Err(error) => {
            return match reference(&case.op, &case.ins) {
                Ok(_) => Err(fault(&case.op, "refused", format!("the reference runs, the device says: {error}"))),
                Err(_) => Ok(()),
            };
        }
    };
    if !y.requires_grad() {
        return Ok(());
    }
    let failed = |order: &str, error: &dyn std::fmt::Display| fault(&case.op, order, error);
    let values = if draw.one_in(4) { Values::draw(&mut draw, case.range) } else { Values::Ordinary };
    let upstream = floats(&mut draw, device, y.dtype(), y.shape(), values).map_err(|e| failed("upstream", &e))?;
    let leaves: Vec<&Var> = vars.iter().filter(|v| v.requires_grad()).collect();
    if !case.twice {
        return y.backward_with(&upstream).map(drop).map_err(|e| failed("gradient", &e));
    }
    let upstream = Var::leaf(upstream);
    let gradients = grad(&y, &leaves, Some(&upstream), true).map_err(|e| failed("gradient", &e))?;
    // One sum of all gradients, each weighted: backward walks the graph they share once.
    let mut total: Option<Var> = None;
    for gradient in gradients.into_iter().flatten().filter(Var::requires_grad) {
        let weight = floats(&mut draw, device, gradient.dtype(), gradient.shape(), Values::Ordinary);
        let weight = Var::constant(weight.map_err(|e| failed("upstream", &e))?);
        let term = gradient.mul(&weight).and_then(|product| product.sum(&[], false));
        let sum = match total {
            Some(total) => term.and_then(|term| total.add(&term)),
            None => term,
        };
        total = Some(sum.map_err(|e| failed("second order", &e))?);
    }
    total.map_or(Ok(()), |total| total.backward().map(drop).map_err(|e| failed("second order", &e)))
}

/// The operator on the reference.
fn reference(op: &Op, ins: &[Array]) -> Result<()> {
    let device = Device::reference();
    let there: Vec<Array> = ins
        .iter()
        .map(|a| {
            let dense = a.contiguous(Class::Workspace)?;
            Array::from_bytes(&device, a.dtype(), &dense.device().download(&dense)?, a.shape(), Class::Activations)
        })
        .collect::<Result<_>>()?;
    run(Request::new(op, &there.iter().collect::<Vec<_>>(), &device, DType::F64, Class::Activations)).map(drop)
}

/// Compares what an operator gave with the reference.
fn compare(ran: &Ran, device: &Device) -> std::result::Result<(), Fault> {
    let floats = ran.outs.iter().map(Array::dtype).filter(|d| d.is_float());
    let want = floats.clone().next().unwrap_or(DType::F32);
    let checked =
        catch_unwind(AssertUnwindSafe(|| Exact::of(&ran.op, &ran.ins)?.check(&ran.op, &ran.ins, device, want)));
    let inputs = || {
        let of = |a: &Array| {
            let values = a.to_f64_vec().unwrap_or_default();
            let least = values.iter().fold(f64::INFINITY, |m, v| m.min(*v));
            let most = values.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
            let (shape, strides) = (&a.shape()[..], &a.layout().strides[..]);
            format!("{} {shape:?} by {strides:?} in {least:e}..={most:e}", a.dtype())
        };
        ran.ins.iter().map(of).collect::<Vec<String>>().join(", ")
    };
    match checked {
        Ok(Ok((_, None))) => Ok(()),
        Ok(Ok((_, Some(text)))) => Err(fault(&ran.op, "bound", format!("{text}; operands {}", inputs()))),
        Ok(Err(error)) => Err(fault(&ran.op, "reference", format!("{:?}: the reference says: {error}", ran.op))),
        Err(_) => Err(fault(&ran.op, "panic", format!("{:?} alone; operands {}", ran.op, inputs()))),
    }
}

/// Bits of all outputs, NaN all the same.
fn bits(outs: &[Array]) -> Vec<Option<Vec<u64>>> {
    let code = |v: f64| if v.is_nan() { u64::MAX } else { v.to_bits() };
    outs.iter().map(|a| a.to_f64_vec().ok().map(|v| v.into_iter().map(code).collect())).collect()
}
