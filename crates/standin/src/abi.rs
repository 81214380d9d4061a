//! The driver's functions by their names. Handles are numbers: a context is its device's number and 1.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use binade_ptx::Launch;

use crate::machine::{self, Code, INVALID_CONTEXT, INVALID_VALUE, NO_DEVICE, SUCCESS};

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn told(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(SUCCESS)
}

/// Writes a result where the caller wants it.
fn give<T>(to: *mut T, value: Result<T, Code>) -> Code {
    told(value.and_then(|value| {
        if to.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives a place for one value.
        unsafe { to.write(value) };
        Ok(())
    }))
}

/// The device of this thread's context.
fn current() -> Result<std::sync::MutexGuard<'static, machine::Machine>, Code> {
    machine::machine(CURRENT.get().checked_sub(1).ok_or(INVALID_CONTEXT)?)
}

/// The functions of the driver: each is exported under its own name.
macro_rules! driver {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of the driver.")]
        // SAFETY: the name is the driver's, and this library takes its place.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> Code $body
    )*};
}

driver! {
    fn cuInit(_flags: c_uint) {
        if machine::count() == 0 { NO_DEVICE } else { SUCCESS }
    }

    fn cuDriverGetVersion(version: *mut c_int) {
        give(version, Ok(12040))
    }

    fn cuDeviceGetCount(count: *mut c_int) {
        give(count, Ok(machine::count() as c_int))
    }

    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        let index = usize::try_from(ordinal).map_err(|_| INVALID_VALUE);
        give(device, index.and_then(|index| machine::machine(index).map(|_| ordinal)))
    }

    fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) {
        let text = b"Stand-in on the interpreter of binade-ptx\0";
        if name.is_null() || (length as usize) < text.len() {
            return INVALID_VALUE;
        }
        // SAFETY: the caller gives a place for `length` bytes.
        unsafe { name.copy_from_nonoverlapping(text.as_ptr().cast(), text.len()) };
        SUCCESS
    }

    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        let capability = machine::capability() as c_int;
        give(value, match attribute {
            75 => Ok(capability / 10),
            76 => Ok(capability % 10),
            _ => Ok(0),
        })
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) {
        give(bytes, Ok(machine::memory()))
    }

    fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) {
        give(context, machine::machine(device as usize).map(|_| device as usize + 1))
    }

    fn cuDevicePrimaryCtxRelease_v2(_device: c_int) {
        SUCCESS
    }

    fn cuCtxSetCurrent(context: usize) {
        CURRENT.set(context);
        SUCCESS
    }

    fn cuCtxGetCurrent(context: *mut usize) {
        give(context, Ok(CURRENT.get()))
    }

    fn cuCtxSynchronize() {
        told(current().and_then(|machine| machine.state()))
    }

    fn cuStreamCreate(stream: *mut usize, _flags: c_uint) {
        give(stream, current().and_then(|machine| machine.state()).map(|()| 1))
    }

    fn cuStreamDestroy_v2(_stream: usize) {
        SUCCESS
    }

    fn cuStreamSynchronize(_stream: usize) {
        cuCtxSynchronize()
    }

    fn cuStreamQuery(_stream: usize) {
        cuCtxSynchronize()
    }

    fn cuEventCreate(event: *mut usize, _flags: c_uint) {
        give(event, current().and_then(|machine| machine.state()).map(|()| 1))
    }

    fn cuEventRecord(_event: usize, _stream: usize) {
        cuCtxSynchronize()
    }

    fn cuEventQuery(_event: usize) {
        cuCtxSynchronize()
    }

    fn cuEventSynchronize(_event: usize) {
        cuCtxSynchronize()
    }

    fn cuEventDestroy_v2(_event: usize) {
        SUCCESS
    }

    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        give(address, current().and_then(|mut machine| machine.alloc(bytes)))
    }

    fn cuMemFree_v2(address: u64) {
        told(current().and_then(|mut machine| machine.free(address)))
    }

    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let used = current().map(|machine| machine.used());
        let code = give(free, used.map(|used| machine::memory().saturating_sub(used)));
        if code == SUCCESS { give(total, Ok(machine::memory())) } else { code }
    }

    fn cuMemHostAlloc(at: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        // Its length stands before it, for `cuMemFreeHost`.
        let mut words = vec![0u64; bytes.div_ceil(8) + 2];
        words[0] = words.len() as u64;
        let begin = Box::leak(words.into_boxed_slice()).as_mut_ptr();
        // SAFETY: two words lie before what is given.
        give(at, Ok(unsafe { begin.add(2) }.cast()))
    }

    fn cuMemFreeHost(at: *mut c_void) {
        // SAFETY: `cuMemHostAlloc` gave it, with its length two words before.
        unsafe {
            let begin = at.cast::<u64>().sub(2);
            let length = begin.read() as usize;
            drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(begin, length)));
        }
        SUCCESS
    }

    fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) {
        // SAFETY: the caller lends so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(from, bytes) };
        told(current().and_then(|mut machine| machine.write(to, bytes)))
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: usize) {
        cuMemcpyHtoD_v2(to, from, bytes)
    }

    fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) {
        // SAFETY: the caller lends so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(to, bytes) };
        told(current().and_then(|machine| machine.read(from, bytes)))
    }

    fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: usize) {
        cuMemcpyDtoH_v2(to, from, bytes)
    }

    fn cuModuleLoadData(module: *mut u64, image: *const c_char) {
        // SAFETY: the image is a text that ends in 0.
        let text = unsafe { CStr::from_ptr(image) };
        let text = text.to_str().map_err(|_| machine::INVALID_PTX);
        give(module, text.and_then(|text| current()?.load(text)))
    }

    fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) {
        // SAFETY: the name is a text that ends in 0.
        let name = unsafe { CStr::from_ptr(name) };
        let name = name.to_str().map_err(|_| machine::NOT_FOUND);
        give(function, name.and_then(|name| current()?.function(module, name)))
    }

    fn cuModuleUnload(_module: u64) {
        SUCCESS
    }

    fn cuGetErrorName(code: Code, name: *mut *const c_char) {
        give(name, Ok(text(code).as_ptr()))
    }

    fn cuGetErrorString(code: Code, name: *mut *const c_char) {
        give(name, Ok(text(code).as_ptr()))
    }
}

