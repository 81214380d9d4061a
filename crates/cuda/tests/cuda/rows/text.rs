//! The text of each file of kernels.

use std::fmt::Write as _;

use binade_tensor::number::Number;
use binade_tensor::op::{
    Binary, BinaryRow, BinaryVisitor, Loss, LossRow, LossVisitor, Saved, Ternary, TernaryRow, TernaryVisitor, Unary,
    UnaryRow, UnaryVisitor,
};

use super::emit::{Emit, EmitWide, body};

/// The same formula in both widths.
struct Formula {
    narrow: String,
    wide: String,
}

/// Writes `float name(float x, …)`, and its twin `name_wide` if it is needed.
fn function(out: &mut String, name: &str, arguments: &[&str], formula: &Formula, wide: bool) {
    let list = |kind: &str| arguments.iter().map(|a| format!("{kind} {a}")).collect::<Vec<_>>().join(", ");
    let _ = write!(out, "\n__device__ __forceinline__ float {name}({}) {{\n{}\n}}\n", list("float"), formula.narrow);
    if wide {
        let _ = write!(
            out,
            "\n__device__ __forceinline__ double {name}_wide({}) {{\n{}\n}}\n",
            list("double"),
            formula.wide
        );
    }
}

fn kernel(out: &mut String, name: &str, operands: usize, lines: &[String]) {
    let _ = write!(out, "\nELEMENTWISE({name}, {operands}, {{\n");
    lines.iter().for_each(|line| {
        let _ = writeln!(out, "  {line}");
    });
    out.push_str("})\n");
}

fn header(what: &str, registers: u32) -> String {
    format!(
        "// {what}\n// Written by the rows of the operator table (tests/cuda/rows); not to be edited.\n//\n\
         // Shapes: tensors that broadcast to one shape, of any strides and float dtypes.\n\
         // Tiling: none: a thread has an element, and the next one a grid further on.\n\
         // Needs: at most {registers} registers to a thread, no shared memory.\n\
         // Checked against: the rows of the reference in f64, and the CPU's bits.\n\
         #include \"elementwise.cuh\"\n"
    )
}

fn both(narrow: impl FnOnce() -> Emit, wide: impl FnOnce() -> EmitWide) -> Formula {
    Formula { narrow: body(narrow, Emit::variable), wide: body(wide, EmitWide::variable) }
}

struct OfUnary {
    slope: bool,
}

impl UnaryVisitor for OfUnary {
    type Output = Formula;
    fn visit<R: UnaryRow>(self) -> Formula {
        fn of<R: UnaryRow, N: Number>(slope: bool, x: N) -> N {
            if slope { R::df(x) } else { R::f(x) }
        }
        both(|| of::<R, _>(self.slope, Emit::argument("x")), || of::<R, _>(self.slope, EmitWide::argument("x")))
    }
}

pub fn unary() -> String {
    let mut out = header("Functions of one tensor and their derivatives.", 40);
    for &row in Unary::ALL {
        let (f, df) = (row.visit(OfUnary { slope: false }), row.visit(OfUnary { slope: true }));
        function(&mut out, &format!("{row:?}_f"), &["x"], &f, false);
        let load = |k: usize| format!("float x{k} = load(p.in[{k}], at.in[{k}]);");
        let value = format!("store(p.out, at.out, {row:?}_f(x0));");
        kernel(&mut out, &format!("{row:?}"), 1, &[load(0), value]);
        let wide = row.has_extreme_slope();
        function(&mut out, &format!("{row:?}_df"), &["x"], &df, wide);
        let mut lines = vec![load(0), load(1), format!("float y = __fmul_rn(x0, {row:?}_df(x1));")];
        if wide {
            lines.push("if (!is_finite(y) || is_extreme(x1))".into());
            lines.push(format!("  y = __double2float_rn(__dmul_rn((double)x0, {row:?}_df_wide((double)x1)));"));
        }
        lines.push("store(p.out, at.out, y);".into());
        // The row says which value is saved; a constant slope is multiplied all the same.
        debug_assert!(matches!(row.saved(), Saved::Input | Saved::Output | Saved::Nothing));
        kernel(&mut out, &format!("{row:?}_backward"), 2, &lines);
    }
    out
}

