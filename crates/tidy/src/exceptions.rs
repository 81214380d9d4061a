//! What is excepted from the checks, each with its reason. An exception that excepts nothing is a fault too.

use crate::source::Finding;

/// Findings of one check in one file that are meant.
pub struct Exception {
    pub check: &'static str,
    pub path: &'static str,
    /// Why it is right there.
    pub reason: &'static str,
}

const fn except(check: &'static str, path: &'static str, reason: &'static str) -> Exception {
    Exception { check, path, reason }
}

pub const ALL: &[Exception] = &[
    except("names", "crates/models/src/parity.rs", "recorded cases name their losses as PyTorch does"),
    except("names", "crates/lab/src/bench/kernels.rs", "names of measurements"),
    except("names", "crates/lab/src/conform/case.rs", "a key of the recorded cases"),
    except("names", "crates/lab/src/conform/inputs.rs", "a key of the recorded cases"),
    except("names", "crates/lab/src/conform/ops.rs", "recorded cases name operators as PyTorch does"),
    except("names", "crates/amp/src/policy/text.rs", "a key of policies written as text"),
    except("host", "crates/amp/src/blame.rs", "runs after a step that was skipped"),
    except("host", "crates/amp/src/fault.rs", "plants faults in tests"),
    except("host", "crates/amp/src/preflight.rs", "counts a step's numbers, once before training"),
    except("host", "crates/amp/src/scaler.rs", "whether the loss is finite decides why a step was skipped"),
    except("host", "crates/autograd/src/gradcheck.rs", "checks gradients, in tests"),
    except("host", "crates/autograd/src/methods/ctc.rs", "lengths and labels decide shapes"),
    except("host", "crates/autograd/src/methods/index.rs", "what a mask selects decides a shape; classes are checked"),
    except("host", "crates/autograd/src/methods/random.rs", "probabilities are checked"),
    except("host", "crates/autograd/src/var.rs", "`Var::item` is the caller's own wish"),
    except("host", "crates/models/src/gpt/write.rs", "a token that was drawn is the next input"),
    except("host", "crates/models/src/parity.rs", "compares what was computed with what is recorded"),
    except("host", "crates/nn/src/quantised/calibration.rs", "counts activations, once before a model is written"),
    except("host", "crates/nn/src/quantised/mod.rs", "scales of a file are checked"),
    except("host", "crates/nn/src/state_dict.rs", "files are written from host memory"),
    except("host", "crates/train/src/batch.rs", "the order of samples indexes host memory"),
    except("host", "crates/train/src/task.rs", "evaluation counts and adds up on the host"),
    except("host", "crates/train/src/tensorboard/mod.rs", "what is written into a file is on the host"),
];

/// The findings of a check that no exception names, and the exceptions of the check that name nothing.
pub fn apply(check: &str, findings: Vec<Finding>, exceptions: &[Exception]) -> Vec<String> {
    let of_check = || exceptions.iter().filter(|e| e.check == check);
    let needless = of_check()
        .filter(|e| findings.iter().all(|f| f.path != e.path))
        .map(|e| format!("{}: no finding of {check} is left to except ({}); drop it from the list", e.path, e.reason));
    let needless: Vec<String> = needless.collect();
    let left = findings.iter().filter(|f| of_check().all(|e| f.path != e.path));
    left.map(|f| format!("{}:{}: {} [{check}]", f.path, f.line, f.what)).chain(needless).collect()
}

#[cfg(test)]
mod tests {
    use super::{apply, except};
    use crate::source::Finding;

    fn found(path: &str) -> Vec<Finding> {
        vec![Finding { path: path.into(), line: 3, what: "a fault".into() }]
    }

    #[test]
    fn a_finding_is_told_unless_it_is_excepted() {
        assert_eq!(apply("size", found("a.rs"), &[]), ["a.rs:3: a fault [size]"]);
        assert!(apply("size", found("a.rs"), &[except("size", "a.rs", "why")]).is_empty());
        // Of another check, or another file.
        assert_eq!(apply("size", found("a.rs"), &[except("names", "a.rs", "why")]).len(), 1);
    }

    #[test]
    fn an_exception_that_excepts_nothing_is_a_fault() {
        let told = apply("size", vec![], &[except("size", "a.rs", "why")]);
        assert!(told.len() == 1 && told[0].contains("drop it"), "{told:?}");
    }
}
