//! Copies between host and device through memory that stays where it is: the device fetches it by itself, and the host
//! goes on meanwhile.

use std::collections::VecDeque;
use std::ffi::c_void;

use cudarc::driver::{DriverError, result, sys};

/// Longer copies go without: the host would copy longer than it waits.
const MOST: usize = 4 << 20;
/// Bytes of a buffer at least.
const LEAST: usize = 64 << 10;
/// Bytes of all buffers at most.
const ALL: usize = 64 << 20;

/// Buffers of one stream.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    free: Vec<Buffer>,
    /// Those that the device may still read, the oldest first.
    busy: VecDeque<Buffer>,
    bytes: usize,
}

#[derive(Debug)]
struct Buffer {
    at: *mut c_void,
    bytes: usize,
    /// When the device has read it.
    read: sys::CUevent,
}

impl Buffer {
    fn new(bytes: usize) -> Result<Buffer, DriverError> {
        // Made first: what fails leaves nothing behind.
        let read = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: it is written before it is read.
        match unsafe { result::malloc_host(bytes, 0) } {
            Ok(at) => Ok(Buffer { at, bytes, read }),
            Err(error) => {
                // SAFETY: nobody uses the event.
                let _ = unsafe { result::event::destroy(read) };
                Err(error)
            }
        }
    }

    fn slice(&mut self, bytes: usize) -> &mut [u8] {
        // SAFETY: the buffer has as many bytes or more, and this borrow of it is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), bytes) }
    }
}

impl Pinned {
    /// A buffer that nobody reads any more; `None` where copies go without.
    fn take(&mut self, bytes: usize) -> Result<Option<Buffer>, DriverError> {
        if bytes > MOST {
            return Ok(None);
        }
        while let Some(oldest) = self.busy.front() {
            // SAFETY: the event is the buffer's.
            match unsafe { result::event::query(oldest.read) } {
                Ok(()) => self.free.extend(self.busy.pop_front()),
                Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => break,
                Err(error) => return Err(error),
            }
        }
        let fits = |buffer: &Buffer| buffer.bytes >= bytes;
        if let Some(i) = self.free.iter().position(fits) {
            return Ok(Some(self.free.swap_remove(i)));
        }
        let size = bytes.max(LEAST).next_power_of_two();
        if self.bytes + size <= ALL
            && let Ok(buffer) = Buffer::new(size)
        {
            self.bytes += size;
            return Ok(Some(buffer));
        }
        // The oldest that is large enough, when it was read; those before it have been then.
        let Some(i) = self.busy.iter().position(fits) else { return Ok(None) };
        // SAFETY: the event is the buffer's.
        unsafe { result::event::synchronize(self.busy[i].read) }?;
        let found = self.busy.remove(i);
        self.free.extend(self.busy.drain(..i));
        Ok(found)
    }

    /// Queues a copy to the device; the bytes are read before it returns.
    pub(super) fn write(&mut self, to: u64, bytes: &[u8], stream: sys::CUstream) -> Result<(), DriverError> {
        let Some(mut buffer) = self.take(bytes.len())? else {
            // SAFETY: the range lies in an allocation. Bytes that are not pinned are read before the call returns.
            return unsafe { result::memcpy_htod_async(to, bytes, stream) };
        };
        buffer.slice(bytes.len()).copy_from_slice(bytes);
        // SAFETY: as above; the buffer is not written to before the event.
        let queued = unsafe {
            result::memcpy_htod_async(to, buffer.slice(bytes.len()), stream)
                .and_then(|()| result::event::record(buffer.read, stream))
        };
        self.busy.push_back(buffer);
        queued
    }

    /// Copies from the device, when all that is queued before has run. Waits once, whatever fails: what was queued is
    /// still written to.
    pub(super) fn read(&mut self, copies: &mut [(u64, &mut [u8])], stream: sys::CUstream) -> Result<(), DriverError> {
        let mut buffers = Vec::with_capacity(copies.len());
        let mut queue = |(from, to): &mut (u64, &mut [u8])| {
            let mut buffer = self.take(to.len())?;
            let target = match &mut buffer {
                Some(buffer) => buffer.slice(to.len()),
                None => to,
            };
            // SAFETY: the range lies in an allocation; the buffer, or the borrowed bytes, live until the stream was
            // waited for.
            let queued = unsafe { result::memcpy_dtoh_async(target, *from, stream) };
            buffers.push(buffer);
            queued
        };
        let queued = copies.iter_mut().filter(|(_, to)| !to.is_empty()).try_for_each(&mut queue);
        // SAFETY: the stream lives as long as the device.
        let waited = unsafe { result::stream::synchronize(stream) };
        for (buffer, (_, to)) in buffers.into_iter().zip(copies.iter_mut().filter(|(_, to)| !to.is_empty())) {
            if let Some(mut buffer) = buffer {
                to.copy_from_slice(buffer.slice(to.len()));
                self.free.push(buffer);
            }
        }
        queued.and(waited)
    }
}
