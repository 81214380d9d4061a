//! A kernel in the form that runs: flat, operands resolved, each arithmetic form one function over 32 lanes.

use crate::ast::Loc;
use crate::types::{Space, Type};

/// A value of each lane, in the low bits, zero above its width.
pub(crate) type Lanes = [u64; 32];

/// An arithmetic form over all lanes; lanes that do not execute compute something nobody reads.
pub(crate) type Function = Box<dyn Fn(&[&Lanes; 4], &mut Lanes) + Send + Sync>;

/// A comparison over all lanes: a bit for each.
pub(crate) type Test = Box<dyn Fn(&Lanes, &Lanes) -> u32 + Send + Sync>;

/// A register, or with the highest bit set a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Src(pub u32);

/// The bit that marks a [`Src`] as a constant.
pub(crate) const CONSTANT: u32 = 1 << 31;

/// A predicate register, perhaps negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Predicate {
    pub index: u32,
    pub negated: bool,
}

/// Two predicates' combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

impl Logic {
    pub fn from_name(name: &str) -> Option<Logic> {
        Some(match name {
            "and" => Logic::And,
            "or" => Logic::Or,
            "xor" => Logic::Xor,
            _ => return None,
        })
    }

    pub fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Logic::And => a & b,
            Logic::Or => a | b,
            Logic::Xor => a ^ b,
        }
    }
}

/// An address operand: a register or constant, plus bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub base: Src,
    pub offset: i64,
}

/// How an access orders memory, and what it may race with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// Volatile, relaxed or stronger: two of these do not race.
    pub strong: bool,
    /// What was written before is visible to who acquires.
    pub release: bool,
    /// What was released is visible afterwards.
    pub acquire: bool,
    /// Whether other blocks take part.
    pub device: bool,
}

/// A load or store of one to four (or eight) elements.
#[derive(Debug)]
pub(crate) struct Access {
    pub space: Space,
    /// Bytes of an element.
    pub size: usize,
    /// Extends a loaded element's sign to the register.
    pub signed: bool,
    pub address: Address,
    /// Destinations of a load with the mask of each register's width.
    pub to: Vec<(u32, u64)>,
    /// Sources of a store.
    pub from: Vec<Src>,
    pub order: Order,
}

/// Read-modify-write operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    Compare,
    Increment,
    Decrement,
}

/// `atom` and `red`.
#[derive(Debug)]
pub(crate) struct Atomic {
    pub op: AtomicOp,
    pub space: Space,
    pub ty: Type,
    pub address: Address,
    pub to: Option<u32>,
    pub values: [Src; 2],
    pub order: Order,
}

/// What lanes of a warp exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// Instructions that wait for all lanes of a mask.
#[derive(Debug)]
pub(crate) enum Collective {
    Sync,
    Shuffle {
        mode: Shuffle,
        to: u32,
        valid: Option<u32>,
        value: Src,
        lane: Src,
        clamp: Src,
    },
    /// `vote.sync`: 0 all, 1 any, 2 uni; the predicate.
    Vote {
        mode: u8,
        to: u32,
        of: Predicate,
    },
    Ballot {
        to: u32,
        of: Predicate,
    },
    /// `match.any` and `match.all`, with the predicate of the latter.
    Match {
        to: u32,
        all: Option<Option<u32>>,
        value: Src,
    },
    Reduce {
        op: AtomicOp,
        ty: Type,
        to: u32,
        value: Src,
    },
    Elect {
        to: u32,
        leader: u32,
    },
    LoadMatrix(crate::tensor::LoadMatrix),
    StoreMatrix(crate::tensor::StoreMatrix),
    Mma(Box<crate::tensor::Mma>),
    Wgmma(Box<crate::tensor::Wgmma>),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait(u32),
    Barrier(Barrier),
    /// `setmaxnreg`: registers of a thread are not counted here.
    MaxRegisters,
}

/// `bar` and `barrier.cta`.
#[derive(Debug)]
pub(crate) struct Barrier {
    pub id: Src,
    pub threads: Option<Src>,
    /// Whether the warp waits; `bar.arrive` does not.
    pub waits: bool,
    /// `bar.red`: 0 popc, 1 and, 2 or; where the result goes; whose predicate.
    pub reduce: Option<(u8, u32, Predicate)>,
}

/// What an instruction does.
pub(crate) enum Action {
    Compute {
        f: Function,
        to: u32,
        from: [Src; 4],
        count: u8,
        approximate: bool,
    },
    Carry {
        f: fn(u64, u64, u64, bool) -> (u64, bool),
        to: u32,
        from: [Src; 3],
        count: u8,
        reads: bool,
        writes: bool,
    },
    /// A copy; what is undefined stays so.
    Move {
        to: u32,
        from: Src,
    },
    Pack {
        to: u32,
        from: Vec<Src>,
        bits: u32,
    },
    Unpack {
        to: Vec<Option<u32>>,
        from: Src,
        bits: u32,
    },
    Compare {
        f: Test,
        p: Option<u32>,
        q: Option<u32>,
        from: [Src; 2],
        with: Option<(Logic, Predicate)>,
    },
    Set {
        f: Test,
        to: u32,
        from: [Src; 2],
        with: Option<(Logic, Predicate)>,
        yes: u64,
    },
    Select {
        to: u32,
        yes: Src,
        no: Src,
        by: Predicate,
    },
    Logic {
        op: Logic,
        to: u32,
        a: Predicate,
        b: Predicate,
    },
    Branch {
        target: u32,
    },
    BranchTable {
        targets: Vec<u32>,
        index: Src,
    },
    Exit,
    Trap(String),
    Parameter {
        offset: usize,
        size: usize,
        signed: bool,
        to: Vec<(u32, u64)>,
    },
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<Atomic>),
    Fence(Fence),
    ActiveMask {
        to: u32,
    },
    IsSpace {
        p: u32,
        space: Space,
        from: Src,
    },
    /// The lanes that must meet are in `mask`; `None` is all that have not exited.
    Collective {
        what: Collective,
        mask: Option<Src>,
        aligned: bool,
    },
    Copy(crate::copy::Copy),
    Mbarrier(crate::mbarrier::Operation),
    Nothing,
}

/// Fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// Orders the thread's own accesses; whether for other blocks too.
    Thread { device: bool },
    /// Makes generic accesses visible to the asynchronous proxy.
    Async,
}

/// An instruction.
pub(crate) struct Inst {
    /// Index of the predicate, or `u32::MAX` for none.
    pub guard: u32,
    pub negated: bool,
    pub action: Action,
}

/// What a report says about an instruction.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub ptx: u32,
    pub loc: Loc,
    pub opcode: String,
}

/// What the machine writes into a register before the kernel begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    MaskEq,
    MaskLt,
    MaskLe,
    MaskGt,
    MaskGe,
    DynamicShared,
    TotalShared,
    Fixed(u64),
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Where it begins in the block of parameters.
    pub offset: usize,
    /// Its length in bytes.
    pub size: usize,
    /// Its alignment.
    pub align: usize,
}

/// A kernel that can be launched.
pub(crate) struct Code {
    pub name: String,
    pub target: u32,
    pub insts: Vec<Inst>,
    pub lines: Vec<Line>,
    pub files: Vec<(u32, String)>,
    pub registers: usize,
    pub predicates: usize,
    pub constants: Vec<Lanes>,
    pub specials: Vec<(Special, u32)>,
    pub params: Vec<Parameter>,
    pub param_bytes: usize,
    pub shared_static: usize,
    pub dynamic_align: usize,
    pub local_bytes: usize,
    pub constant_bank: Vec<u8>,
    pub max_threads: Option<u32>,
}
