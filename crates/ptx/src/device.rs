//! A device: memory, modules, launches.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::Module;
use crate::code::{Code, Parameter};
use crate::decode;
use crate::error::{Error, Result};
use crate::exec::Machine;
use crate::memory::Memory;
use crate::report::Report;
use crate::shadow::{self, HOST, Shadow};

/// How a device behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The compute capability, 90 for 9.0: modules for a newer target are refused, and tensor instructions compute the
    /// bits of this generation. `None` takes the module's target.
    pub capability: Option<u32>,
    /// Seeds the order in which blocks and warps run; each seed is another order, the same at each run.
    pub seed: u64,
    /// Whether races, reads in flight and uninitialised memory are looked for. Bounds, alignment, registers and
    /// divergence always are.
    pub checks: bool,
    /// Findings kept for a launch.
    pub max_findings: usize,
    /// Instructions of warps after which a launch is taken for endless.
    pub instruction_limit: u64,
    /// Bytes of device memory.
    pub memory: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            capability: None,
            seed: 0,
            checks: true,
            max_findings: 100,
            instruction_limit: 1 << 34,
            memory: 4 << 30,
        }
    }
}

/// The extents of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

impl Launch {
    /// A launch in one dimension without dynamic shared memory.
    pub fn linear(blocks: u32, threads: u32) -> Launch {
        Launch { grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0 }
    }
}

/// An argument of a kernel: the bytes of a scalar, a device address, or a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg(Vec<u8>);

impl Arg {
    /// A structure's bytes.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Arg {
        Arg(bytes.into())
    }
}

macro_rules! args {
    ($($t:ty),*) => {$(
        impl From<$t> for Arg {
            fn from(value: $t) -> Arg {
                Arg(value.to_le_bytes().to_vec())
            }
        }
    )*};
}

args!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

/// A kernel of a loaded module.
#[derive(Clone)]
pub struct Kernel(Arc<Code>);

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its parameters, in order.
    pub fn params(&self) -> &[Parameter] {
        &self.0.params
    }

    /// Bytes of static shared memory.
    pub fn static_shared(&self) -> usize {
        self.0.shared_static
    }

    /// Bytes of local memory of a thread.
    pub fn local(&self) -> usize {
        self.0.local_bytes
    }

    /// Threads of a block at most.
    pub fn max_threads(&self) -> u32 {
        self.0.max_threads.unwrap_or(1024).min(1024)
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// A module whose variables have their place in device memory.
#[derive(Clone, Debug)]
pub struct Program {
    kernels: HashMap<String, Kernel>,
    globals: HashMap<String, (u64, usize)>,
}

impl Program {
    /// A kernel by name.
    ///
    /// # Errors
    /// [`Error::NoKernel`] names those there are.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        self.kernels.get(name).cloned().ok_or_else(|| {
            let mut known: Vec<&str> = self.kernels.keys().map(String::as_str).collect();
            known.sort_unstable();
            Error::NoKernel { name: name.to_string(), known: known.join(", ") }
        })
    }

    /// Address and length of a `.global` variable.
    pub fn global(&self, name: &str) -> Option<(u64, usize)> {
        self.globals.get(name).copied()
    }
}

/// An interpreted device.
///
/// ```
/// use binade_ptx::{Device, Launch, Module};
/// let module = Module::parse(
///     ".version 7.0\n.target sm_80\n.address_size 64
///     .visible .entry twice(.param .u64 x) {
///         .reg .b32 %i; .reg .b64 %a<4>; .reg .f32 %f<3>;
///         ld.param.u64 %a0, [x];
///         cvta.to.global.u64 %a1, %a0;
///         mov.u32 %i, %tid.x;
///         mul.wide.u32 %a2, %i, 4;
///         add.s64 %a3, %a1, %a2;
///         ld.global.f32 %f1, [%a3];
///         add.rn.f32 %f2, %f1, %f1;
///         st.global.f32 [%a3], %f2;
///         ret;
///     }",
/// )?;
/// let mut device = Device::new(Default::default());
/// let twice = device.load(&module)?.kernel("twice")?;
/// let x = device.alloc(4 * 32)?;
/// device.write(x, &[0x00, 0x00, 0xc0, 0x3f].repeat(32))?; // 1.5
/// let report = device.launch(&twice, Launch::linear(1, 32), &[x.into()])?;
/// assert!(report.is_clean(), "{report}");
/// let mut out = [0; 4];
/// device.read(x, &mut out)?;
/// assert_eq!(f32::from_le_bytes(out), 3.0);
/// # Ok::<(), binade_ptx::Error>(())
/// ```
#[derive(Debug)]
pub struct Device {
    options: Options,
    memory: Memory,
    shadow: Shadow,
}

