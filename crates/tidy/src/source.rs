//! The files that are checked, and what a check finds in them.

use std::fs;
use std::path::Path;

use syn::visit::Visit;

/// Folders that hold no source.
const SKIPPED: [&str; 5] = [".git", "target", "runs", "mutants.out", "mutants.out.old"];

/// A file of the repository: its path from the root, with `/`, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

/// All files of the repository that a check reads: `.rs`, `.md` and `.toml`.
pub struct Tree {
    pub files: Vec<File>,
}

/// A fault, at a line counted from 1.
#[derive(Debug, PartialEq)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub what: String,
}

impl Tree {
    /// Reads the files below `root`, in the order of their paths.
    pub fn read(root: &Path) -> Result<Tree, String> {
        let mut files = Vec::new();
        walk(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree { files })
    }

    /// A tree of the given paths and texts, for tests.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File { path: path.to_string(), text: text.to_string() };
        Tree { files: files.iter().map(file).collect() }
    }

    pub fn with_extension(&self, extension: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.path.rsplit_once('.').is_some_and(|(_, e)| e == extension))
    }

    /// Source of the crates, without their tests, examples and benchmarks.
    pub fn library(&self) -> impl Iterator<Item = &File> {
        self.with_extension("rs").filter(|file| {
            let test = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
            file.path.starts_with("crates/") && file.path.contains("/src/") && !test
        })
    }
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (path, kind) = (format!("{prefix}{name}"), entry.file_type().map_err(failed)?);
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() && [".rs", ".md", ".toml"].iter().any(|e| name.ends_with(e)) {
            let text = fs::read_to_string(entry.path()).map_err(|e| format!("{path}: {e}"))?;
            files.push(File { path, text });
        }
    }
    Ok(())
}

impl File {
    pub fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    /// Walks the parsed file, without what is compiled for tests only.
    pub fn visit<'a>(&self, parsed: &'a syn::File, visitor: &mut impl Visit<'a>) {
        for item in &parsed.items {
            if !for_tests(attributes(item)) {
                visitor.visit_item(item);
            }
        }
    }

    pub fn parse(&self) -> Result<syn::File, Finding> {
        syn::parse_file(&self.text).map_err(|e| self.finding(e.span().start().line, e.to_string()))
    }
}

/// Whether an item has `#[cfg(test)]`, `#[cfg(doctest)]` or `#[test]`.
fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && matches!(list.tokens.to_string().as_str(), "test" | "doctest")
        }
        syn::Meta::NameValue(_) => false,
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// What a macro holds that can be parsed: the arguments of those that read like a function's, as `vec!` does, and the
/// value and the pattern of `matches!`.
pub fn arguments(call: &syn::Macro) -> (Vec<syn::Expr>, Option<syn::Pat>) {
    if call.path.is_ident("matches") {
        let parse = |input: syn::parse::ParseStream<'_>| {
            let value: syn::Expr = input.parse()?;
            input.parse::<syn::Token![,]>()?;
            let pattern = syn::Pat::parse_multi_with_leading_vert(input)?;
            // A guard.
            input.parse::<proc_macro2::TokenStream>()?;
            Ok((vec![value], Some(pattern)))
        };
        return call.parse_body_with(parse).unwrap_or_default();
    }
    let list = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
    (call.parse_body_with(list).map(|list| list.into_iter().collect()).unwrap_or_default(), None)
}
