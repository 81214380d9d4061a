//! Dependencies point down: between crates, and between the modules of a crate that has an order of its own.

use std::collections::BTreeMap;

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::UseTree;
use syn::visit::{self, Visit};

use crate::source::{File, Finding, Tree};

/// The crates by their folders, those below first. Of one row, none depends on another.
const CRATES: &[&[&str]] = &[
    &["crates/derive", "crates/ptx", "crates/tensor"],
    &["crates/cpu", "crates/plan"],
    &["crates/autograd", "crates/cuda"],
    &["crates/nn"],
    &["crates/amp", "crates/weights"],
    &["crates/models", "crates/standin", "crates/train"],
    &["crates/diffusion"],
    &["crates/binade"],
    &["crates/lab"],
    &["crates/tidy", "xtask"],
];

/// Those that depend on no crate of the workspace.
const ALONE: [&str; 3] = ["crates/ptx", "crates/tidy", "xtask"];

/// Crates whose root lists its modules in layers, a blank line between them. Modules import from earlier ones.
const LAYERED: [&str; 1] = ["crates/autograd"];

/// Between crates: what each `Cargo.toml` lists, for tests too.
pub fn check(tree: &Tree) -> Vec<Finding> {
    between(tree, CRATES)
}

fn between(tree: &Tree, order: &[&[&str]]) -> Vec<Finding> {
    let mut found = Vec::new();
    let row = |folder: &str| order.iter().position(|row| row.contains(&folder));
    let manifests = || {
        tree.files.iter().filter_map(|file| {
            let folder = file.path.strip_suffix("/Cargo.toml")?;
            (!folder.starts_with("examples/")).then_some((file, folder))
        })
    };
    let folders: BTreeMap<&str, &str> =
        manifests().filter_map(|(file, folder)| Some((package(&file.text)?, folder))).collect();
    for (file, folder) in manifests() {
        let Some(own) = row(folder) else {
            found.push(file.finding(1, "the order of the crates, in crates/tidy/src/arrows.rs, lacks this one"));
            continue;
        };
        for (line, name) in dependencies(&file.text) {
            let Some(&other) = folders.get(name).filter(|other| **other != folder) else { continue };
            if ALONE.contains(&folder) || row(other).is_some_and(|other| other >= own) {
                found.push(file.finding(line, format!("{name} is not below {folder}")));
            }
        }
    }
    found
}

fn package(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
}

/// The names in the tables of dependencies, with their lines.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let (mut within, mut found) = (false, Vec::new());
    for (i, line) in manifest.lines().enumerate() {
        if let Some(table) = line.strip_prefix('[') {
            within = table.trim_end_matches(']').ends_with("dependencies");
        } else if within && let Some((name, _)) = line.split_once(['.', ' ', '=']).filter(|(name, _)| !name.is_empty())
        {
            found.push((i + 1, name));
        }
    }
    found
}

/// Between the modules of a crate.
pub fn check_layers(tree: &Tree) -> Vec<Finding> {
    LAYERED.iter().flat_map(|folder| within(tree, folder)).collect()
}

fn within(tree: &Tree, folder: &str) -> Vec<Finding> {
    let root = format!("{folder}/src/lib.rs");
    let Some(root) = tree.files.iter().find(|file| file.path == root) else { return Vec::new() };
    let (layers, exports) = (layers(root), exports(root));
    let row = |module: &str| layers.iter().position(|row| row.iter().any(|m| m == module));
    let mut found = Vec::new();
    for file in tree.library() {
        let Some(path) = file.path.strip_prefix(&format!("{folder}/src/")) else { continue };
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = row(module) else { continue };
        for (line, name) in from_root(file) {
            let other = exports.get(&name).unwrap_or(&name);
            if other != module && row(other).is_some_and(|other| other >= own) {
                found
                    .push(file.finding(line, format!("`{module}` names `{other}`, which is not in a layer before it")));
            }
        }
    }
    found
}

/// The modules that the root of a crate lists, by layer.
fn layers(root: &File) -> Vec<Vec<String>> {
    let (mut rows, mut last) = (Vec::<Vec<String>>::new(), 0);
    for item in root.parse().map(|parsed| parsed.items).unwrap_or_default() {
        let syn::Item::Mod(item) = item else { continue };
        let line = item.mod_token.span.start().line;
        match rows.last_mut().filter(|_| line == last + 1) {
            Some(row) => row.push(item.ident.to_string()),
            None => rows.push(vec![item.ident.to_string()]),
        }
        last = line;
    }
    rows
}

