//! What a launch tells: findings and counters.

/// What kind of fault was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FindingKind {
    /// An access outside of every allocation, or across the end of one.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A register or predicate that was never written is used.
    UninitialisedRegister,
    /// Memory that was never written is read.
    UninitialisedMemory,
    /// Two accesses to the same bytes, one of them a write, with nothing that orders them.
    Race,
    /// What an asynchronous copy or a tensor unit has not finished is used, or changed under it.
    InFlight,
    /// Lanes that must meet at an instruction cannot.
    Divergence,
    /// No thread can go on.
    Deadlock,
    /// An operand that the manual forbids.
    InvalidOperand,
    /// `trap`, or a failed assertion.
    Trap,
    /// A limit of the interpreter was reached.
    Limit,
}

/// An instruction that a thread executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the block.
    pub block: [u32; 3],
    /// Warp of the block.
    pub warp: u32,
    /// Lane of the warp, where one is to blame.
    pub lane: Option<u32>,
    /// Line of the PTX.
    pub ptx_line: u32,
    /// File and line of the CUDA source, if the PTX has them.
    pub source: Option<(String, u32)>,
    /// The opcode with its modifiers.
    pub opcode: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Some((file, line)) => write!(f, "{file}:{line} ")?,
            None => write!(f, "PTX line {} ", self.ptx_line)?,
        }
        let [x, y, z] = self.block;
        write!(f, "(`{}`, block {x},{y},{z} warp {}", self.opcode, self.warp)?;
        match self.lane {
            Some(lane) => write!(f, " lane {lane})"),
            None => f.write_str(")"),
        }
    }
}

/// A fault: each kind is reported once for an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind it is.
    pub kind: FindingKind,
    /// What happened, with the values.
    pub message: String,
    /// Where.
    pub at: Place,
    /// The other access of a race.
    pub other: Option<Place>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {}: {}", self.kind, self.at, self.message)?;
        if let Some(other) = &self.other {
            write!(f, "; the other is at {other}")?;
        }
        Ok(())
    }
}

/// What a launch did, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions of warps.
    pub instructions: u64,
    /// Instructions of lanes: each counts once for every lane that executes it.
    pub lane_instructions: u64,
    /// Loads and atomics of global memory, by warps.
    pub global_loads: u64,
    /// Stores to global memory, by warps.
    pub global_stores: u64,
    /// Sectors of 32 bytes that loads of global memory touch.
    pub sectors_read: u64,
    /// Sectors of 32 bytes that stores to global memory touch.
    pub sectors_written: u64,
    /// Bytes that lanes ask of global memory, which a copy engine's bytes are part of.
    pub global_bytes: u64,
    /// Passes over the banks of shared memory.
    pub shared_passes: u64,
    /// Passes beyond those that the same accesses need without conflicts.
    pub bank_conflicts: u64,
    /// Multiply-adds of tensor instructions.
    pub tensor_operations: u64,
    /// Lane instructions in an approximate form, which are computed exactly here: the hardware's last bits may differ.
    pub approximations: u64,
    /// Atomic additions of floats: their sum depends on the order of arrival.
    pub float_atomics: u64,
    /// Barriers that warps arrived at.
    pub barriers: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        let Counters {
            instructions,
            lane_instructions,
            global_loads,
            global_stores,
            sectors_read,
            sectors_written,
            global_bytes,
            shared_passes,
            bank_conflicts,
            tensor_operations,
            approximations,
            float_atomics,
            barriers,
        } = other;
        self.instructions += instructions;
        self.lane_instructions += lane_instructions;
        self.global_loads += global_loads;
        self.global_stores += global_stores;
        self.sectors_read += sectors_read;
        self.sectors_written += sectors_written;
        self.global_bytes += global_bytes;
        self.shared_passes += shared_passes;
        self.bank_conflicts += bank_conflicts;
        self.tensor_operations += tensor_operations;
        self.approximations += approximations;
        self.float_atomics += float_atomics;
        self.barriers += barriers;
    }
}

/// What a launch did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Faults, in the order in which they were found.
    pub findings: Vec<Finding>,
    /// Whether a fault ended the kernel, as it would on a device; what it wrote is incomplete.
    pub stopped: bool,
    /// What was executed.
    pub counters: Counters,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether something of this kind was found.
    pub fn has(&self, kind: FindingKind) -> bool {
        self.findings.iter().any(|f| f.kind == kind)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let c = &self.counters;
        write!(f, "{} instructions of warps, {} of lanes", c.instructions, c.lane_instructions)?;
        write!(f, "; sectors: {} read, {} written", c.sectors_read, c.sectors_written)?;
        write!(f, "; shared passes {}, of them {} conflicts", c.shared_passes, c.bank_conflicts)?;
        write!(f, "; {} tensor multiply-adds", c.tensor_operations)
    }
}
