//! Products of matrices and vectors.

use binade_tensor::op::{Epilogue, Unary};
use binade_tensor::{DType, Error as TensorError, Op};

use crate::{Result, Var, apply};

/// Products of vectors and matrices, accumulated in f32, and Einstein's notation over them.
impl Var {
    /// `self @ other` in every rank, as PyTorch's matmul: vectors are rows or columns, leading dimensions broadcast.
    ///
    /// # Errors
    /// Inner extents differ; batches do not broadcast.
    pub fn matmul(&self, other: &Var) -> Result<Var> {
        let a = if self.shape().rank() == 1 { self.unsqueeze(0)? } else { self.clone() };
        let b = if other.shape().rank() == 1 { other.unsqueeze(1)? } else { other.clone() };
        let mut out = apply(Op::MatMul(Epilogue::default()), &[&a, &b])?;
        if other.shape().rank() == 1 {
            out = out.squeeze(-1)?;
        }
        if self.shape().rank() == 1 {
            out = out.squeeze(if other.shape().rank() == 1 { -1 } else { -2 })?;
        }
        Ok(out)
    }

    /// `act(self @ weightᵀ + bias)` with weight `[out, in]`, bias `[out]`, self `[…, in]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn linear(&self, weight: &Var, bias: Option<&Var>, act: Option<Unary>) -> Result<Var> {
        let x = if self.shape().rank() == 1 { self.unsqueeze(0)? } else { self.clone() };
        let w = weight.transpose(0, 1)?;
        let op = Op::MatMul(Epilogue { bias: bias.is_some(), act });
        let y = match bias {
            Some(bias) => apply(op, &[&x, &w, bias])?,
            None => apply(op, &[&x, &w])?,
        };
        if self.shape().rank() == 1 { y.squeeze(0) } else { Ok(y) }
    }

    /// `act(self) @ weightᵀ + bias`, shapes as for [`Var::linear`]: the activation is computed as the product reads it and not written, as where a
    /// hidden layer's result has one use. Under autocast a wider self is rounded before it, as what a product gave is.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn linear_of(&self, act: Unary, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        if self.shape().rank() == 1 {
            return self.unsqueeze(0)?.linear_of(act, weight, bias)?.squeeze(0);
        }
        let (w, op) = (weight.transpose(0, 1)?, Op::MatMulOf { act, bias: bias.is_some() });
        match bias {
            Some(bias) => apply(op, &[self, &w, bias]),
            None => apply(op, &[self, &w]),
        }
    }

    /// `Σ a·b` of two vectors, accumulated in f32.
    ///
    /// # Errors
    /// Not two vectors of one length.
    pub fn dot(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 1 || self.shape() != other.shape() {
            let expected = "expected two vectors of one length".into();
            return Err(TensorError::Shape { op: "dot", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.matmul(other)
    }

    /// `a[i]·b[j]` of two vectors.
    ///
    /// # Errors
    /// Not two vectors.
    pub fn outer(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 1 || other.shape().rank() != 1 {
            let expected = "expected two vectors".into();
            return Err(TensorError::Shape { op: "outer", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.unsqueeze(1)?.mul(&other.unsqueeze(0)?)
    }

    /// Batched product of `[B, m, k]` and `[B, k, n]`.
    ///
    /// # Errors
    /// Not three dimensions each, or extents that do not fit.
    pub fn bmm(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 3 || other.shape().rank() != 3 || self.shape()[0] != other.shape()[0] {
            let expected = "expected [B, m, k] and [B, k, n]".into();
            return Err(TensorError::Shape { op: "bmm", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.matmul(other)
    }

    /// `self + a @ b` with self a vector `[n]` or anything that broadcasts to `[m, n]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn addmm(&self, a: &Var, b: &Var) -> Result<Var> {
        if self.shape().rank() == 1 {
            return apply(Op::MatMul(Epilogue { bias: true, act: None }), &[a, b, self]);
        }
        let product = a.matmul(b)?;
        // One operator as far as autocast is concerned: all three operands are narrowed.
        let narrow = crate::scope::rule().is_some() && product.dtype().is_half() && self.dtype() == DType::F32;
        product.add(&if narrow { self.cast(product.dtype())? } else { self.clone() })
    }

    /// Einstein's notation, as `einsum("bij,bjk->bik", &[a, b])`: letters that are not in the result are summed over. Operands
    /// are multiplied from left to right, each pair as one batched product. An ellipsis and a letter twice in one operand are
    /// not supported.
    ///
    /// # Errors
    /// An equation that does not describe the operands.
    pub fn einsum(equation: &str, operands: &[&Var]) -> Result<Var> {
        let fail = |message: String| TensorError::Argument { op: "einsum", message };
        let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left.to_string(), Some(right.to_string())),
            None => (text.clone(), None),
        };
        let terms: Vec<Vec<char>> = left.split(',').map(|t| t.chars().collect()).collect();
        if terms.len() != operands.len() {
            return Err(fail(format!("'{equation}' names {} operands, got {}", terms.len(), operands.len())).into());
        }
        let mut extents = std::collections::BTreeMap::<char, usize>::new();
        for (term, operand) in terms.iter().zip(operands) {
            if term.len() != operand.shape().rank() {
                let term: String = term.iter().collect();
                return Err(fail(format!("'{term}' names {} dimensions of {:?}", term.chars().count(), operand.shape())).into());
            }
            for (i, (&letter, &extent)) in term.iter().zip(operand.shape().iter()).enumerate() {
                if !letter.is_ascii_alphabetic() {
                    return Err(fail(format!("'{letter}' is not a letter a to z or A to Z")).into());
                }
                if term[..i].contains(&letter) {
                    return Err(fail(format!("'{letter}' stands twice in one operand; take its diagonal first")).into());
                }
                if *extents.entry(letter).or_insert(extent) != extent {
                    return Err(fail(format!("'{letter}' is {} and {extent} long", extents[&letter])).into());
                }
            }
        }
        let result: Vec<char> = match right {
            Some(right) => right.chars().collect(),
            // Without an arrow: the letters that occur once, in alphabetical order.
            None => {
                let once = |l: &&char| terms.iter().flatten().filter(|m| m == l).count() == 1;
                extents.keys().filter(once).copied().collect()
            }
        };
        if let Some(bad) = result.iter().enumerate().find(|(i, l)| !extents.contains_key(l) || result[..*i].contains(l)) {
            return Err(fail(format!("'{}' in the result is unknown or repeated", bad.1)).into());
        }
        let mut letters = terms[0].clone();
        let mut value = operands[0].clone();
        for k in 1..terms.len() {
            // Needed later: in the result or in an operand to come.
            let needed = |l: &char| result.contains(l) || terms[k + 1..].iter().any(|t| t.contains(l));
            (value, letters) = contract(&value, &letters, operands[k], &terms[k], &needed)?;
        }
        let gone: Vec<isize> = (0..letters.len()).filter(|&i| !result.contains(&letters[i])).map(|i| i as isize).collect();
        if !gone.is_empty() {
            value = value.sum(&gone, false)?;
            letters.retain(|l| result.contains(l));
        }
        let order: Vec<isize> = result.iter().filter_map(|l| letters.iter().position(|m| m == l)).map(|i| i as isize).collect();
        value.permute(&order)
    }
}

/// The product of two operands as one batched matrix product `[batch, m, k] @ [batch, k, n]`.
fn contract(a: &Var, la: &[char], b: &Var, lb: &[char], needed: &dyn Fn(&char) -> bool) -> Result<(Var, Vec<char>)> {
    // Letters of one operand alone that nothing needs are summed first.
    let reduce = |v: &Var, own: &[char], other: &[char]| -> Result<(Var, Vec<char>)> {
        let keep = |l: &char| other.contains(l) || needed(l);
        let gone: Vec<isize> = (0..own.len()).filter(|&i| !keep(&own[i])).map(|i| i as isize).collect();
        let v = if gone.is_empty() { v.clone() } else { v.sum(&gone, false)? };
        Ok((v, own.iter().copied().filter(keep).collect()))
    };
    let ((a, la), (b, lb)) = (reduce(a, la, lb)?, reduce(b, lb, la)?);
    let batch: Vec<char> = la.iter().copied().filter(|l| lb.contains(l) && needed(l)).collect();
    let summed: Vec<char> = la.iter().copied().filter(|l| lb.contains(l) && !needed(l)).collect();
    let rows: Vec<char> = la.iter().copied().filter(|l| !lb.contains(l)).collect();
    let columns: Vec<char> = lb.iter().copied().filter(|l| !la.contains(l)).collect();
    let extent = |l: &char| match la.iter().position(|m| m == l) {
        Some(i) => a.shape()[i],
        None => lb.iter().position(|m| m == l).map_or(1, |i| b.shape()[i]),
    };
    let size = |letters: &[char]| letters.iter().map(extent).product::<usize>() as isize;
    let arrange = |v: &Var, own: &[char], groups: [&[char]; 3]| -> Result<Var> {
        let order: Vec<isize> =
            groups.iter().flat_map(|g| g.iter()).filter_map(|l| own.iter().position(|m| m == l)).map(|i| i as isize).collect();
        v.permute(&order)?.reshape(&groups.map(size))
    };
    let product = arrange(&a, &la, [&batch, &rows, &summed])?.matmul(&arrange(&b, &lb, [&batch, &summed, &columns])?)?;
    let letters: Vec<char> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    let shape: Vec<isize> = letters.iter().map(|l| extent(l) as isize).collect();
    Ok((product.reshape(&shape)?, letters))
}
