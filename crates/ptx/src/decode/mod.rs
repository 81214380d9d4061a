//! The decoder: a kernel of a [`Module`](crate::Module) to [`Code`].
//!
//! Functions are expanded where they are called, so that what runs has neither calls nor a stack.

mod call;
mod compare;
mod control;
mod convert;
mod fields;
mod float;
pub(crate) mod function;
mod integer;
mod lanes;
mod layout;
mod memory;
mod mods;
mod operand;
mod symbol;
mod tensor;
mod transfer;

use std::collections::HashMap;

use crate::ast::{Function, Instruction, Module, Statement};
use crate::code::{Action, Code, Inst, Lanes, Line, Special};
use crate::error::{Error, Result};
pub(crate) use layout::{GlobalLayout, place};
use mods::Mods;
pub(crate) use operand::mask;
use symbol::{Scope, Symbol};

/// Where dynamic and static shared memory begins: the system keeps what is below, and zero is no address.
pub(crate) const SHARED_START: u64 = 1024;
/// Where a thread's local memory begins.
pub(crate) const LOCAL_START: u64 = 256;
/// Windows of generic addresses; global memory is above them all.
pub(crate) const SHARED_WINDOW: u64 = 1 << 40;
pub(crate) const LOCAL_WINDOW: u64 = 2 << 40;
pub(crate) const PARAM_WINDOW: u64 = 3 << 40;
pub(crate) const CONST_WINDOW: u64 = 4 << 40;
/// Bytes of a window.
pub(crate) const WINDOW: u64 = 1 << 32;

/// Everything known while a kernel is decoded.
pub(crate) struct Decoder<'a> {
    module: &'a Module,
    globals: &'a GlobalLayout,
    /// Innermost last.
    scopes: Vec<Scope>,
    insts: Vec<Inst>,
    lines: Vec<Line>,
    registers: u32,
    predicates: u32,
    constants: Vec<u64>,
    constant_of: HashMap<u64, u32>,
    specials: Vec<(Special, u32)>,
    /// Program counters of labels.
    labels: Vec<u32>,
    /// Names of functions being expanded, outermost first.
    calls: Vec<String>,
    /// Where `ret` goes inside of an expanded function.
    returns: Vec<u32>,
    shared_bytes: usize,
    dynamic_align: usize,
    dynamic: HashMap<String, u32>,
    local_bytes: usize,
    /// Line of the statement being decoded.
    line: u32,
}

