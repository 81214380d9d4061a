//! Products on tensor cores: which operands they take, and by which kernel.

use binade_tensor::DType;

use super::product::Matrix;
use crate::module::Module;

/// A kernel of a product, and how many results in each dimension a block of it has.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) module: Module,
    pub(super) kernel: String,
    pub(super) tile: usize,
    pub(super) threads: usize,
    /// Whether places of the inner dimension lie side by side in the operands.
    pub(super) inner: [bool; 2],
}

/// Bytes that are copied at a time.
const CHUNK: u64 = 16;
/// Elements of these.
const ELEMENTS: i64 = 8;
/// From so many rows and columns on a block has the large tile.
const LARGE: usize = 96;

/// Whether an operand's places of the inner dimension lie side by side, or else its rows (of A; columns of B), in lines
/// that begin at multiples of [`CHUNK`]; `None` if neither. `outer` and `places` are extents and strides; a stride that
/// is never taken becomes 0.
fn is_inner(matrix: Matrix, outer: (usize, &mut i64), places: (usize, &mut i64)) -> Option<bool> {
    let aligned = |stride: i64| stride % ELEMENTS == 0;
    for (extent, stride) in [(outer.0, &mut *outer.1), (places.0, &mut *places.1)] {
        if extent <= 1 {
            *stride = 0;
        }
    }
    let side_by_side = |(extent, stride): (usize, i64)| extent <= 1 || stride == 1;
    let (outer, places) = ((outer.0, *outer.1), (places.0, *places.1));
    if !matrix.at.is_multiple_of(CHUNK) || !matrix.batches.iter().all(|&stride| aligned(stride)) {
        return None;
    }
    if side_by_side(places) && aligned(outer.1) {
        return Some(true);
    }
    (side_by_side(outer) && aligned(places.1)).then_some(false)
}

/// The format of two operands in the names of kernels; `None` if tensor cores of a capability have no such.
pub(super) fn format(capability: u32, dtypes: [DType; 2]) -> Option<&'static str> {
    match dtypes {
        [DType::F16, DType::F16] => Some("f16"),
        // Tensor cores of capability 7.5 have none.
        [DType::BF16, DType::BF16] if capability >= 80 => Some("bf16"),
        _ => None,
    }
}

/// Which of a family's modules for 7.5 and 8.0 has a capability's kernels, and how many rows and columns a block of
/// m × n results has.
pub(super) fn tile(capability: u32, [m, n]: [usize; 2], [sm75, sm80]: [Module; 2]) -> (Module, usize) {
    match capability {
        ..80 => (sm75, 64),
        _ if m >= LARGE && n >= LARGE => (sm80, 128),
        _ => (sm80, 64),
    }
}

/// The kernel for operands of these dtypes and extents m, n, k on a device of a capability; `None` if tensor cores do
/// not take them. Strides that are never taken are changed.
pub(super) fn choose(
    capability: u32,
    dtypes: [DType; 2],
    [a, b]: [&mut Matrix; 2],
    [m, n, k]: [usize; 3],
) -> Option<Choice> {
    let dtype = format(capability, dtypes)?;
    let (whole_a, whole_b) = (*a, *b);
    let inner = [
        is_inner(whole_a, (m, &mut a.rows), (k, &mut a.columns))?,
        is_inner(whole_b, (n, &mut b.columns), (k, &mut b.rows))?,
    ];
    let (module, tile) = tile(capability, [m, n], [Module::ProductSm75, Module::ProductSm80]);
    Some(Choice { module, kernel: format!("product_{dtype}_{tile}"), tile, threads: 128, inner })
}