impl Device {
    /// A device without allocations.
    pub fn new(options: Options) -> Device {
        let memory = Memory::new(options.memory);
        Device { options, memory, shadow: Shadow::new() }
    }

    /// The device's options; a change counts from the next launch.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Places a module's variables and decodes its kernels.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an instruction the interpreter does not know, [`Error::Parse`] for operands that do
    /// not fit, [`Error::OutOfMemory`].
    pub fn load(&mut self, module: &Module) -> Result<Program> {
        if let (Some(have), Some(need)) = (self.options.capability, decode::capability(&module.target))
            && (need > have || (module.target.ends_with('a') && need != have))
        {
            let (form, reason) = (format!(".target {}", module.target), format!("the device is sm_{have}"));
            return Err(Error::Unsupported { line: 1, form, reason });
        }
        let memory = &mut self.memory;
        let (layout, initial) = decode::place(module, |bytes| memory.allocate(bytes.max(1)))?;
        let mut globals = HashMap::new();
        for v in module.variables.iter() {
            if let Some((crate::Space::Global, address)) = layout.addresses.get(&v.name) {
                globals.insert(v.name.clone(), (*address, v.elements.unwrap_or(0) * v.ty.size()));
            }
        }
        for (address, bytes) in initial {
            self.write(address, &bytes)?;
        }
        let mut kernels = HashMap::new();
        for f in module.functions.iter().filter(|f| f.entry && f.body.is_some()) {
            kernels.insert(f.name.clone(), Kernel(Arc::new(decode::decode(module, &layout, f)?)));
        }
        Ok(Program { kernels, globals })
    }

    /// Allocates memory; its bytes are uninitialised. Addresses are multiples of 512 and never come twice.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] past [`Options::memory`].
    pub fn alloc(&mut self, bytes: usize) -> Result<u64> {
        self.memory.allocate(bytes)
    }

    /// Frees an allocation by its first address.
    ///
    /// # Errors
    /// [`Error::Memory`] if no allocation begins there.
    pub fn free(&mut self, address: u64) -> Result<()> {
        self.memory.free(address)
    }

