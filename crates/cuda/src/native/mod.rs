//! [`Native`]: NVIDIA's driver, by cudarc, which opens `libcuda` when a device is opened. Never run on a GPU by us.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use binade_tensor::{BackendKind, Device, Error, Result, register_backend};
use cudarc::driver::{DriverError, result, sys};

mod pinned;

use crate::backend::Cuda;
use crate::driver::{Driver, Failure, Launch};
use crate::module::Module;
use pinned::Pinned;

/// A device of NVIDIA's driver, with a stream that all its commands go through.
#[derive(Debug)]
pub struct Native {
    context: sys::CUcontext,
    stream: sys::CUstream,
    capability: u32,
    loaded: Mutex<Loaded>,
    pinned: Mutex<Pinned>,
    /// What was launched since the last wait: how many kernels, and the last.
    since: Mutex<(usize, String)>,
}

#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<Module, sys::CUmodule>,
    functions: HashMap<(Module, String), sys::CUfunction>,
}

// SAFETY: the driver's handles may be used by any thread that made the context current, as `enter` does. What changes
// is behind a mutex.
unsafe impl Send for Native {}
// SAFETY: as above.
unsafe impl Sync for Native {}

/// What can be done about an error of the driver.
fn advice(error: DriverError) -> &'static str {
    use sys::CUresult;
    match error.0 {
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | CUresult::CUDA_ERROR_INVALID_PTX => {
            "the driver is too old for this PTX: install one for CUDA 10.2 or newer"
        }
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => "the device has a capability below 7.5, which is not served",
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_INVALID_PC
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR => {
            "a kernel went astray, and nothing more can be done on this device: start the program again, with \
             CUDA_LAUNCH_BLOCKING=1 to see which kernel, or on cuda-interpreted to see where"
        }
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
        | CUresult::CUDA_ERROR_UNKNOWN => {
            "the device is lost for this program: start it again from a checkpoint; nvidia-smi tells whether it is well"
        }
        CUresult::CUDA_ERROR_NO_DEVICE => "there is no device: CUDA_VISIBLE_DEVICES may hide it",
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "the driver's library is of another version than the driver: restart the machine, or install it again"
        }
        _ => "nvidia-smi tells whether driver and device are well",
    }
}

fn failure(error: DriverError) -> Failure {
    if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Failure::OutOfMemory;
    }
    Failure::Device(format!("{:?}: {}", error.0, advice(error)))
}

fn refused(message: String) -> Error {
    Error::Argument { op: "cuda", message }
}

/// The driver's functions that are called: `cudarc` looks each up when it is first called, and panics where it is not.
const FUNCTIONS: &[&str] = &[
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDevicePrimaryCtxRetain",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamCreate",
    "cuStreamSynchronize",
];

/// Those that the library does not have.
fn missing() -> Vec<&'static str> {
    // SAFETY: the library was found to be there.
    let library = unsafe { sys::culib() };
    // SAFETY: the functions are looked up, and not called by this type.
    let is_there = |name: &str| unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_ok();
    FUNCTIONS.iter().copied().filter(|name| !is_there(name)).collect()
}

/// Opens the library; `cudarc` panics where there is none, or one that is not whole.
fn start() -> Result<()> {
    // SAFETY: it only looks whether the library can be opened.
    if !unsafe { sys::is_culib_present() } {
        let message = "NVIDIA's driver is not there: install it (libcuda.so.1), or use cpu or cuda-interpreted";
        return Err(refused(message.into()));
    }
    let missing = missing();
    if !missing.is_empty() {
        let message = format!(
            "NVIDIA's driver (libcuda) has no {}: it is older than CUDA 10.0 or not whole; install it again, or use \
             cpu or cuda-interpreted",
            missing.join(", ")
        );
        return Err(refused(message));
    }
    result::init().map_err(|e| refused(format!("{:?}: {}", e.0, advice(e))))
}

impl Native {
    /// A device by its number among those that are visible.
    ///
    /// # Errors
    /// There is no driver or no such device; a capability below 7.5.
    pub fn new(ordinal: usize) -> Result<Native> {
        start()?;
        let told = |e: DriverError| refused(format!("{:?}: {}", e.0, advice(e)));
        let device = result::device::get(ordinal as i32).map_err(told)?;
        // SAFETY: the device was given by the driver.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(told)?;
        // SAFETY: the context was given by the driver.
        unsafe { result::ctx::set_current(context) }.map_err(told)?;
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        // SAFETY: the device was given by the driver.
        let [major, minor] = [MAJOR, MINOR].map(|which| unsafe { result::device::get_attribute(device, which) });
        let (major, minor) = (major.map_err(told)?, minor.map_err(told)?);
        if (major, minor) < (7, 5) {
            let message = format!("device {ordinal} has capability {major}.{minor}, and the kernels need 7.5 or more");
            return Err(refused(message));
        }
        let capability = (10 * major + minor) as u32;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(told)?;
        let (loaded, pinned, since) = Default::default();
        Ok(Native { context, stream, capability, loaded, pinned, since })
    }

