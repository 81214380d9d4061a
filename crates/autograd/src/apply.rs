//! [`apply`]: the one place where an operator meets dtypes, devices and the tape.

use binade_tensor::op::Binary;
use binade_tensor::{Array, Arrays, Class, DType, Device, Meta, Op, run};
use smallvec::SmallVec;

use crate::node::{Kind, Node};
use crate::saved::{Again, Saved, addends};
use crate::{Result, Var, scope, table};

/// Applies an operator and returns its first output.
///
/// # Errors
/// Shapes or dtypes the operator refuses; the policy bans the operator.
pub fn apply(op: Op, ins: &[&Var]) -> Result<Var> {
    apply_all(op, ins).map(|(var, _)| var)
}

/// Applies an operator and returns its first output, which carries the gradient, and all outputs as plain arrays.
///
/// # Errors
/// As [`apply`].
pub fn apply_all(op: Op, ins: &[&Var]) -> Result<(Var, Arrays)> {
    let Some(place) = ins.iter().find_map(|v| v.place()) else { return apply_here(op, ins) };
    // What only moves or rounds a parameter is still the parameter.
    let moves = matches!(op, Op::View(_) | Op::Copy | Op::Cast(_) | Op::StochasticCast { .. });
    let (var, outs) = scope::within(place, || apply_here(op, ins))?;
    Ok((if moves { var.at(Some(place.clone())) } else { var }, outs))
}

/// Applies an operator in the layer that the scope is in.
fn apply_here(op: Op, ins: &[&Var]) -> Result<(Var, Arrays)> {
    let dtypes: SmallVec<[DType; 4]> = ins.iter().map(|v| v.array().dtype()).collect();
    let plan = match (scope::rule(), &op) {
        // Casts and views mean what they say, whatever the policy.
        (None, _) | (_, Op::Cast(_) | Op::StochasticCast { .. } | Op::View(_) | Op::Copy) => None,
        (Some(rule), _) => Some(rule.plan(&op, &dtypes)?),
    };
    let Some(target) = plan.and_then(|p| p.inputs) else {
        return run_planned(op, ins, plan.and_then(|p| p.output), &dtypes);
    };
    let mut cast: SmallVec<[Var; 4]> = SmallVec::new();
    for var in ins {
        let from = var.array().dtype();
        let eligible = from.is_float() && from != DType::F64;
        cast.push(if eligible && from != target && target.is_half() {
            narrow(&op, var, target)?
        } else {
            (*var).clone()
        });
    }
    let dtypes: SmallVec<[DType; 4]> = cast.iter().map(|v| v.array().dtype()).collect();
    let ins: SmallVec<[&Var; 4]> = cast.iter().collect();
    run_planned(op, &ins, plan.and_then(|p| p.output), &dtypes)
}

/// Casts an input of `op` to a narrower dtype, once per value and region: the cast is cached with the value's storage
/// until that is freed or the outermost region ends. The cast of a leaf (or of a view of a leaf: a transposed weight)
/// is left to the operator if it rounds as it reads, and made when it is used again. The node is recorded for each use,
/// so gradients of all uses meet in the value's own dtype.
fn narrow(op: &Op, var: &Var, dtype: DType) -> Result<Var> {
    let array = var.array();
    let storage = array.storage();
    // Under no_grad a view of a parameter has no node, but its memory says what it is.
    let weight = var.node().is_some_and(|n| n.is_leaf_view()) || storage.class() == Class::Weights;
    let value = match storage.derived(dtype, array.layout()) {
        Some(value) => value,
        // An observer sees every cast.
        None if weight && op.rounds_as_it_reads() && !scope::is_observed() && storage.is_new(dtype, array.layout()) => {
            scope::note_cached(storage);
            array.cast_when_read(dtype, Class::Casts)?
        }
        None => {
            let value = binade_tensor::run_one(&Op::Cast(dtype), &[array], array.device(), dtype, Class::Casts)?;
            scope::observe(&Op::Cast(dtype), &[array], std::slice::from_ref(&value));
            storage.set_derived(dtype, *array.layout(), value.clone());
            scope::note_cached(storage);
            value
        }
    };
    let wide = weight && scope::rule().is_some_and(|rule| rule.wide_weight_gradients());
    let gradient = if wide { Meta { dtype: var.dtype(), ..value.meta() } } else { value.meta() };
    Ok(record(Op::Cast(dtype), &[var], std::slice::from_ref(&value), value.clone(), gradient))
}

