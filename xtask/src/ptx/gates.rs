//! What must hold of the PTX, whatever it computes.

use std::path::Path;
use std::process::Command;

use super::Target;

/// Approximate instructions that are no more than the first guess of a function in f64, which corrects them.
const GUESSES: [&str; 3] = ["rcp.approx.ftz.f64", "rsqrt.approx.ftz.f64", "ex2.approx.ftz.f32"];

/// Instructions that are not correctly rounded, or that the assembler may contract.
pub fn of_text(stem: &str, ptx: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut entry = "";
    for (number, line) in ptx.lines().enumerate() {
        if let Some((_, name)) = line.split_once(".entry ") {
            entry = name.trim_end_matches('(');
        }
        let mut words = line.split_whitespace();
        let instruction = match words.next() {
            Some(predicate) if predicate.starts_with('@') => words.next().unwrap_or_default(),
            first => first.unwrap_or_default(),
        };
        let parts: Vec<&str> = instruction.split('.').collect();
        let is_float = parts.last().is_some_and(|last| matches!(*last, "f32" | "f64" | "f16" | "bf16"));
        let rounds = parts.iter().any(|part| matches!(*part, "rn" | "rz" | "rm" | "rp"));
        let contractible = matches!(parts[0], "add" | "sub" | "mul" | "mad") && is_float && !rounds;
        let approximate = parts.iter().any(|part| matches!(*part, "approx" | "ftz" | "full"));
        if contractible || approximate && !GUESSES.contains(&instruction) {
            faults.push(format!("{stem}.ptx:{}: {instruction} in {entry}", number + 1));
        }
    }
    faults
}

/// Kernels that lack an instruction that they are there for.
pub fn of_instructions(stem: &str, ptx: &str, target: &Target) -> Vec<String> {
    let mut faults = Vec::new();
    for kernel in ptx.split(".entry ").skip(1) {
        let name = kernel.split('(').next().unwrap_or_default();
        let missing = target.instructions.iter().filter(|wanted| !kernel.contains(**wanted));
        faults.extend(missing.map(|wanted| format!("{stem}.ptx: {name} has no {wanted}")));
    }
    faults
}

/// What ptxas refuses, and kernels whose registers it spills; with the registers of a thread and the bytes of shared
/// memory of a block that the kernels of a file need at most, on any generation.
pub fn of_ptxas(ptxas: &Path, stem: &str, path: &Path, target: &Target) -> Result<(Vec<String>, [u32; 2]), String> {
    let (mut faults, mut most) = (Vec::new(), [0; 2]);
    for generation in target.generations {
        let mut command = Command::new(ptxas);
        command.args(["-v", "-O3", "-arch", generation, "-o", "/dev/null"]).arg(path);
        let out = command.output().map_err(|e| format!("cannot start {}: {e}", ptxas.display()))?;
        let said = String::from_utf8_lossy(&out.stderr);
        if !out.status.success() {
            faults.push(format!("{stem}.ptx: ptxas for {generation}: {}", said.lines().next().unwrap_or_default()));
        }
        let mut kernel = "";
        for line in said.lines() {
            if let Some((_, rest)) = line.split_once("Compiling entry function '") {
                kernel = rest.split('\'').next().unwrap_or_default();
            }
            for (most, what) in most.iter_mut().zip([" registers", " bytes smem"]) {
                let number = line.split_once(what).and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
                *most = number.unwrap_or(0).max(*most);
            }
            let stores = line.split_once(" bytes spill stores").and_then(|(before, _)| before.rsplit(' ').next());
            if stores.is_some_and(|bytes| bytes != "0") {
                faults.push(format!("{stem}.ptx: {kernel} spills on {generation}: {}", line.trim()));
            }
        }
    }
    Ok((faults, most))
}

/// Whether a source says that its kernels need less than they do: registers of a thread, bytes of shared memory.
pub fn of_needs(stem: &str, source: &str, needed: [u32; 2]) -> Option<String> {
    let said = source.lines().find_map(|line| line.strip_prefix("// Needs: at most ")).unwrap_or_default();
    let number = |what: &str| -> u32 {
        let before = said.split_once(what).map_or("", |(before, _)| before);
        before.rsplit(' ').next().unwrap_or_default().replace(',', "").parse().unwrap_or(0)
    };
    let stated = [number(" registers"), number(" bytes of shared memory")];
    let less = stated.iter().zip(&needed).any(|(stated, needed)| stated < needed);
    less.then(|| format!("{stem}.cu says registers and shared memory {stated:?}, and ptxas {needed:?}"))
}
