//! One instruction of the PTX that ships, changed. Places are named by the source's line, so that registers may have
//! other numbers; what does not fit exactly is an error, so that a rewritten kernel does not go untested.

use std::path::Path;

use binade_cuda::Module;

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub module: Module,
    pub kernel: &'static str,
    /// Text of the source's line that it comes from, as in the files of the module; empty for any line.
    pub line: &'static str,
    /// The opcode with all its modifiers.
    pub opcode: &'static str,
    /// Which of how many with this opcode there.
    pub nth: (usize, usize),
}

/// What is changed.
#[derive(Clone, Copy, Debug)]
pub enum Edit {
    /// The instruction is not there.
    Drop,
    /// Another opcode.
    Opcode(&'static str),
    /// An operand, counted from the destination, from 0, is another.
    Operand(usize, &'static str),
    /// A text within the instruction, which it has once, is another.
    Text(&'static str, &'static str),
    /// An atomic operation without a result is a plain store of its operand.
    Plain,
}

/// The PTX of the module with the change.
///
/// # Errors
/// Why there is no such instruction, or why it cannot be changed so.
pub fn apply(at: &At, edit: &Edit) -> Result<String, String> {
    let ptx = at.module.text();
    let start = ptx.find(&format!(".entry {}(", at.kernel)).ok_or("there is no such kernel")?;
    let end = start + ptx[start..].find("\n}\n").ok_or("the kernel does not end")?;
    let lines = source_lines(ptx, at.line)?;
    let (mut here, mut found, mut from): (Option<(usize, usize)>, _, _) = (None, Vec::new(), start);
    for text in ptx[start..end].split_inclusive('\n') {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [".loc", file, number, ..] => here = file.parse().ok().zip(number.parse().ok()),
            [predicate, opcode, ..] if predicate.starts_with('@') && opcode == at.opcode => found.push((from, text)),
            [opcode, ..] if opcode.trim_end_matches(';') == at.opcode => found.push((from, text)),
            _ => {}
        }
        let elsewhere = !at.line.is_empty() && here.is_none_or(|here| !lines.contains(&here));
        if elsewhere && found.last().is_some_and(|last| last.0 == from) {
            found.pop();
        }
        from += text.len();
    }
    let (nth, of) = at.nth;
    if found.len() != of {
        return Err(format!("{} instructions {}, expected {of}", found.len(), at.opcode));
    }
    let (from, text) = found[nth - 1];
    Ok([&ptx[..from], &changed(text, edit)?, &ptx[from + text.len()..]].concat())
}

fn changed(text: &str, edit: &Edit) -> Result<String, String> {
    let whole = text.trim();
    let (guard, rest) = match whole.split_once(char::is_whitespace) {
        Some((guard, rest)) if guard.starts_with('@') => (guard, rest.trim()),
        _ => ("", whole),
    };
    let (opcode, operands) = rest.trim_end_matches(';').split_once(char::is_whitespace).unwrap_or((rest, ""));
    let mut operands: Vec<&str> = operands.split(',').map(str::trim).collect();
    let put = |opcode: &str, operands: &[&str]| format!("{guard} {opcode} {};\n", operands.join(", "));
    let new = match *edit {
        Edit::Drop => "\n".to_string(),
        Edit::Opcode(other) => put(other, &operands),
        Edit::Operand(i, other) => {
            *operands.get_mut(i).ok_or("it has fewer operands")? = other;
            put(opcode, &operands)
        }
        Edit::Text(old, new) if whole.matches(old).count() == 1 => format!("{}\n", whole.replace(old, new)),
        Edit::Text(old, _) => return Err(format!("`{whole}` does not have `{old}` once")),
        Edit::Plain => match operands[..] {
            [_, address, value] => put("st.global.u32", &[address, value]),
            _ => return Err(format!("`{whole}` is no atomic operation")),
        },
    };
    if new.trim() == whole { Err(format!("`{whole}` is what it was")) } else { Ok(new) }
}

/// The lines with a text: numbers of files in the PTX, and of lines.
fn source_lines(ptx: &str, text: &str) -> Result<Vec<(usize, usize)>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut found = Vec::new();
    for line in ptx.lines().filter(|line| line.trim_start().starts_with(".file")) {
        let number = line.split_whitespace().nth(1).and_then(|number| number.parse().ok());
        let (Some(number), Some(name)) = (number, line.split('"').nth(1)) else { continue };
        let source = std::fs::read_to_string(folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
        found.extend((1..).zip(source.lines()).filter(|(_, line)| line.contains(text)).map(|(at, _)| (number, at)));
    }
    if found.is_empty() { Err(format!("no line of the sources has `{text}`")) } else { Ok(found) }
}