#[derive(Clone, Copy)]
enum Part {
    Value,
    Left,
    Right,
}

impl BinaryVisitor for Part {
    type Output = Formula;
    fn visit<R: BinaryRow>(self) -> Formula {
        fn of<R: BinaryRow, N: Number>(part: Part, a: N, b: N) -> N {
            match part {
                Part::Value => R::f(a, b),
                Part::Left => R::da(a, b),
                Part::Right => R::db(a, b),
            }
        }
        both(
            || of::<R, _>(self, Emit::argument("a"), Emit::argument("b")),
            || of::<R, _>(self, EmitWide::argument("a"), EmitWide::argument("b")),
        )
    }
}

pub fn binary() -> String {
    let mut out = header("Functions of two tensors, or of one and a number, and their derivatives.", 48);
    for &row in Binary::ALL {
        let (extreme_values, extreme_partials) = (row.has_extreme_values(), row.has_extreme_slopes());
        let load = |name: &str, k: usize| format!("float {name} = load_or_value(p, p.in[{k}], at.in[{k}]);");
        function(&mut out, &format!("{row:?}_f"), &["a", "b"], &row.visit(Part::Value), extreme_values);
        let mut lines = vec![load("a", 0), load("b", 1), format!("float y = {row:?}_f(a, b);")];
        if extreme_values {
            lines.push("if (is_small(y) || !is_finite(y) || is_extreme(a) || is_extreme(b))".into());
            lines.push(format!("  y = __double2float_rn({row:?}_f_wide((double)a, (double)b));"));
        }
        lines.push("store(p.out, at.out, y);".into());
        kernel(&mut out, &format!("{row:?}"), 2, &lines);
        for (part, side) in [(Part::Left, "left"), (Part::Right, "right")] {
            let slope = format!("{row:?}_{side}");
            function(&mut out, &format!("{slope}_slope"), &["a", "b"], &row.visit(part), extreme_partials);
            let mut lines = vec!["float g = load(p.in[0], at.in[0]);".into(), load("a", 1), load("b", 2)];
            let again = format!("__double2float_rn(__dmul_rn((double)g, {slope}_slope_wide((double)a, (double)b)))");
            if row.has_slopes_in_f64() {
                lines.push(format!("float y = {again};"));
            } else {
                lines.push(format!("float y = __fmul_rn(g, {slope}_slope(a, b));"));
                if extreme_partials {
                    lines.push("if (!is_finite(y) || is_extreme(p.in[1], a) || is_extreme(p.in[2], b))".into());
                    lines.push(format!("  y = {again};"));
                }
            }
            lines.push("store(p.out, at.out, y);".into());
            kernel(&mut out, &format!("{slope}_backward"), 3, &lines);
        }
    }
    out
}

struct OfTernary {
    /// The operand to differentiate by.
    by: Option<usize>,
}

impl TernaryVisitor for OfTernary {
    type Output = Formula;
    fn visit<R: TernaryRow>(self) -> Formula {
        fn of<R: TernaryRow, N: Number>(by: Option<usize>, [x, a, b, v]: [N; 4]) -> N {
            match by {
                Some(operand) => R::d(operand, x, a, b, v),
                None => R::f(x, a, b, v),
            }
        }
        both(
            || of::<R, _>(self.by, ["x", "a", "b", "v"].map(Emit::argument)),
            || of::<R, _>(self.by, ["x", "a", "b", "v"].map(EmitWide::argument)),
        )
    }
}