/// The names that a file takes from the root of its crate, by `crate::`, with their lines.
fn from_root(file: &File) -> Vec<(usize, String)> {
    let mut names = Names::default();
    if let Ok(parsed) = file.parse() {
        file.visit(&parsed, &mut names);
    }
    names.0
}

/// The names that the root of a crate exports of its modules, with the module of each.
fn exports(root: &File) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for item in root.parse().map(|parsed| parsed.items).unwrap_or_default() {
        let syn::Item::Use(item) = item else { continue };
        let syn::UseTree::Path(path) = &item.tree else { continue };
        leaves(&path.tree, &mut |name| {
            found.insert(name.to_string(), path.ident.to_string());
        });
    }
    found
}

/// The names at the ends of an import, as they are called from then on.
fn leaves(tree: &UseTree, each: &mut impl FnMut(&Ident)) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, each),
        UseTree::Name(name) => each(&name.ident),
        UseTree::Rename(rename) => each(&rename.rename),
        UseTree::Group(group) => group.items.iter().for_each(|item| leaves(item, each)),
        UseTree::Glob(_) => {}
    }
}

#[derive(Default)]
struct Names(Vec<(usize, String)>);

impl Names {
    fn note(&mut self, name: &Ident) {
        self.0.push((name.span().start().line, name.to_string()));
    }

    /// The first names of an import.
    fn begin(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.note(&path.ident),
            UseTree::Name(name) => self.note(&name.ident),
            UseTree::Rename(rename) => self.note(&rename.ident),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.begin(item)),
            UseTree::Glob(_) => {}
        }
    }

    /// In the arguments of a macro, `crate::name` is so many tokens.
    fn read(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        for (i, tree) in trees.iter().enumerate() {
            match (tree, trees.get(i + 3)) {
                (TokenTree::Group(group), _) => self.read(group.stream()),
                (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word == "crate" => self.note(name),
                _ => {}
            }
        }
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if let UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.begin(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if let Some(name) = path.segments.get(1).filter(|_| path.segments[0].ident == "crate") {
            self.note(&name.ident);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.read(call.tokens.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::{between, within};
    use crate::source::Tree;

    fn told(a: &str, b: &str) -> Vec<String> {
        let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
        let (a, b) = (manifest("binade-a", a), manifest("binade-b", b));
        let tree = Tree::of(&[("crates/a/Cargo.toml", &a), ("crates/b/Cargo.toml", &b)]);
        between(&tree, &[&["crates/a"], &["crates/b"]]).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn a_crate_that_depends_on_one_above_it_is_found() {
        assert!(told("", "[dependencies]\nbinade-a.workspace = true\nserde = \"1\"\n").is_empty());
        for table in ["dependencies", "dev-dependencies", "target.'cfg(unix)'.dependencies"] {
            let up = told(&format!("[{table}]\nbinade-b = {{ path = \"../b\" }}\n"), "");
            assert_eq!(up, ["binade-b is not below crates/a"]);
        }
        // Itself, with more features, is what its tests may ask for.
        assert!(told("[dev-dependencies]\nbinade-a = { path = \".\" }\n", "").is_empty());
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        let tree = Tree::of(&[("crates/c/Cargo.toml", "[package]\nname = \"binade-c\"\n")]);
        assert_eq!(between(&tree, &[&["crates/a"]]).len(), 1);
    }

    #[test]
    fn a_module_that_names_one_of_a_later_layer_is_found() {
        let found = |low: &str| {
            let root = "mod low;\nmod level;\n\nmod high;\npub use high::{Thing, other as Other};\n";
            let files = [
                ("crates/a/src/lib.rs", root),
                ("crates/a/src/low/part.rs", low),
                ("crates/a/src/high.rs", "use crate::low::x;"),
            ];
            within(&Tree::of(&files), "crates/a").into_iter().map(|f| f.what).collect::<Vec<_>>()
        };
        for up in [
            "use crate::high::x;",
            "use crate::{low::y, high::{x, z}};",
            "use crate::Thing;",
            "fn f() { crate::Other(1) }",
            "fn f() { vec![crate::high::x()] }",
        ] {
            assert_eq!(found(up), ["`low` names `high`, which is not in a layer before it"], "{up}");
        }
        assert_eq!(found("use crate::level::x;").len(), 1);
        assert!(found("use crate::low::y; use other::high;").is_empty());
    }
}
