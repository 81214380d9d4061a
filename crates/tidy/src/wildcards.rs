//! No arm that catches all in a match on an enum that is to be extended: a new variant must not compile before every
//! such match has said what becomes of it.

use std::collections::BTreeMap;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{ExprMatch, Pat};

use crate::source::{File, Finding, Tree, arguments};

/// The enums whose matches name every variant.
const ENUMS: [&str; 4] = ["Op", "Update", "DType", "Backward"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.library() {
        match file.parse() {
            Ok(parsed) => {
                let mut matches = Matches { file, of: None, found: &mut found };
                file.visit(&parsed, &mut matches);
            }
            Err(finding) => found.push(finding),
        }
    }
    found
}

struct Matches<'f> {
    file: &'f File,
    /// The type that `Self` is.
    of: Option<String>,
    found: &'f mut Vec<Finding>,
}

impl<'a> Visit<'a> for Matches<'_> {
    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let of = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
            _ => None,
        };
        let outer = std::mem::replace(&mut self.of, of);
        visit::visit_item_impl(self, item);
        self.of = outer;
    }

    fn visit_expr_match(&mut self, found: &'a ExprMatch) {
        for (name, line) in caught(found, self.of.as_deref()) {
            self.found.push(self.file.finding(line, format!("an arm catches all other variants of `{name}`")));
        }
        visit::visit_expr_match(self, found);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        for expression in &arguments(call).0 {
            let mut inner = Matches { file: self.file, of: self.of.clone(), found: self.found };
            inner.visit_expr(expression);
        }
    }
}

/// Where patterns stand within the matched value, and the enums that arms name there.
type Named = BTreeMap<String, &'static str>;

/// The enums whose other variants an arm catches, with the arm's line.
fn caught(found: &ExprMatch, of: Option<&str>) -> Vec<(&'static str, usize)> {
    let mut named = Named::new();
    found.arms.iter().for_each(|arm| name(&arm.pat, "", of, &mut named));
    let open = found.arms.iter().filter(|arm| arm.guard.is_none());
    open.filter_map(|arm| Some((catches(&arm.pat, "", &named)?, arm.pat.span().start().line))).collect()
}

/// Notes every place in a pattern that names a variant.
fn name(pattern: &Pat, place: &str, of: Option<&str>, named: &mut Named) {
    let mut path = |path: &syn::Path| {
        if let Some(found) = variant(path, of) {
            named.insert(place.into(), found);
        }
    };
    match pattern {
        Pat::Path(p) => path(&p.path),
        Pat::Struct(p) => path(&p.path),
        Pat::TupleStruct(p) => path(&p.path),
        _ => {}
    }
    for (place, inner) in within(pattern, place) {
        name(inner, &place, of, named);
    }
}

/// The enum whose variant a path names: `Op::MatMul`, or `Self::MatMul` in its own methods.
fn variant(path: &syn::Path, of: Option<&str>) -> Option<&'static str> {
    let mut segments = path.segments.iter().rev().skip(1).map(|s| s.ident.to_string());
    let owner = segments.next()?;
    let owner = if owner == "Self" { of? } else { &owner };
    ENUMS.into_iter().find(|name| *name == owner)
}

/// The patterns within a pattern, each with its place. Those that only wrap another stand in the same place.
fn within<'p>(pattern: &'p Pat, place: &str) -> Vec<(String, &'p Pat)> {
    let same = |inner: &'p Pat| (place.to_string(), inner);
    match pattern {
        Pat::Or(p) => p.cases.iter().map(same).collect(),
        Pat::Paren(p) => vec![same(&p.pat)],
        Pat::Reference(p) => vec![same(&p.pat)],
        Pat::Ident(p) => p.subpat.iter().map(|(_, inner)| same(inner)).collect(),
        Pat::Tuple(p) => p.elems.iter().enumerate().map(|(i, inner)| (format!("{place}({i}"), inner)).collect(),
        Pat::TupleStruct(p) => {
            let name = p.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
            if matches!(name.as_str(), "Some" | "Ok") {
                return p.elems.iter().map(same).collect();
            }
            p.elems.iter().enumerate().map(|(i, inner)| (format!("{place}.{name}{i}"), inner)).collect()
        }
        _ => Vec::new(),
    }
}

