//! Places and first contents of a module's global and constant variables.

use std::collections::HashMap;

use crate::ast::{Init, Module, Variable};
use crate::error::{Error, Result};
use crate::types::Space;

/// Where the module's variables are.
#[derive(Debug, Default)]
pub(crate) struct GlobalLayout {
    /// Space and address within it, by name.
    pub addresses: HashMap<String, (Space, u64)>,
    /// The constant bank.
    pub bank: Vec<u8>,
}

/// What global memory holds at first, by address.
pub(crate) type Contents = Vec<(u64, Vec<u8>)>;

/// Where the first constant is: zero is no address.
const CONST_START: usize = 64;

/// Places the variables; `allocate` gives an address in global memory for so many bytes.
///
/// The second result is what global memory holds at first, by address.
pub(crate) fn place(
    module: &Module,
    mut allocate: impl FnMut(usize) -> Result<u64>,
) -> Result<(GlobalLayout, Contents)> {
    let mut layout = GlobalLayout::default();
    let mut end = CONST_START;
    let placed = |v: &&Variable| matches!(v.space, Space::Global | Space::Const);
    for v in module.variables.iter().filter(placed) {
        let bytes = size(v)?;
        let address = if v.space == Space::Const {
            let start = end.next_multiple_of(v.align.max(1));
            end = start + bytes;
            start as u64
        } else {
            allocate(bytes)?
        };
        layout.addresses.insert(v.name.clone(), (v.space, address));
    }
    layout.bank = vec![0; end];
    let mut global = Vec::new();
    for v in module.variables.iter().filter(placed) {
        let bytes = contents(v, &layout)?;
        let address = layout.addresses[&v.name].1;
        if v.space == Space::Const {
            let start = address as usize;
            layout.bank[start..start + bytes.len()].copy_from_slice(&bytes);
        } else {
            global.push((address, bytes));
        }
    }
    Ok((layout, global))
}

fn size(v: &Variable) -> Result<usize> {
    v.elements.map(|n| n * v.ty.size()).ok_or_else(|| Error::Unsupported {
        line: v.line,
        form: v.name.clone(),
        reason: format!("a {} variable of unknown extent", v.space),
    })
}

fn contents(v: &Variable, layout: &GlobalLayout) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(size(v)?);
    for init in &v.init {
        let bits = match init {
            Init::Bits(bits) => *bits,
            Init::Address { name, offset } => match layout.addresses.get(name) {
                Some((Space::Global, address)) => address.wrapping_add_signed(*offset),
                _ => {
                    let message = format!("`{}`: the address of `{name}` is not known here", v.name);
                    return Err(Error::Parse { line: v.line, message });
                }
            },
        };
        out.extend_from_slice(&bits.to_le_bytes()[..v.ty.size().min(8)]);
    }
    let bytes = size(v)?;
    if out.len() > bytes {
        let message = format!("`{}` has {bytes} bytes, its initialiser {}", v.name, out.len());
        return Err(Error::Parse { line: v.line, message });
    }
    out.resize(bytes, 0);
    Ok(out)
}