/// A word for the codes that this library gives.
fn text(code: Code) -> &'static CStr {
    match code {
        SUCCESS => c"no error",
        machine::OUT_OF_MEMORY => c"out of memory",
        NO_DEVICE => c"no CUDA-capable device is detected",
        machine::ILLEGAL_ADDRESS => c"an illegal memory access was encountered",
        machine::UNSUPPORTED_PTX_VERSION => c"the provided PTX was compiled with an unsupported toolchain",
        _ => c"an error of the stand-in",
    }
}

/// `cuLaunchKernel` of the driver.
// SAFETY: the name is the driver's, and this library takes its place.
#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchKernel(
    function: u64,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    _stream: usize,
    parameters: *const *const u8,
    _extra: *const *const c_void,
) -> Code {
    told(current().and_then(|mut machine| {
        let kernel = machine.kernel(function)?;
        let mut block = vec![0; kernel.params().iter().map(|p| p.offset + p.size).max().unwrap_or(0)];
        for (i, p) in kernel.params().iter().enumerate() {
            // SAFETY: the caller gives a pointer for each parameter, to as many bytes as the kernel takes.
            unsafe {
                let from = *parameters.add(i);
                from.copy_to_nonoverlapping(block[p.offset..].as_mut_ptr(), p.size);
            }
        }
        let extents =
            Launch { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared: shared as usize };
        machine.launch(&kernel, extents, block)
    }))
}
