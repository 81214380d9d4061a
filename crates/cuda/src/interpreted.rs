//! [`Interpreted`]: the PTX on an interpreter. It finds what a kernel does wrong: stray, unaligned and uninitialised
//! accesses, races, threads that never meet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use binade_ptx::{Counters, Device as Interpreter, Launch as Extents, Options, Program};
use binade_tensor::{BackendKind, Device, Error, Result, register_backend};

use crate::backend::Cuda;
use crate::driver::{Driver, Failure, Launch};
use crate::module::Module;

/// An interpreted device. Kernels run when they are launched, each to its end; what is found wrong with one is the
/// error of whatever waits next. Clones are one device.
#[derive(Clone, Debug)]
pub struct Interpreted {
    capability: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    device: Interpreter,
    programs: HashMap<Module, Program>,
    launches: usize,
    counters: Counters,
}

impl Default for Interpreted {
    fn default() -> Interpreted {
        Interpreted::new(0)
    }
}

impl Interpreted {
    /// The capability of a device for which none is asked: the oldest whose tensor cores have both 16-bit formats.
    pub const CAPABILITY: u32 = 80;
    /// The oldest that there are kernels for.
    const OLDEST: u32 = 75;

    /// A device whose warps run in an order of their own for each seed.
    pub fn new(seed: u64) -> Interpreted {
        Interpreted::with(Interpreted::CAPABILITY, seed)
    }

    /// A device of a compute capability, 90 for 9.0: it has that one's kernels, and the bits of its tensor cores.
    ///
    /// # Errors
    /// One that is older than the kernels.
    pub fn of(capability: u32) -> Result<Interpreted> {
        if capability < Interpreted::OLDEST {
            let message = format!(
                "a capability of {}.{} is asked for, and the kernels need 7.5 or more: 75, 80, 86, 89, 90, 100, 120",
                capability / 10,
                capability % 10
            );
            return Err(Error::Argument { op: "cuda-interpreted", message });
        }
        Ok(Interpreted::with(capability, 0))
    }

    fn with(capability: u32, seed: u64) -> Interpreted {
        let device = Interpreter::new(Options { seed, capability: Some(capability), ..Options::default() });
        let state = State { device, programs: HashMap::new(), launches: 0, counters: Counters::default() };
        Interpreted { capability, state: Arc::new(Mutex::new(state)) }
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

    /// Kernels that ran, and what they did, added up.
    pub fn executed(&self) -> (usize, Counters) {
        let state = self.state();
        (state.launches, state.counters)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn capability(&self) -> u32 {
        self.capability
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

    fn read(&self, copies: &mut [(u64, &mut [u8])]) -> Result<(), Failure> {
        let state = self.state();
        copies.iter_mut().try_for_each(|(from, to)| state.device.read(*from, to)).map_err(|e| failure(&e))
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
        state.counters += report.counters;
        match report.findings.split_first() {
            None => Ok(()),
            Some((first, [])) => Err(Failure::Device(format!("kernel {}: {first}", launch.kernel))),
            Some((first, more)) => {
                Err(Failure::Device(format!("kernel {}: {first}; and {} more findings", launch.kernel, more.len())))
            }
        }
    }
}

/// An interpreted device of its own.
///
/// # Errors
/// None that are known: it has memory for its own needs.
pub fn interpreted() -> Result<Cuda> {
    Cuda::new(Interpreted::default())
}

/// Devices that were opened, by capability, for all who open them again.
static OPEN: Mutex<BTreeMap<u32, Device>> = Mutex::new(BTreeMap::new());

/// The device `cuda-interpreted` of a compute capability, 90 for 9.0: the same handle each time.
///
/// # Errors
/// As [`Interpreted::of`].
pub fn open_interpreted(capability: u32) -> Result<Device> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&capability) {
        return Ok(device.clone());
    }
    let device = Cuda::new(Interpreted::of(capability)?)?.into_opened();
    Ok(open.entry(capability).or_insert(device).clone())
}

register_backend! {
    BackendKind { name: "cuda-interpreted", count: || 1, open: |_| open_interpreted(Interpreted::CAPABILITY) }
}
