//! [`Interpreted`]: the PTX on an interpreter. It finds what a kernel does wrong: stray, unaligned and uninitialised
//! accesses, races, threads that never meet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use binade_ptx::{Device as Interpreter, Launch as Extents, Options, Program};
use binade_tensor::{BackendKind, Device, Result, register_backend};

use crate::backend::Cuda;
use crate::driver::{Driver, Failure, Launch};
use crate::module::Module;

/// An interpreted device. Kernels run when they are launched, each to its end; what is found wrong with one is the
/// error of whatever waits next. Clones are one device.
#[derive(Clone, Debug)]
pub struct Interpreted(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    device: Interpreter,
    programs: HashMap<Module, Program>,
    launches: usize,
    lane_instructions: u64,
}

impl Default for Interpreted {
    fn default() -> Interpreted {
        Interpreted::new(0)
    }
}

impl Interpreted {
    /// A device whose warps run in an order of their own for each seed.
    pub fn new(seed: u64) -> Interpreted {
        let device = Interpreter::new(Options { seed, ..Options::default() });
        let state = State { device, programs: HashMap::new(), launches: 0, lane_instructions: 0 };
        Interpreted(Arc::new(Mutex::new(state)))
    }

    /// Runs other PTX than what ships in the place of a module: a kernel that is being written, or one that is broken
    /// on purpose to see who notices.
    ///
    /// # Errors
    /// The PTX is not understood.
    pub fn replace(&self, module: Module, ptx: &str) -> Result<(), Failure> {
        let parsed = binade_ptx::Module::parse(ptx).map_err(|e| failure(&e))?;
        let mut state = self.state();
        let program = state.device.load(&parsed).map_err(|e| failure(&e))?;
        state.programs.insert(module, program);
        Ok(())
    }

    /// Kernels that ran, and the instructions that their lanes executed.
    pub fn executed(&self) -> (usize, u64) {
        let state = self.state();
        (state.launches, state.lane_instructions)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(error: &binade_ptx::Error) -> Failure {
    match error {
        binade_ptx::Error::OutOfMemory { .. } => Failure::OutOfMemory,
        other => Failure::Device(other.to_string()),
    }
}

impl State {
    fn program(&mut self, module: Module) -> Result<&Program, Failure> {
        if !self.programs.contains_key(&module) {
            let parsed = binade_ptx::Module::parse(module.text()).map_err(|e| failure(&e))?;
            let program = self.device.load(&parsed).map_err(|e| failure(&e))?;
            self.programs.insert(module, program);
        }
        let missing = || Failure::Device(format!("module {} is not loaded", module.name()));
        self.programs.get(&module).ok_or_else(missing)
    }
}

impl Driver for Interpreted {
    fn name(&self) -> &str {
        "cuda-interpreted"
    }

    fn alloc(&self, bytes: usize) -> Result<u64, Failure> {
        self.state().device.alloc(bytes).map_err(|e| failure(&e))
    }

    fn free(&self, address: u64) {
        // Only the pool frees, and only what it was given.
        let freed = self.state().device.free(address);
        debug_assert!(freed.is_ok(), "{freed:?}");
    }

    fn keeps_memory(&self) -> bool {
        false
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.state().device.write(to, bytes).map_err(|e| failure(&e))
    }

    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        self.state().device.read(from, bytes).map_err(|e| failure(&e))
    }

    fn is_written(&self, from: u64, bytes: usize) -> bool {
        matches!(self.state().device.first_unwritten(from, bytes), Ok(None))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), Failure> {
        let mut state = self.state();
        let kernel = state.program(launch.module)?.kernel(launch.kernel).map_err(|e| failure(&e))?;
        let extents = Extents { grid: launch.grid, block: launch.block, shared: 0 };
        let parameter = launch.parameter.to_vec();
        let report = state.device.launch_raw(&kernel, extents, parameter).map_err(|e| failure(&e))?;
        state.launches += 1;
        state.lane_instructions += report.counters.lane_instructions;
        match report.findings.split_first() {
            None => Ok(()),
            Some((first, [])) => Err(Failure::Device(format!("kernel {}: {first}", launch.kernel))),
            Some((first, more)) => {
                Err(Failure::Device(format!("kernel {}: {first}; and {} more findings", launch.kernel, more.len())))
            }
        }
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// An interpreted device of its own.
///
/// # Errors
/// None that are known: it has memory for its own needs.
pub fn interpreted() -> Result<Cuda> {
    Cuda::new(Interpreted::default())
}

register_backend! {
    BackendKind {
        name: "cuda-interpreted",
        count: || 1,
        open: |_| {
            static DEVICE: OnceLock<Device> = OnceLock::new();
            if let Some(device) = DEVICE.get() {
                return Ok(device.clone());
            }
            let cuda = interpreted()?;
            Ok(DEVICE.get_or_init(|| cuda.into_opened()).clone())
        },
    }
}
