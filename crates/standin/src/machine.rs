//! What stands behind the functions: devices, their memory, and what is wrong with them.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use binade_ptx::{Device, Error, FindingKind, Kernel, Launch, Module, Options, Program, Report};

/// The driver's number of what went wrong.
pub type Code = u32;

pub const SUCCESS: Code = 0;
pub const INVALID_VALUE: Code = 1;
pub const OUT_OF_MEMORY: Code = 2;
pub const NO_DEVICE: Code = 100;
pub const INVALID_DEVICE: Code = 101;
pub const INVALID_CONTEXT: Code = 201;
pub const NO_BINARY_FOR_GPU: Code = 209;
pub const INVALID_PTX: Code = 218;
pub const UNSUPPORTED_PTX_VERSION: Code = 222;
pub const INVALID_HANDLE: Code = 400;
pub const NOT_FOUND: Code = 500;
pub const ILLEGAL_ADDRESS: Code = 700;
pub const MISALIGNED_ADDRESS: Code = 716;
pub const LAUNCH_FAILED: Code = 719;
/// What a device that fell off its bus says.
pub const DEVICE_LOST: Code = 999;

/// What `BINADE_STANDIN` asks for.
#[derive(Clone, Debug)]
struct Settings {
    devices: usize,
    memory: usize,
    ptx: (u32, u32),
    capability: u32,
    lost: Option<usize>,
}

impl Settings {
    fn read() -> Settings {
        let mut settings = Settings { devices: 2, memory: 4 << 30, ptx: (8, 7), capability: 90, lost: None };
        let text = std::env::var("BINADE_STANDIN").unwrap_or_default();
        for (key, value) in text.split(',').filter_map(|part| part.split_once('=')) {
            let number = || value.parse().unwrap_or(0);
            match key {
                "devices" => settings.devices = number(),
                "memory" => settings.memory = number(),
                "capability" => settings.capability = value.parse().unwrap_or(90),
                "lost" => settings.lost = Some(number()),
                "ptx" => {
                    let (major, minor) = value.split_once('.').unwrap_or((value, "0"));
                    settings.ptx = (major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
                }
                _ => {}
            }
        }
        settings
    }
}

/// A device.
#[derive(Debug)]
pub struct Machine {
    device: Device,
    modules: HashMap<u64, Program>,
    functions: HashMap<u64, Kernel>,
    names: u64,
    launches: usize,
    /// What every call says from now on.
    failed: Code,
}

/// The devices that are visible, each with its number in the machine.
static MACHINES: OnceLock<(Settings, Vec<Mutex<Machine>>)> = OnceLock::new();

fn all() -> &'static (Settings, Vec<Mutex<Machine>>) {
    MACHINES.get_or_init(|| {
        let settings = Settings::read();
        let count = visible(settings.devices).len();
        let machines = (0..count).map(|_| {
            let options =
                Options { memory: settings.memory, capability: Some(settings.capability), ..Options::default() };
            Mutex::new(Machine {
                device: Device::new(options),
                modules: HashMap::new(),
                functions: HashMap::new(),
                names: 0,
                launches: 0,
                failed: SUCCESS,
            })
        });
        (settings.clone(), machines.collect())
    })
}

/// The devices that `CUDA_VISIBLE_DEVICES` lets through: those before the first that is none.
fn visible(devices: usize) -> Vec<usize> {
    let Ok(asked) = std::env::var("CUDA_VISIBLE_DEVICES") else { return (0..devices).collect() };
    asked.split(',').map_while(|n| n.trim().parse().ok().filter(|n| *n < devices)).collect()
}

pub fn count() -> usize {
    all().1.len()
}

pub fn capability() -> u32 {
    all().0.capability
}

pub fn memory() -> usize {
    all().0.memory
}

/// A device by its number among those that are visible.
pub fn machine(index: usize) -> Result<MutexGuard<'static, Machine>, Code> {
    let machine = all().1.get(index).ok_or(INVALID_DEVICE)?;
    Ok(machine.lock().unwrap_or_else(PoisonError::into_inner))
}

fn code(error: &Error) -> Code {
    match error {
        Error::OutOfMemory { .. } => OUT_OF_MEMORY,
        Error::Parse { .. } | Error::Unsupported { .. } => INVALID_PTX,
        Error::NoKernel { .. } => NOT_FOUND,
        _ => INVALID_VALUE,
    }
}

/// What the driver makes of a report: stray and unaligned accesses have codes of their own.
fn verdict(kernel: &str, report: &Report) -> Code {
    let Some(first) = report.findings.first() else { return SUCCESS };
    if let Some(path) = std::env::var_os("BINADE_STANDIN_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        // Nobody waits for it.
        let _ = writeln!(file, "{kernel}: {report}");
    }
    match first.kind {
        FindingKind::OutOfBounds => ILLEGAL_ADDRESS,
        FindingKind::Misaligned => MISALIGNED_ADDRESS,
        _ => LAUNCH_FAILED,
    }
}

impl Machine {
    /// What happened so far, as each call tells it.
    pub fn state(&self) -> Result<(), Code> {
        if self.failed == SUCCESS { Ok(()) } else { Err(self.failed) }
    }

    pub fn used(&self) -> usize {
        self.device.used()
    }

    pub fn alloc(&mut self, bytes: usize) -> Result<u64, Code> {
        self.state()?;
        self.device.alloc(bytes).map_err(|e| code(&e))
    }

    pub fn free(&mut self, address: u64) -> Result<(), Code> {
        self.state()?;
        self.device.free(address).map_err(|e| code(&e))
    }

    pub fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), Code> {
        self.state()?;
        self.device.write(to, bytes).map_err(|e| code(&e))
    }

    pub fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), Code> {
        self.state()?;
        self.device.read(from, bytes).map_err(|e| code(&e))
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub fn load(&mut self, text: &str) -> Result<u64, Code> {
        self.state()?;
        let settings = &all().0;
        let module = Module::parse(text).map_err(|e| code(&e))?;
        if module.version > settings.ptx {
            return Err(UNSUPPORTED_PTX_VERSION);
        }
        let target: u32 = module.target.trim_start_matches("sm_").trim_end_matches('a').parse().unwrap_or(0);
        if target > settings.capability {
            return Err(NO_BINARY_FOR_GPU);
        }
        let program = self.device.load(&module).map_err(|e| code(&e))?;
        let name = self.name();
        self.modules.insert(name, program);
        Ok(name)
    }

    pub fn function(&mut self, module: u64, name: &str) -> Result<u64, Code> {
        self.state()?;
        let kernel = self.modules.get(&module).ok_or(INVALID_HANDLE)?.kernel(name).map_err(|e| code(&e))?;
        let name = self.name();
        self.functions.insert(name, kernel);
        Ok(name)
    }

    pub fn kernel(&self, function: u64) -> Result<Kernel, Code> {
        self.functions.get(&function).cloned().ok_or(INVALID_HANDLE)
    }

    /// Runs a kernel; what it did wrong is told later, unless launches block.
    pub fn launch(&mut self, kernel: &Kernel, extents: Launch, parameters: Vec<u8>) -> Result<(), Code> {
        self.state()?;
        self.launches += 1;
        if all().0.lost.is_some_and(|lost| self.launches >= lost) {
            self.failed = DEVICE_LOST;
        } else {
            let report = self.device.launch_raw(kernel, extents, parameters).map_err(|e| code(&e))?;
            self.failed = verdict(kernel.name(), &report);
        }
        let blocking = std::env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|v| v != "0");
        if blocking { self.state() } else { Ok(()) }
    }
}
