//! Memory of a [`Remote`](super::Remote): blocks that are given out again as soon as they are freed.

use std::any::Any;
use std::sync::Arc;

use super::queue::{Block, Command, Operand, Queue};
use crate::{Class, DType, DeviceMemory, Meta, Result};

/// A block while it is one storage's.
#[derive(Debug)]
pub(super) struct RemoteMemory {
    queue: Arc<Queue>,
    block: Arc<Block>,
    /// Tells this use of the block from those before and after.
    owner: u64,
    size: usize,
    class: Class,
}

impl RemoteMemory {
    /// A block of so many bytes.
    ///
    /// # Errors
    /// Out of memory, or an allocation that was to fail.
    pub(super) fn new(queue: &Arc<Queue>, dtype: DType, size: usize, class: Class) -> Result<RemoteMemory> {
        let (block, owner) = queue.alloc(dtype, size, class)?;
        queue.accounting().add(class, size);
        Ok(RemoteMemory { queue: queue.clone(), block, owner, size, class })
    }

    pub(super) fn is_of(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }

    pub(super) fn operand(&self, meta: Meta, stored: DType) -> Operand {
        Operand { block: self.block.clone(), owner: self.owner, size: self.size, meta, stored }
    }
}

impl DeviceMemory for RemoteMemory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl Drop for RemoteMemory {
    fn drop(&mut self) {
        self.queue.accounting().remove(self.class, self.size);
        self.queue.push(Command::Free { block: self.block.clone(), owner: self.owner });
    }
}