    /// Bytes of the device's memory: those that are free, and all.
    ///
    /// # Errors
    /// The device failed.
    pub fn room(&self) -> Result<(usize, usize), Failure> {
        self.enter()?;
        result::mem_get_info().map_err(|e| self.failure(e))
    }

    /// An error of the device; of one that is told late, what was launched before.
    fn failure(&self, error: DriverError) -> Failure {
        let told = failure(error);
        let (launched, last) = &*self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Failure::Device(told) if *launched > 0 => {
                Failure::Device(format!("{told} ({launched} kernels since the last wait, {last} the last)"))
            }
            other => other,
        }
    }

    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the context this thread's.
    fn enter(&self) -> Result<(), Failure> {
        // SAFETY: the context lives as long as the process.
        unsafe { result::ctx::set_current(self.context) }.map_err(failure)
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn function(&self, module: Module, kernel: &str) -> Result<sys::CUfunction, Failure> {
        let mut loaded = self.loaded();
        if let Some(&function) = loaded.functions.get(&(module, kernel.to_string())) {
            return Ok(function);
        }
        let no_zeros = |_| Failure::Device(format!("{}: a byte 0 in a name or in PTX", module.name()));
        let handle = match loaded.modules.get(&module) {
            Some(&handle) => handle,
            None => {
                let text = CString::new(module.text()).map_err(no_zeros)?;
                // SAFETY: the text ends in 0 and lives until the call returns.
                let handle = unsafe { result::module::load_data(text.as_ptr().cast()) }.map_err(failure)?;
                loaded.modules.insert(module, handle);
                handle
            }
        };
        let name = CString::new(kernel).map_err(no_zeros)?;
        // SAFETY: modules are never unloaded.
        let function = unsafe { result::module::get_function(handle, name) }.map_err(failure)?;
        loaded.functions.insert((module, kernel.to_string()), function);
        Ok(function)
    }
}

impl Driver for Native {
    fn name(&self) -> &str {
        "cuda"
    }

    fn capability(&self) -> u32 {
        self.capability
    }

    fn alloc(&self, bytes: usize) -> Result<u64, Failure> {
        self.enter()?;
        // SAFETY: the memory is not read before it was written, which `Storage` answers for.
        unsafe { result::malloc_sync(bytes) }.map_err(|e| self.failure(e))
    }

    fn free(&self, address: u64) {
        // Nobody can be told; of a device that is lost the memory is lost too. The driver waits for what uses it.
        if self.enter().is_ok() {
            // SAFETY: the pool frees what it was given, once.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn keeps_memory(&self) -> bool {
        true
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.enter()?;
        self.pinned().write(to, bytes, self.stream).map_err(|e| self.failure(e))
    }

    fn read(&self, copies: &mut [(u64, &mut [u8])]) -> Result<(), Failure> {
        self.enter()?;
        self.pinned().read(copies, self.stream).map_err(|e| self.failure(e))?;
        self.since.lock().unwrap_or_else(PoisonError::into_inner).0 = 0;
        Ok(())
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), Failure> {
        self.enter()?;
        let function = self.function(launch.module, launch.kernel)?;
        // Aligned as structures of kernels are; the driver copies it before it returns.
        let words: Vec<u64> = launch
            .parameter
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            })
            .collect();
        let mut parameters = [words.as_ptr().cast_mut().cast::<c_void>()];
        let ([x, y, z], [a, b, c]) = (launch.grid, launch.block);
        // SAFETY: the kernel takes one structure of that size by value; operands in it are memory of this device.
        let queued = unsafe { result::launch_kernel(function, (x, y, z), (a, b, c), 0, self.stream, &mut parameters) };
        {
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            since.0 += 1;
            since.1.clear();
            since.1.push_str(launch.kernel);
        }
        queued.map_err(|e| self.failure(e))
    }
}

/// As many as the driver sees; one where there is no driver, whose opening says what is missing.
fn count() -> usize {
    match start().map(|()| result::device::get_count()) {
        Ok(Ok(count)) => count as usize,
        Ok(Err(_)) | Err(_) => 1,
    }
}

/// Devices that were opened, for all who open them again.
static OPEN: OnceLock<Mutex<HashMap<usize, Device>>> = OnceLock::new();

register_backend! {
    BackendKind {
        name: "cuda",
        count,
        open: |index| {
            let mut open = OPEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(device) = open.get(&index) {
                return Ok(device.clone());
            }
            let device = Cuda::new(Native::new(index)?)?.into_opened();
            Ok(open.entry(index).or_insert(device).clone())
        },
    }
}
