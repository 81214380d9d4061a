//! Above the backends, elements are read in host memory in few places: each of them waits for the device.

use syn::visit::{self, Visit};

use crate::source::{File, Finding, Tree, arguments};

/// Crates above every backend.
const ABOVE: [&str; 5] = ["autograd", "nn", "amp", "models", "train"];

/// Methods that bring elements to host memory.
const READING: [&str; 4] = ["to_f64_vec", "download", "item", "bytes"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.library() {
        let name = file.path.split('/').nth(1).unwrap_or_default();
        if let (true, Ok(parsed)) = (ABOVE.contains(&name), file.parse()) {
            file.visit(&parsed, &mut Calls { file, found: &mut found });
        }
    }
    found
}

struct Calls<'f> {
    file: &'f File,
    found: &'f mut Vec<Finding>,
}

impl<'a> Visit<'a> for Calls<'_> {
    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        // `to_vec` of an array says of what; that of a slice, as shapes are, does not.
        let reads =
            READING.iter().any(|name| call.method == name) || call.method == "to_vec" && call.turbofish.is_some();
        if reads {
            let line = call.method.span().start().line;
            self.found.push(self.file.finding(line, format!("`{}` reads in host memory", call.method)));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        for expression in &arguments(call).0 {
            Calls { file: self.file, found: self.found }.visit_expr(expression);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::source::Tree;

    fn found(path: &str, body: &str) -> usize {
        check(&Tree::of(&[(path, &format!("fn f() {{ {body} }}"))])).len()
    }

    #[test]
    fn reads_of_elements_are_found_above_the_backends() {
        for body in ["loss.item()?", "array.to_vec::<f32>()", "vec![x.to_f64_vec()]", "device.download(&a)"] {
            assert_eq!(found("crates/amp/src/a.rs", body), 1, "{body}");
            assert_eq!(found("crates/tensor/src/cpu/a.rs", body), 0, "{body}");
        }
        assert_eq!(found("crates/amp/src/a.rs", "array.shape().to_vec()"), 0);
    }
}
