//! [`checkpoint`]: memory for time (Chen et al. 2016).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::node::{Edge, Hook, Kind, Node};
use crate::outline::Outline;
use crate::saved::{Saved, check_version};
use crate::{Result, Var, scope};

/// Runs `f` on `ins` and keeps nothing of it but the inputs; backward runs it again. The second run has the first one's
/// scope: the same cast rule, mode, random numbers and layer, so the gradients are those without checkpointing, bit for
/// bit. What it defers (running statistics) goes with the gradients once: the second run is a rehearsal.
///
/// The result has a gradient exactly if it has one without checkpointing.
///
/// # Errors
/// Those of `f`; in backward, anything that `f` read and that was changed in place since: an input, a parameter, a
/// buffer.
pub fn checkpoint(f: impl Fn(&[Var]) -> Result<Var> + Send + Sync + 'static, ins: &[&Var]) -> Result<Var> {
    let surrounding = scope::capture().rehearsal();
    let given: SmallVec<[Var; 3]> = ins.iter().map(|v| (*v).clone().at(None)).collect();
    // Inside the first run of another one, that one runs this again.
    if !scope::is_grad_enabled() || scope::outline().is_some() {
        return f(&given);
    }
    let outline = Arc::new(Outline::new());
    let out = scope::with_outline(outline.clone(), || f(&given))?;
    if !out.node().is_some_and(|node| Arc::ptr_eq(node, outline.node())) {
        return Ok(out);
    }
    let read = outline.read();
    let saved: SmallVec<[Saved; 3]> = ins.iter().map(|v| v.saved()).collect();
    let again = move |inputs: &[Option<Edge>]| {
        let path = scope::path();
        for (array, version) in &read {
            array.upgrade().map_or(Ok(()), |array| check_version(&array, *version, "checkpoint", &path))?;
        }
        let mut vars = SmallVec::<[Var; 3]>::new();
        for (edge, value) in inputs.iter().zip(&saved) {
            let array = value.get("checkpoint", &path, false)?;
            vars.push(match edge {
                Some(node) => Var::with_node(array, node.clone()),
                None => Var::constant(array),
            });
        }
        scope::run_in(&surrounding.observed_now(), || Ok(f(&vars)?.node().cloned()))
    };
    let inputs = ins.iter().map(|v| v.node().cloned()).collect();
    let node = Node::new(Kind::Recompute { inputs, again: Box::new(again) }, out.array().meta());
    outline.changes().into_iter().for_each(|change| node.tie(Hook::Change(change)));
    Ok(Var::with_node(out.array().clone(), node))
}