fn run_planned(op: Op, ins: &[&Var], want: Option<DType>, dtypes: &[DType]) -> Result<(Var, Arrays)> {
    let want = want.unwrap_or_else(|| op.natural_dtype(dtypes));
    match ins.first() {
        Some(first) => run_and_record(op, ins, want, first.array().device()),
        None => run_and_record(op, ins, want, &Device::cpu()),
    }
}

/// Runs an operator with float outputs in `want`, whatever the cast rule, and records it.
pub(crate) fn run_and_record(op: Op, ins: &[&Var], want: DType, device: &Device) -> Result<(Var, Arrays)> {
    let arrays: SmallVec<[&Array; 4]> = ins.iter().map(|v| v.array()).collect();
    let class = if matches!(op, Op::Cast(_)) { Class::Casts } else { Class::Activations };
    let outs = run(&op, &arrays, device, want, class)?;
    scope::observe(&op, &arrays, &outs);
    let first = outs[0].clone();
    let gradient = first.meta();
    Ok((record(op, ins, &outs, first, gradient), outs))
}

/// A variable for the first output, with a node if gradients are recorded and an input has one.
/// `gradient` is the shape and dtype of the gradient the node receives.
fn record(op: Op, ins: &[&Var], outs: &[Array], first: Array, gradient: Meta) -> Var {
    let differentiable = first.dtype().is_float() && table::reason_not_differentiable(&op).is_none();
    let recorded = differentiable && ins.iter().any(|v| v.node().is_some()) && scope::is_grad_enabled();
    if let Some(outline) = scope::outline() {
        return outline.pass(ins, first, recorded);
    }
    if !recorded {
        return Var::constant(first);
    }
    let needs: SmallVec<[bool; 4]> = ins.iter().map(|v| v.node().is_some()).collect();
    let saves = table::saves(&op, &needs);
    let keep_input = |(i, var): (usize, &&Var)| saves.input(i).then(|| (i, var.saved()));
    let keep_output = |(i, array): (usize, &Array)| saves.output(i).then(|| (ins.len() + i, Saved::value(array)));
    let saved_inputs = ins.iter().enumerate().filter_map(keep_input);
    let saved: Vec<(usize, Saved)> = saved_inputs.chain(outs.iter().enumerate().filter_map(keep_output)).collect();
    let again = if matches!(op, Op::Binary(Binary::Add | Binary::Sub)) {
        addends(ins, &first).and_then(|operands| Again::new(op.clone(), operands, &first, true))
    } else {
        table::again(&op, ins.len()).and_then(|again| {
            let operand = |i: &usize| match saved.iter().find(|(at, _)| at == i) {
                Some((_, saved)) => Some(saved.clone()),
                // What only moves or rounds a value keeps nothing: it is worth doing again if the value itself is.
                None => ins.get(*i).map(|var| var.saved()).filter(|saved| matches!(saved, Saved::Again(_))),
            };
            let operands: Option<SmallVec<[Saved; 5]>> = again.operands.iter().map(operand).collect();
            Again::new(again.op, operands?, &first, !(first.dtype().is_half() && again.unrounded))
        })
    };
    let recast = match (&op, ins) {
        (Op::Cast(_), [var]) if var.node().is_some_and(|n| n.is_leaf_view()) => Some(Box::new(var.array().clone())),
        _ => None,
    };
    // Only of a value in f32 a sum may be narrower in part.
    let wide =
        |(i, saved): &(usize, Saved)| ins.get(*i).filter(|v| matches!(saved, Saved::Value(..)) && !v.dtype().is_half());
    let kept: SmallVec<[&Var; 4]> = saved.iter().filter_map(wide).copied().collect();
    let kind = Kind::Op {
        inputs: ins.iter().map(|v| v.node().cloned()).collect(),
        constants: ins.iter().filter(|v| v.node().is_none()).map(|v| v.array().meta()).collect(),
        saved: std::sync::Mutex::new(Some(saved)),
        recast,
        path: scope::path(),
        op,
    };
    let node = Node::new(kind, gradient);
    kept.iter().filter_map(|var| var.node()).for_each(|from| from.set_keeper(&node));
    Var::with_node(first, node).with_again(again)
}
