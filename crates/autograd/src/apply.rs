//! [`apply`]: the one place where an operator meets dtypes, devices and the tape.

use binade_tensor::{Arrays, Class, DType, Meta, Op};
use smallvec::SmallVec;

use crate::tape::{is_leaf_view, record, run_and_record};
use crate::{Result, Var, scope};

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
    let Some(param) = ins.iter().find_map(|v| v.place()) else { return apply_here(op, ins) };
    // What only moves or rounds a parameter is still the parameter.
    let moves = op.is_conversion();
    let (var, outs) = scope::with_operand(param, || apply_here(op, ins))?;
    Ok((if moves { var.at(Some(param.clone())) } else { var }, outs))
}

/// Applies an operator in the layer that the scope is in.
fn apply_here(op: Op, ins: &[&Var]) -> Result<(Var, Arrays)> {
    let dtypes: SmallVec<[DType; 4]> = ins.iter().map(|v| v.array().dtype()).collect();
    let plan = scope::rule().filter(|_| !op.is_conversion()).map(|rule| rule.plan(&op, &dtypes)).transpose()?;
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
    let weight = var.node().is_some_and(|n| is_leaf_view(n)) || storage.class() == Class::Weights;
    let value = match storage.derived(dtype, array.layout()) {
        Some(value) => value,
        // An observer sees every cast.
        None if weight
            && array.device().rounds_as_it_reads(op)
            && !scope::is_observed()
            && storage.is_new(dtype, array.layout()) =>
        {
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
        None => run_and_record(op, ins, want, &scope::device()?),
    }
}
