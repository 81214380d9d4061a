//! [`Array`]: a tensor whose dtype is known at run time. The core below `Tensor<T>` and `Var`.

use std::sync::{Arc, Weak};

use smallvec::SmallVec;

use crate::{ArrayMut, Class, DType, Device, Element, Error, Layout, Op, Result, Shape, Storage};

/// A view of a storage: dtype, layout, device. Cloning shares the storage.
#[derive(Clone)]
pub struct Array {
    dtype: DType,
    /// Type of the elements in memory, where a cast was left to whoever reads: see [`Array::cast_when_read`].
    stored: DType,
    layout: Layout,
    storage: Arc<Storage>,
    device: Device,
}

/// Dtype and layout of an input or output, without its memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meta {
    /// Element type.
    pub dtype: DType,
    /// Shape and strides.
    pub layout: Layout,
}

impl Meta {
    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.layout.shape
    }
}

/// An array that does not keep its memory alive.
#[derive(Clone, Debug)]
pub struct WeakArray {
    meta: Meta,
    stored: DType,
    storage: Weak<Storage>,
    device: Device,
}

impl WeakArray {
    /// The array, if something else keeps its memory.
    pub fn upgrade(&self) -> Option<Array> {
        let storage = self.storage.upgrade()?;
        Some(Array {
            dtype: self.meta.dtype,
            stored: self.stored,
            layout: self.meta.layout,
            storage,
            device: self.device.clone(),
        })
    }
}

/// Arrays an operator returns. An array is large, and the list is moved often: room for the usual one.
pub type Arrays = SmallVec<[Array; 1]>;

impl Array {
    /// An array of memory that is there.
    pub(crate) fn assemble(meta: Meta, stored: DType, storage: Arc<Storage>, device: &Device) -> Array {
        Array { dtype: meta.dtype, stored, layout: meta.layout, storage, device: device.clone() }
    }

    /// Uninitialised array (arbitrary values) of a layout.
    ///
    /// # Errors
    /// Out of memory, of which the caller says for what operator ([`Error::during`]).
    pub fn alloc(device: &Device, meta: Meta, class: Class) -> Result<Array> {
        let storage = device.alloc(meta.dtype, meta.layout.end(), class)?;
        Ok(Array { dtype: meta.dtype, stored: meta.dtype, layout: meta.layout, storage, device: device.clone() })
    }

    /// [`Array::alloc`] for an operator, which an error names.
    pub(crate) fn room(device: &Device, meta: Meta, class: Class, op: &'static str) -> Result<Array> {
        Array::alloc(device, meta, class).map_err(|error| error.during(op))
    }

    /// An array with the given elements in row-major order.
    ///
    /// # Errors
    /// The number of elements does not fit the shape; out of memory.
    pub fn from_slice<T: Element>(device: &Device, data: &[T], shape: &[usize], class: Class) -> Result<Array> {
        let shape = Shape::new(shape)?;
        if data.len() != shape.numel() {
            return Err(Error::Length { shape, found: data.len() });
        }
        let array = Array::room(device, Meta { dtype: T::DTYPE, layout: Layout::contiguous(shape) }, class, "upload")?;
        // SAFETY: every element type has no padding bytes, so its memory is initialised bytes.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) };
        device.upload(bytes, &mut ArrayMut::new("upload", &array)?)?;
        Ok(array)
    }

    /// An array from the bytes of its elements (native endianness) in row-major order.
    ///
    /// # Errors
    /// The number of bytes does not fit the shape; out of memory.
    pub fn from_bytes(device: &Device, dtype: DType, bytes: &[u8], shape: &[usize], class: Class) -> Result<Array> {
        let shape = Shape::new(shape)?;
        if bytes.len() != shape.numel() * dtype.size() {
            return Err(Error::Length { shape, found: bytes.len() / dtype.size() });
        }
        if dtype == DType::Bool {
            // Only 0 and 1 are booleans.
            let values: Vec<bool> = bytes.iter().map(|&b| b != 0).collect();
            return Array::from_slice(device, &values, &shape, class);
        }
        let array = Array::room(device, Meta { dtype, layout: Layout::contiguous(shape) }, class, "upload")?;
        device.upload(bytes, &mut ArrayMut::new("upload", &array)?)?;
        Ok(array)
    }

