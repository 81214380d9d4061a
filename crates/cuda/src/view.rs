//! Operands as kernels see them.

use binade_tensor::{Array, DType, Layout, MAX_RANK, Shape};
use bytemuck::{Pod, Zeroable};
use smallvec::SmallVec;

use crate::memory::CudaMemory;

/// Number of a dtype in kernels; f64 has none.
pub(crate) fn code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::I64 => 3,
        DType::U32 => 4,
        DType::I8 => 5,
        DType::Bool => 6,
        // Refused where memory is asked for.
        DType::F64 => u32::MAX,
    }
}

/// An array of the device without its borrow, which ends when a command is queued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Address of the storage.
    base: u64,
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
}

impl View {
    pub(crate) fn new(array: &Array, memory: &CudaMemory) -> View {
        View { base: memory.address(), dtype: array.stored(), layout: *array.layout() }
    }

    /// Memory of the device that is no array: elements one after the other.
    pub(crate) fn line(at: u64, dtype: DType, shape: Shape) -> View {
        View { base: at, dtype, layout: Layout::contiguous(shape) }
    }

    /// The same memory in another layout.
    pub(crate) fn with_layout(&self, layout: Layout) -> View {
        View { layout, ..*self }
    }

    /// Address of the first element.
    pub(crate) fn at(&self) -> u64 {
        self.base + (self.layout.offset * self.dtype.size()) as u64
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.layout.shape
    }

    pub(crate) fn numel(&self) -> usize {
        self.layout.numel()
    }

    pub(crate) fn stride(&self, dim: usize) -> i64 {
        self.layout.strides[dim] as i64
    }

    /// As a kernel's operand, with these strides.
    pub(crate) fn operand(&self, strides: &[usize]) -> Operand {
        let mut operand = Operand { at: self.at(), dtype: code(self.dtype), unused: 0, strides: [0; MAX_RANK] };
        operand.strides.iter_mut().zip(strides).for_each(|(to, &stride)| *to = stride as i64);
        operand
    }
}

/// `Operand` of `common.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Operand {
    pub(crate) at: u64,
    pub(crate) dtype: u32,
    unused: u32,
    strides: [i64; MAX_RANK],
}

/// Dimensions that a kernel walks, innermost last: the extent, and each operand's stride.
#[derive(Clone, Debug)]
pub(crate) struct Walk<const N: usize> {
    pub(crate) extents: SmallVec<[usize; MAX_RANK]>,
    pub(crate) strides: [SmallVec<[usize; MAX_RANK]>; N],
}

impl<const N: usize> Walk<N> {
    /// The dimensions of layouts of one shape, in the memory order of the first, merged where they lie behind each
    /// other in all. Never none: a scalar is one element.
    pub(crate) fn new(layouts: [&Layout; N]) -> Walk<N> {
        let order = layouts[0].order();
        Walk::of(layouts, order.iter().copied())
    }

    /// As [`Walk::new`], of some dimensions in a given order.
    pub(crate) fn of(layouts: [&Layout; N], dims: impl Iterator<Item = usize>) -> Walk<N> {
        let mut walk = Walk { extents: SmallVec::new(), strides: std::array::from_fn(|_| SmallVec::new()) };
        let shape = layouts[0].shape;
        for d in dims.filter(|&d| shape[d] != 1) {
            let follows = |k: usize| {
                walk.strides[k].last().is_some_and(|&outer: &usize| outer == layouts[k].strides[d] * shape[d])
            };
            if let Some(last) = walk.extents.len().checked_sub(1).filter(|_| (0..N).all(follows)) {
                walk.extents[last] *= shape[d];
                (0..N).for_each(|k| walk.strides[k][last] = layouts[k].strides[d]);
            } else {
                walk.extents.push(shape[d]);
                (0..N).for_each(|k| walk.strides[k].push(layouts[k].strides[d]));
            }
        }
        if walk.extents.is_empty() {
            walk.extents.push(1);
            (0..N).for_each(|k| walk.strides[k].push(0));
        }
        walk
    }

    /// The extents as kernels take them.
    pub(crate) fn extents(&self) -> [u32; MAX_RANK] {
        let mut extents = [1; MAX_RANK];
        extents.iter_mut().zip(&self.extents).for_each(|(to, &extent)| *to = extent as u32);
        extents
    }

    /// The strides of an operand as kernels take them.
    pub(crate) fn strides(&self, k: usize) -> [i64; MAX_RANK] {
        let mut strides = [0; MAX_RANK];
        strides.iter_mut().zip(&self.strides[k]).for_each(|(to, &stride)| *to = stride as i64);
        strides
    }

    pub(crate) fn rank(&self) -> u32 {
        self.extents.len() as u32
    }
}