/// The architecture's number: 90 of `sm_90a`.
pub(crate) fn capability(target: &str) -> Option<u32> {
    let digits: String = target.strip_prefix("sm_")?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Decodes a kernel.
pub(crate) fn decode(module: &Module, globals: &GlobalLayout, kernel: &Function) -> Result<Code> {
    let target = capability(&module.target).ok_or_else(|| Error::Unsupported {
        line: kernel.line,
        form: format!(".target {}", module.target),
        reason: "expected sm_ and a number".to_string(),
    })?;
    let mut d = Decoder {
        module,
        globals,
        scopes: vec![Scope::default()],
        insts: Vec::new(),
        lines: Vec::new(),
        registers: 0,
        predicates: 0,
        constants: Vec::new(),
        constant_of: HashMap::new(),
        specials: Vec::new(),
        labels: Vec::new(),
        calls: vec![kernel.name.clone()],
        returns: Vec::new(),
        shared_bytes: 0,
        dynamic_align: 16,
        dynamic: HashMap::new(),
        local_bytes: 0,
        line: kernel.line,
    };
    d.module_scope()?;
    let (params, param_bytes) = d.kernel_parameters(kernel)?;
    d.scope(kernel.body.as_deref().unwrap_or(&[]))?;
    d.push(Action::Exit, None, None)?;
    d.place_dynamic();
    d.resolve()?;
    let constants: Vec<Lanes> = d.constants.iter().map(|&v| [v; 32]).collect();
    Ok(Code {
        name: kernel.name.clone(),
        target,
        insts: d.insts,
        lines: d.lines,
        files: module.files.clone(),
        registers: d.registers as usize,
        predicates: d.predicates as usize,
        constants,
        specials: d.specials,
        params,
        param_bytes,
        shared_static: d.shared_bytes,
        dynamic_align: d.dynamic_align,
        local_bytes: d.local_bytes,
        constant_bank: globals.bank.clone(),
        max_threads: kernel.max_threads,
    })
}

impl<'a> Decoder<'a> {
    /// Statements with names of their own.
    fn scope(&mut self, statements: &[Statement]) -> Result<()> {
        let mut scope = Scope::default();
        for statement in statements {
            if let Statement::Label(name) = statement {
                let id = self.labels.len() as u32;
                self.labels.push(u32::MAX);
                if scope.names.insert(name.clone(), Symbol::Label(id)).is_some() {
                    return Err(self.error(format!("the label `{name}` is defined twice")));
                }
            }
        }
        self.scopes.push(scope);
        // A table of targets may stand after the branch that uses it.
        for statement in statements {
            if let Statement::Targets(name, targets) = statement {
                let ids = targets.iter().map(|t| self.label(t)).collect::<Result<Vec<u32>>>()?;
                self.define(name, Symbol::Targets(ids));
            }
        }
        for statement in statements {
            self.statement(statement)?;
        }
        self.scopes.pop();
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Registers { ty, name, count } => self.declare_registers(*ty, name, *count),
            Statement::Variable(variable) => self.declare(variable),
            Statement::Label(name) => {
                let id = self.label(name)?;
                self.labels[id as usize] = self.insts.len() as u32;
                Ok(())
            }
            Statement::Targets(..) => Ok(()),
            Statement::Block(inner) => self.scope(inner),
            Statement::Instruction(inst) => {
                self.line = inst.line;
                self.instruction(inst)
            }
        }
    }

    fn instruction(&mut self, inst: &Instruction) -> Result<()> {
        let (base, mut mods) = Mods::new(inst);
        let m = &mut mods;
        let action = match base {
            "call" => return self.call(m),
            "ret" | "exit" => self.leave(base, m)?,
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "neg" | "abs" | "min" | "max" => {
                self.arithmetic(base, m)?
            }
            "addc" | "subc" | "madc" => self.carry(base, m)?,
            "rem" | "mul24" | "mad24" | "sad" | "popc" | "clz" | "brev" | "bfind" | "bfe" | "bfi" | "fns" | "dp4a"
            | "dp2a" | "szext" | "bmsk" => self.integer(base, m)?,
            "not" | "cnot" | "and" | "or" | "xor" | "shl" | "shr" | "shf" | "lop3" | "prmt" => self.bits(base, m)?,
            "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" => self.function(base, m)?,
            "setp" | "set" | "selp" | "slct" | "testp" => self.compare(base, m)?,
            "cvt" => self.convert(m)?,
            "mov" | "cvta" | "isspacep" | "ld" | "ldu" | "st" | "atom" | "red" | "prefetch" | "prefetchu"
            | "discard" | "applypriority" | "createpolicy" => self.memory(base, m)?,
            "bra" | "brx" | "trap" | "bar" | "barrier" | "membar" | "fence" | "nanosleep" | "setmaxnreg"
            | "pmevent" | "griddepcontrol" => self.control(base, m)?,
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => self.exchange(base, m)?,
            "ldmatrix" | "stmatrix" | "mma" | "wgmma" | "wmma" => self.tensor(base, m)?,
            "cp" | "mbarrier" => self.transfer(base, m)?,
            _ => return Err(m.unsupported("an unknown opcode")),
        };
        self.push(action, inst.guard.as_ref(), Some(inst))
    }

    /// Appends an instruction.
    fn push(&mut self, action: Action, guard: Option<&(String, bool)>, inst: Option<&Instruction>) -> Result<()> {
        let (guard, negated) = match guard {
            Some((name, negated)) => (self.predicate_named(name)?, *negated),
            None => (u32::MAX, false),
        };
        self.insts.push(Inst { guard, negated, action });
        let line = match inst {
            Some(inst) => Line { ptx: inst.line, loc: inst.loc, opcode: inst.opcode.clone() },
            None => Line { ptx: self.line, loc: Default::default(), opcode: "ret".to_string() },
        };
        self.lines.push(line);
        Ok(())
    }

    /// Labels become program counters.
    fn resolve(&mut self) -> Result<()> {
        let end = self.insts.len() as u32 - 1;
        // A label at the very end is where the kernel returns.
        let at = |labels: &[u32], id: u32| labels[id as usize].min(end);
        for inst in &mut self.insts {
            match &mut inst.action {
                Action::Branch { target } => *target = at(&self.labels, *target),
                Action::BranchTable { targets, .. } => {
                    for target in targets {
                        *target = at(&self.labels, *target);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn error(&self, message: String) -> Error {
        Error::Parse { line: self.line, message }
    }
}