    /// An array filled with one value.
    ///
    /// # Errors
    /// Out of memory.
    pub fn full(device: &Device, dtype: DType, shape: Shape, value: f64, class: Class) -> Result<Array> {
        crate::run_one(&Op::Fill { value, shape }, &[], device, dtype, class)
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// `T` is not the array's dtype; the storage is being written.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(Error::DType {
                op: "to_vec",
                expected: format!("an array of {}", T::DTYPE),
                dtypes: vec![self.dtype],
            });
        }
        let dense = self.written(Class::Workspace)?.contiguous(Class::Workspace)?;
        let bytes = self.device.download(&dense)?;
        let n = self.numel();
        let mut out: Vec<T> = Vec::with_capacity(n);
        debug_assert_eq!(bytes.len(), n * size_of::<T>());
        // SAFETY: the device returned n elements of T (bool bytes are 0 or 1 by the storage's invariant); the vector
        // has room for them and is aligned for T.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.as_mut_ptr().cast(), n * size_of::<T>());
            out.set_len(n);
        }
        Ok(out)
    }

    /// The elements in row-major order, widened to f64.
    ///
    /// # Errors
    /// The storage is being written.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>> {
        crate::with_element!(self.dtype, T => Ok(self.to_vec::<T>()?.into_iter().map(Element::as_f64).collect()))
    }

    /// The value of a one-element array, as f64.
    ///
    /// # Errors
    /// The array has not exactly one element.
    pub fn item(&self) -> Result<f64> {
        if self.numel() != 1 {
            return Err(Error::Shape { op: "item", expected: "one element".into(), shapes: vec![self.layout.shape] });
        }
        Ok(self.to_f64_vec()?[0])
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Type of the elements in memory: [`Array::dtype`], but for a cast that was left to whoever reads.
    pub fn stored(&self) -> DType {
        self.stored
    }

    /// Extents.
    pub fn shape(&self) -> &Shape {
        &self.layout.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.layout.numel()
    }

    /// Shape, strides and offset.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Whether the array is all that its memory holds, each element once.
    pub fn is_whole(&self) -> bool {
        let bytes = self.numel() * self.stored.size();
        self.layout.offset == 0 && self.layout.is_dense() && self.storage.size() == bytes
    }

    /// Whether nobody else has a share in the memory, not even a weak one.
    pub fn is_sole(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Dtype and layout.
    pub fn meta(&self) -> Meta {
        Meta { dtype: self.dtype, layout: self.layout }
    }

    /// This array without a share in its memory.
    pub fn downgrade(&self) -> WeakArray {
        WeakArray {
            meta: self.meta(),
            stored: self.stored,
            storage: Arc::downgrade(&self.storage),
            device: self.device.clone(),
        }
    }

    /// Another view of the same storage.
    ///
    /// # Errors
    /// The layout reaches past the end of the storage.
    pub fn with_layout(&self, layout: Layout) -> Result<Array> {
        let room = self.storage.size() / self.stored.size();
        if layout.end() > room {
            return Err(Error::Length { shape: layout.shape, found: room });
        }
        let offset = if layout.numel() == 0 { 0 } else { layout.offset };
        Ok(Array { layout: Layout { offset, ..layout }, ..self.clone() })
    }

    /// This array if it is in row-major order, else a copy that is.
    ///
    /// # Errors
    /// Out of memory.
    pub fn contiguous(&self, class: Class) -> Result<Array> {
        if self.layout.is_contiguous() {
            return Ok(self.clone());
        }
        crate::run_one(&Op::Copy, &[self], &self.device, self.dtype, class)
    }

    /// A copy in another dtype (nearest even), or this array if it has it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cast(&self, dtype: DType, class: Class) -> Result<Array> {
        if self.dtype == dtype {
            return Ok(self.clone());
        }
        crate::run_one(&Op::Cast(dtype), &[self], &self.device, dtype, class)
    }

    /// This array in a 16-bit format, rounded (nearest even) by whoever reads it: a cast of f32 that takes no memory.
    /// Products and convolutions round as they pack their operands; for any other operator [`crate::run`] writes the
    /// cast first. The bits are those of [`Array::cast`]. The array shares this one's storage, and changes with it.
    ///
    /// # Errors
    /// Out of memory: a cast between other dtypes is made at once.
    pub fn cast_when_read(&self, dtype: DType, class: Class) -> Result<Array> {
        if self.is_written() && self.dtype == DType::F32 && dtype.is_half() {
            return Ok(Array { dtype, ..self.clone() });
        }
        self.cast(dtype, class)
    }

    /// Whether the elements in memory are of the array's dtype: no cast was left to whoever reads.
    pub fn is_written(&self) -> bool {
        self.stored == self.dtype
    }

    /// This array, with a cast that was left to whoever reads made.
    ///
    /// # Errors
    /// Out of memory.
    pub fn written(&self, class: Class) -> Result<Array> {
        let memory = Array { dtype: self.stored, ..self.clone() };
        memory.cast(self.dtype, class)
    }

    /// This array on a device, in the same memory order where that has no gaps: itself if it is there, else a copy
    /// that goes through the host.
    ///
    /// # Errors
    /// Out of memory; the storage is being written; what an asynchronous device reports late.
    pub fn to(&self, device: &Device) -> Result<Array> {
        if self.device == *device {
            return Ok(self.clone());
        }
        let class = self.storage.class();
        let source = self.written(class)?;
        let source = if source.layout.is_dense() { source } else { source.contiguous(Class::Workspace)? };
        let (dtype, layout) = (source.dtype, Layout { offset: 0, ..source.layout });
        let copy = Array::room(device, Meta { dtype, layout }, class, "to")?;
        if source.numel() > 0 {
            device.upload(&source.device.download(&source.flat()?)?, &mut ArrayMut::new("to", &copy.flat()?)?)?;
        }
        Ok(copy)
    }

    /// The elements of a dense array in one dimension, in the order of memory.
    fn flat(&self) -> Result<Array> {
        let line = Layout::contiguous(Shape::new(&[self.numel()])?);
        self.with_layout(Layout { offset: self.layout.offset, ..line })
    }

    /// Writes the elements of `from` (same shape, any dtype and device) into this array's storage; the version rises.
    ///
    /// # Errors
    /// Shapes differ, or a storage is in use; between devices as [`Array::to`].
    pub fn copy_from(&self, from: &Array) -> Result<()> {
        if self.shape() != from.shape() {
            return Err(Error::Shape {
                op: "copy_from",
                expected: "equal shapes".into(),
                shapes: vec![*self.shape(), *from.shape()],
            });
        }
        let from = from.written(Class::Workspace)?.to(&self.device)?;
        let op = if from.dtype == self.dtype { Op::Copy } else { Op::Cast(self.dtype) };
        self.device.run(&op, &[&from], &mut [ArrayMut::new("copy_from", self)?])
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.layout.shape)?;
        if let Ok(values) = self.to_f64_vec() {
            f.debug_list().entries(values.iter().take(16)).finish()?;
            if values.len() > 16 {
                f.write_str("…")?;
            }
        }
        Ok(())
    }
}
