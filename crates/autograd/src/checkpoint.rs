//! [`checkpoint`]: memory for time (Chen et al. 2016).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::node::{Edge, Kind, Node, Recompute};
use crate::saved::Saved;
use crate::scope::Scope;
use crate::{Result, Var, no_grad, scope};

/// Runs `f` on `ins` and keeps nothing of it but the inputs; backward runs it again. The second run has the first one's scope: the
/// same cast rule, mode, random numbers and layer, so the gradients are those without checkpointing, bit for bit. What
/// it defers (running statistics) is discarded: the first run deferred it.
///
/// `f` may use parameters beside `ins`; they must not be changed before backward.
///
/// # Errors
/// Those of `f`; in backward, an input that was changed in place since.
pub fn checkpoint(f: impl Fn(&[Var]) -> Result<Var> + Send + Sync + 'static, ins: &[&Var]) -> Result<Var> {
    let surrounding = scope::capture();
    let f: Recompute = Arc::new(f);
    let given: SmallVec<[Var; 3]> = ins.iter().map(|v| (*v).clone().at(None)).collect();
    if !scope::is_grad_enabled() {
        return f(&given);
    }
    let out = no_grad(|| f(&given))?;
    let kind = Kind::Recompute {
        inputs: ins.iter().map(|v| v.node().cloned()).collect(),
        saved: ins.iter().map(|v| v.saved()).collect(),
        f,
        scope: Box::new(surrounding),
    };
    let node = Node::new(kind, out.array().meta());
    Ok(Var::with_node(out.array().clone(), node))
}

/// The second run, recorded.
pub(crate) fn again(inputs: &[Option<Edge>], saved: &[Saved], f: &Recompute, surrounding: &Scope) -> Result<Var> {
    let path = scope::path();
    let mut vars = SmallVec::<[Var; 3]>::new();
    for (edge, value) in inputs.iter().zip(saved) {
        let array = value.get("checkpoint", &path, false)?;
        vars.push(match edge {
            Some(node) => Var::with_node(array, node.clone()),
            None => Var::constant(array),
        });
    }
    scope::run_in(&surrounding.observed_now(), || f(&vars))
}