pub fn ternary() -> String {
    let mut out = header("Functions of three tensors and a number, and their derivatives.", 33);
    for &row in Ternary::ALL {
        for by in [None, Some(0), Some(1), Some(2)] {
            let name = by.map_or(format!("{row:?}"), |by| format!("{row:?}_{by}"));
            function(&mut out, &format!("{name}_f"), &["x", "a", "b", "v"], &row.visit(OfTernary { by }), true);
            let first = usize::from(by.is_some());
            let mut lines = vec!["float v = __double2float_rn(p.value);".to_string()];
            for (k, operand) in ["x", "a", "b"].into_iter().enumerate() {
                lines.push(format!("float {operand} = load(p.in[{0}], at.in[{0}]);", k + first));
            }
            let (mut y, mut again) =
                (format!("{name}_f(x, a, b, v)"), format!("{name}_f_wide((double)x, (double)a, (double)b, p.value)"));
            if by.is_some() {
                lines.push("float g = load(p.in[0], at.in[0]);".into());
                (y, again) = (format!("__fmul_rn(g, {y})"), format!("__dmul_rn((double)g, {again})"));
            }
            lines.push(format!("float y = {y};"));
            lines.push("if (!is_finite(y) || is_extreme(x) || is_extreme(a) || is_extreme(b))".into());
            lines.push(format!("  y = __double2float_rn({again});"));
            lines.push("store(p.out, at.out, y);".into());
            kernel(&mut out, &if by.is_some() { format!("{name}_backward") } else { name }, 3 + first, &lines);
        }
    }
    out
}

#[derive(Clone, Copy)]
enum LossPart {
    Value,
    Prediction,
    Target,
}

impl LossVisitor for LossPart {
    type Output = Formula;
    fn visit<R: LossRow>(self) -> Formula {
        fn of<R: LossRow, N: Number>(part: LossPart, [x, t, p]: [N; 3]) -> N {
            match part {
                LossPart::Value => R::f(x, t, p),
                LossPart::Prediction => R::dx(x, t, p),
                LossPart::Target => R::dt(x, t, p),
            }
        }
        both(
            || of::<R, _>(self, ["x", "t", "v"].map(Emit::argument)),
            || of::<R, _>(self, ["x", "t", "v"].map(EmitWide::argument)),
        )
    }
}

pub fn loss() -> String {
    let mut out = header("Losses of a prediction and a target, their sums, and their derivatives.", 37);
    out.push_str("#include \"sums.cuh\"\n");
    for &row in Loss::ALL {
        let parts = [(LossPart::Value, ""), (LossPart::Prediction, "_prediction"), (LossPart::Target, "_target")];
        for (part, suffix) in parts {
            let name = format!("{row:?}{suffix}");
            function(&mut out, &format!("{name}_f"), &["x", "t", "v"], &row.visit(part), true);
            let first = usize::from(!matches!(part, LossPart::Value));
            let operand = |name: &str, k: usize| format!("float {name} = load(p.in[{k}], at.in[{k}]);");
            let mut lines = vec!["float v = __double2float_rn(p.value);".to_string()];
            lines.extend([operand("x", first), operand("t", first + 1)]);
            let (mut y, mut again) =
                (format!("{name}_f(x, t, v)"), format!("{name}_f_wide((double)x, (double)t, p.value)"));
            if first == 1 {
                lines.push(operand("g", 0));
                y = format!("__fmul_rn(g, __fmul_rn({y}, __double2float_rn(p.factor)))");
                again = format!("__dmul_rn(__dmul_rn((double)g, p.factor), {again})");
            }
            lines.push(format!("float y = {y};"));
            lines.push(format!("if (!is_finite(y)) y = __double2float_rn({again});"));
            lines.push("store(p.out, at.out, y);".into());
            kernel(&mut out, &if first == 1 { format!("{name}_backward") } else { name }, 2 + first, &lines);
        }
        let _ = write!(out, "\nSUM_OF_LOSS({row:?})\n");
    }
    out
}

/// Functions that kernels of other families compute with.
pub fn functions() -> String {
    let mut out = String::from(
        "// Functions that kernels of other families compute with.\n\
         // Written by the rows of the operator table (tests/cuda/rows); not to be edited.\n#pragma once\n\
         #include \"common.cuh\"\n#include \"wide.cuh\"\n",
    );
    function(&mut out, "exp_of", &["x"], &Unary::Exp.visit(OfUnary { slope: false }), false);
    out
}
