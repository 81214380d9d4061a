//! No operator is recognised by its name: a comparison with a string outlives the operator's renaming in silence.

use std::collections::BTreeSet;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, Lit, Pat};

use crate::source::{File, Finding, Tree, arguments};

/// The page that lists every operator; a test of `binade` compares it with the registry.
const PAGE: &str = "docs/ops.md";

/// Methods that compare strings.
const COMPARING: [&str; 5] = ["eq", "ne", "starts_with", "ends_with", "contains"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let names: BTreeSet<&str> =
        tree.files.iter().filter(|file| file.path == PAGE).flat_map(|page| operators(&page.text)).collect();
    let mut found = Vec::new();
    // Opcodes of PTX are names, and many are those of operators.
    for file in tree.library().filter(|file| !file.path.starts_with("crates/ptx/")) {
        // What does not parse is told by another check.
        if let Ok(parsed) = file.parse() {
            let mut comparisons = Comparisons { file, names: &names, found: &mut found };
            file.visit(&parsed, &mut comparisons);
        }
    }
    found
}

/// The first column of the tables.
fn operators(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0))
}

struct Comparisons<'f> {
    file: &'f File,
    names: &'f BTreeSet<&'f str>,
    found: &'f mut Vec<Finding>,
}

impl Comparisons<'_> {
    fn told(&mut self, at: &impl Spanned, name: &str) {
        let what = format!("{name:?} is compared with a name; match on the operator");
        self.found.push(self.file.finding(at.span().start().line, what));
    }

    /// The string of a literal, if comparing `with` it recognises an operator.
    fn recognised(&self, literal: &Expr, with: &Expr) -> Option<String> {
        let Expr::Lit(syn::ExprLit { lit: Lit::Str(text), .. }) = literal else { return None };
        let text = text.value();
        (of_operator(with) || self.names.contains(text.as_str())).then_some(text)
    }
}

/// Whether an expression is the name of something called `op`.
fn of_operator(expression: &Expr) -> bool {
    let Expr::MethodCall(call) = expression else { return false };
    let receiver = match &*call.receiver {
        Expr::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        Expr::Field(field) => match &field.member {
            syn::Member::Named(name) => Some(name.to_string()),
            syn::Member::Unnamed(_) => None,
        },
        Expr::MethodCall(inner) => Some(inner.method.to_string()),
        _ => None,
    };
    call.method == "name" && receiver.is_some_and(|name| name == "op")
}

impl<'a> Visit<'a> for Comparisons<'_> {
    fn visit_expr_binary(&mut self, e: &'a syn::ExprBinary) {
        if matches!(e.op, BinOp::Eq(_) | BinOp::Ne(_)) {
            let name = self.recognised(&e.left, &e.right).or_else(|| self.recognised(&e.right, &e.left));
            if let Some(name) = name {
                self.told(e, &name);
            }
        }
        visit::visit_expr_binary(self, e);
    }

    fn visit_expr_method_call(&mut self, e: &'a syn::ExprMethodCall) {
        if COMPARING.iter().any(|name| e.method == name)
            && let Some(name) = e.args.iter().find_map(|argument| self.recognised(argument, &e.receiver))
        {
            self.told(e, &name);
        }
        visit::visit_expr_method_call(self, e);
    }

    fn visit_pat(&mut self, pattern: &'a Pat) {
        if let Pat::Lit(syn::PatLit { lit: Lit::Str(text), .. }) = pattern
            && self.names.contains(text.value().as_str())
        {
            self.told(pattern, &text.value());
        }
        visit::visit_pat(self, pattern);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        let mut inner = Comparisons { file: self.file, names: self.names, found: self.found };
        let (expressions, pattern) = arguments(call);
        expressions.iter().for_each(|expression| inner.visit_expr(expression));
        pattern.iter().for_each(|pattern| inner.visit_pat(pattern));
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::source::Tree;

    fn found(body: &str) -> usize {
        let page = "| operator | in autocast |\n|---|---|\n| `prelu` | f32 |\n";
        check(&Tree::of(&[("docs/ops.md", page), ("crates/a/src/b.rs", &format!("fn f() {{ {body} }}"))])).len()
    }

    #[test]
    fn operators_recognised_by_their_names_are_found() {
        for body in [
            r#"op.name() == "prelu""#,
            r#"if "prelu" != name {}"#,
            r#"self.op.name().starts_with("conv")"#,
            r#"match name { "prelu" => 1, _ => 2 }"#,
            r#"matches!(op.name(), "square" | "prelu" if x)"#,
            r#"assert!(node.op().name() == "anything")"#,
        ] {
            assert_eq!(found(body), 1, "{body}");
        }
    }

    #[test]
    fn other_strings_pass() {
        for body in [r#"isa.name() == "avx2""#, r#"let x = "prelu";"#, r#"op.name() == name"#, r#"text.contains(": ")"#]
        {
            assert_eq!(found(body), 0, "{body}");
        }
    }
}