/// The enum whose variants a pattern catches without their names: `_` or a binding where other arms name them. In a
/// tuple, it is a row that names a variant in none of the places where others do.
fn catches(pattern: &Pat, place: &str, named: &Named) -> Option<&'static str> {
    let all = match pattern {
        Pat::Wild(_) => true,
        // What begins with a capital is `None` or a constant.
        Pat::Ident(p) => p.subpat.is_none() && !p.ident.to_string().starts_with(char::is_uppercase),
        _ => false,
    };
    if all {
        // Of a tuple as a whole, too.
        return named
            .iter()
            .find(|(at, _)| *at == place || at.starts_with(&format!("{place}(")))
            .map(|(_, name)| *name);
    }
    if let Pat::Tuple(_) = pattern {
        let places = within(pattern, place);
        let relevant: Vec<_> = places.iter().filter(|(at, _)| named.contains_key(at)).collect();
        let rows = relevant.iter().map(|(at, inner)| catches(inner, at, named));
        return rows.reduce(|a, b| a.and(b)).flatten();
    }
    within(pattern, place).iter().find_map(|(at, inner)| catches(inner, at, named))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::source::Tree;

    fn found(body: &str) -> usize {
        check(&Tree::of(&[("crates/a/src/b.rs", &format!("fn f() {{ {body} }}"))])).len()
    }

    #[test]
    fn an_arm_that_catches_all_is_found_however_it_is_written() {
        for body in [
            "match op { Op::A => 1, _ => 2 }",
            "match op { Op::A(..) | Op::B { .. } => 1, other => 2 }",
            "match &op { &Op::A => 1, _ => 2 }",
            "match dtype { crate::DType::F32 => 1, _ => 2 }",
            "match (op, x) { (Op::A, true) => 1, (_, true) => 2, (Op::B, false) => 3 }",
            "match (op, x) { (Op::A, true) => 1, _ => 2 }",
            "match op { Op::Backward(Backward::A) => 1, Op::Backward(_) => 2, Op::B => 3 }",
            "match op { Some(Op::A) => 1, None => 2, Some(_) => 3 }",
            "vec![match update { Update::A => 1, _ => 2 }]",
            "matches!(match update { Update::A => 1, _ => 2 }, 1)",
            "match x { 1 => match op { Op::A => 1, _ => 2 }, _ => 2 }",
        ] {
            assert_eq!(found(body), 1, "{body}");
        }
    }

    #[test]
    fn what_names_every_variant_passes() {
        for body in [
            "match op { Op::A => 1, Op::B(_) => 2 }",
            "match op { Op::A => 1, Op::B(..) if x => 2, _ if y => 3, Op::B(..) => 4 }",
            "matches!(op, Op::A | Op::B)",
            "match unary { Unary::A => 1, _ => 2 }",
            "match (a, b) { (DType::F64, _) | (_, DType::F64) => 1, (DType::F32, DType::F32) => 2 }",
            "match (op, x) { (Op::A, _) => 1, (Op::B, true) => 2, (Op::B, _) => 3 }",
            "match op { Op::Unary(Unary::A) => 1, Op::Unary(_) => 2, Op::B => 3 }",
        ] {
            assert_eq!(found(body), 0, "{body}");
        }
    }

    #[test]
    fn methods_of_the_enum_and_tests_are_told_apart() {
        let text = "impl Op { fn f(&self) { match self { Self::A => 1, _ => 2 } } }
            impl Unary { fn f(&self) { match self { Self::A => 1, _ => 2 } } }
            #[cfg(test)] mod tests { fn f() { match op { Op::A => 1, _ => 2 } } }";
        let found = check(&Tree::of(&[("crates/a/src/b.rs", text), ("crates/a/tests/b.rs", text)]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 1);
    }
}