    /// Bytes allocated.
    pub fn used(&self) -> usize {
        self.memory.used
    }

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// [`Error::Memory`] if they do not lie in one allocation.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (i, at) = self.memory.locate(address, bytes.len())?;
        let region = &mut self.memory.regions[i];
        region.data[at..at + bytes.len()].copy_from_slice(bytes);
        region.cells[at..at + bytes.len()].fill((HOST as u64) << 32);
        Ok(())
    }

    /// Sets bytes to a value.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn fill(&mut self, address: u64, value: u8, bytes: usize) -> Result<()> {
        let (i, at) = self.memory.locate(address, bytes)?;
        let region = &mut self.memory.regions[i];
        region.data[at..at + bytes].fill(value);
        region.cells[at..at + bytes].fill((HOST as u64) << 32);
        Ok(())
    }

    /// Copies bytes from the device; what was never written reads as zero, see [`Device::first_unwritten`].
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        let (i, at) = self.memory.locate(address, out.len())?;
        out.copy_from_slice(&self.memory.regions[i].data[at..at + out.len()]);
        Ok(())
    }

    /// Copies bytes within the device; the ranges may overlap. Bytes that were never written stay so.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<()> {
        let (i, at) = self.memory.locate(from, bytes)?;
        let region = &self.memory.regions[i];
        let (data, mut cells) = (region.data[at..at + bytes].to_vec(), region.cells[at..at + bytes].to_vec());
        shadow::renewed(&mut cells);
        let (i, at) = self.memory.locate(to, bytes)?;
        let region = &mut self.memory.regions[i];
        region.data[at..at + bytes].copy_from_slice(&data);
        region.cells[at..at + bytes].copy_from_slice(&cells);
        Ok(())
    }

    /// The offset of the first byte of a range that neither host nor kernel has written.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn first_unwritten(&self, address: u64, bytes: usize) -> Result<Option<usize>> {
        let (i, at) = self.memory.locate(address, bytes)?;
        Ok(self.memory.regions[i].cells[at..at + bytes].iter().position(|c| c >> 32 == 0))
    }

    /// Whether an address lies in an allocation: its first byte and its length.
    pub fn allocation(&self, address: u64) -> Option<(u64, usize)> {
        let region = &self.memory.regions[self.memory.find(address)?];
        region.offset(address, 1).map(|_| (region.base, region.data.len()))
    }

    /// Runs a kernel to its end. Launches are ordered one after the other.
    ///
    /// # Errors
    /// [`Error::Launch`] if arguments or extents do not fit the kernel. What goes wrong in the kernel is in the
    /// [`Report`].
    pub fn launch(&mut self, kernel: &Kernel, launch: Launch, args: &[Arg]) -> Result<Report> {
        let params = kernel.params();
        let fail = |message: String| Error::Launch { kernel: kernel.name().to_string(), message };
        if args.len() != params.len() {
            return Err(fail(format!("{} arguments are given, expected {}", args.len(), params.len())));
        }
        let mut block = vec![0; kernel.0.param_bytes];
        for (arg, p) in args.iter().zip(params) {
            if arg.0.len() != p.size {
                return Err(fail(format!("`{}` is given {} bytes, expected {}", p.name, arg.0.len(), p.size)));
            }
            block[p.offset..p.offset + p.size].copy_from_slice(&arg.0);
        }
        self.launch_raw(kernel, launch, block)
    }

    /// As [`Device::launch`], with the parameters as one block of bytes in the layout of [`Kernel::params`].
    ///
    /// # Errors
    /// As [`Device::launch`].
    pub fn launch_raw(&mut self, kernel: &Kernel, launch: Launch, params: Vec<u8>) -> Result<Report> {
        let fail = |message: String| Err(Error::Launch { kernel: kernel.name().to_string(), message });
        if params.len() != kernel.0.param_bytes {
            return fail(format!("{} bytes of parameters are given, expected {}", params.len(), kernel.0.param_bytes));
        }
        let threads = launch.block.iter().fold(1u64, |n, &x| n.saturating_mul(x as u64));
        if threads == 0 || threads > kernel.max_threads() as u64 || launch.block[2] > 64 {
            let most = kernel.max_threads();
            return fail(format!("a block of {:?} threads, expected 1 to {most} in all", launch.block));
        }
        let [x, y, z] = launch.grid;
        if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
            return fail(format!("a grid of {:?} blocks, expected 1 to 2147483647, 65535, 65535", launch.grid));
        }
        if x as u64 * y as u64 * z as u64 > u32::MAX as u64 {
            return fail(format!("a grid of {:?} blocks, more than 2^32 in all", launch.grid));
        }
        let most = shared_limit(self.options.capability.unwrap_or(kernel.0.target));
        let shared = kernel.static_shared().next_multiple_of(kernel.0.dynamic_align) + launch.shared;
        if shared > most {
            return fail(format!("{shared} bytes of shared memory, the device has {most} for a block"));
        }
        if self.shadow.begin() {
            for region in &mut self.memory.regions {
                shadow::renewed(&mut region.cells);
            }
        }
        let Device { options, memory, shadow } = self;
        let extents = (launch.grid, launch.block);
        Ok(Machine::new(&kernel.0, options, memory, shadow, params, extents, launch.shared).run())
    }
}

/// Bytes of shared memory that a block can have, with the opt-in above 48 KiB.
fn shared_limit(capability: u32) -> usize {
    match capability {
        75 => 64 << 10,
        80 | 87 => 163 << 10,
        86 | 89 | 120 | 121 => 99 << 10,
        90 | 100 | 101 | 103 => 227 << 10,
        c if c < 75 => 96 << 10,
        _ => 99 << 10,
    }
}
