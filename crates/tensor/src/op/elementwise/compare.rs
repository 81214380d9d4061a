//! Comparisons and logic.

/// Comparisons; NaN compares as in IEEE 754 (only `Ne` holds). Logic: what is not 0 is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `a = b`.
    Eq,
    /// `a ≠ b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a ≤ b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a ≥ b`.
    Ge,
    /// Both are nonzero.
    And,
    /// One or both are nonzero.
    Or,
    /// Exactly one is nonzero.
    Xor,
}

impl Compare {
    /// Every comparison.
    pub const ALL: [Compare; 9] = [
        Compare::Eq,
        Compare::Ne,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
        Compare::And,
        Compare::Or,
        Compare::Xor,
    ];

    /// The operator's name.
    pub const fn name(self) -> &'static str {
        match self {
            Compare::Eq => "eq",
            Compare::Ne => "ne",
            Compare::Lt => "lt",
            Compare::Le => "le",
            Compare::Gt => "gt",
            Compare::Ge => "ge",
            Compare::And => "logical_and",
            Compare::Or => "logical_or",
            Compare::Xor => "logical_xor",
        }
    }

    /// Whether only the order of the two values matters, and not whether they are zero.
    pub const fn orders(self) -> bool {
        match self {
            Compare::Eq | Compare::Ne | Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge => true,
            Compare::And | Compare::Or | Compare::Xor => false,
        }
    }

    /// The comparison of two values.
    #[inline]
    pub fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
            Compare::And => a != 0.0 && b != 0.0,
            Compare::Or => a != 0.0 || b != 0.0,
            Compare::Xor => (a != 0.0) != (b != 0.0),
        }
    }
}
