//! A module as it is written: declarations, labels and instructions, each with its line.

use crate::types::{Space, Type};

/// A PTX module.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// `.version`: major, minor.
    pub version: (u32, u32),
    /// `.target`: the architecture, as `sm_90a`.
    pub target: String,
    /// `.file` numbers and names, as `.loc` refers to them.
    pub files: Vec<(u32, String)>,
    /// Variables of the module's own scope.
    pub variables: Vec<Variable>,
    /// Kernels and functions, declarations without a body included.
    pub functions: Vec<Function>,
}

/// A declared variable or parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub space: Space,
    /// The type of an element.
    pub ty: Type,
    /// Alignment in bytes; the size of the type where the text gives none.
    pub align: usize,
    /// Number of elements; `None` for an array of unknown extent, as dynamic shared memory is.
    pub elements: Option<usize>,
    /// The values given, as many as were written; the rest are zero.
    pub init: Vec<Init>,
    /// Whether an initialiser was written: without one shared memory is uninitialised, and global memory zero.
    pub initialised: bool,
    /// Line of the declaration.
    pub line: u32,
}

/// One value of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// The bits of an element.
    Bits(u64),
    /// The address of a variable plus an offset; generic if `generic(…)` was written.
    Address {
        /// The variable.
        name: String,
        /// Bytes added.
        offset: i64,
    },
}

/// A kernel (`.entry`) or a function (`.func`).
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether it is a kernel.
    pub entry: bool,
    /// What it returns: variables in `.param` or `.reg` space.
    pub returns: Vec<Variable>,
    /// What it is given.
    pub params: Vec<Variable>,
    /// `.maxntid` or `.reqntid`: threads of a block at most.
    pub max_threads: Option<u32>,
    /// Its statements; `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    /// Line of its name.
    pub line: u32,
}

/// A line of the CUDA source: number of the `.file`, line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Loc {
    /// The number of a `.file`; 0 where nothing is known.
    pub file: u32,
    /// The line.
    pub line: u32,
}

/// A statement of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `.reg .b32 %r<10>;`: `count` registers `%r0` …, or one of that very name.
    Registers {
        /// Type of each.
        ty: Type,
        /// Name, or common beginning of the names.
        name: String,
        /// How many, where `<n>` was written.
        count: Option<u32>,
    },
    /// A variable in shared, local, global, const or (for calls) param space.
    Variable(Variable),
    /// `name:`.
    Label(String),
    /// `name: .branchtargets a, b;`.
    Targets(String, Vec<String>),
    /// `{ … }`: a scope of its own for names.
    Block(Vec<Statement>),
    /// An instruction.
    Instruction(Instruction),
}

/// An instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// `@p` or `@!p`: the register, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode with all its modifiers: `ld.global.f32`.
    pub opcode: String,
    /// The operands in order.
    pub operands: Vec<Operand>,
    /// Line of the PTX text.
    pub line: u32,
    /// Line of the CUDA source, by the last `.loc`.
    pub loc: Loc,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, variable, label or function; `_` is a destination that is dropped.
    Name(String),
    /// `variable+8`: an address outside of brackets.
    Offset(String, i64),
    /// `!p`.
    Not(String),
    /// `p|q`: two destinations.
    Pair(String, String),
    /// An integer literal; two's complement where a minus was written.
    Int(u64),
    /// The bits of a single-precision literal.
    F32(u32),
    /// The bits of a double-precision literal.
    F64(u64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    /// `[map, {x, y}]`, with a third part for some tensor forms.
    Tensor(Vec<Operand>),
    /// `(a, b)`: results or arguments of a call.
    List(Vec<Operand>),
}
