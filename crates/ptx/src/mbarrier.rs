//! Operations on mbarriers: their operands.

use crate::code::{Address, Src};

/// An operation.
#[derive(Debug)]
pub(crate) struct Operation {
    pub address: Address,
    pub what: What,
}

/// What is done.
#[derive(Debug)]
pub(crate) enum What {
    /// The number of arrivals of a phase.
    Init(Src),
    Invalidate,
    /// So many arrivals, of which the phase's token goes to `to`; first bytes to expect may be added.
    Arrive {
        count: Option<Src>,
        expect: Option<Src>,
        to: Option<u32>,
        drop: bool,
    },
    Expect(Src),
    /// Whether a phase is complete: of a token, or of a parity.
    Test {
        to: u32,
        of: Src,
        parity: bool,
    },
}
