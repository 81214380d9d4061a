//! [`LeafId`]: a parameter, or a variable gradients are wanted for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::Claims;

/// Identity of a leaf: a parameter, or a variable gradients are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeafId(u64);

static NEXT: AtomicU64 = AtomicU64::new(1);

impl LeafId {
    pub(crate) fn new() -> LeafId {
        LeafId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is known of a leaf, whoever holds it.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) id: LeafId,
    /// Of a parameter: who claims it, and its name.
    pub(crate) param: OnceLock<(Claims, RwLock<Arc<str>>)>,
}

impl Leaf {
    pub(crate) fn new() -> Arc<Leaf> {
        Arc::new(Leaf { id: LeafId::new(), param: OnceLock::new() })
    }

    /// The name of a parameter that nobody claims.
    pub(crate) fn unclaimed_name(&self) -> Option<Arc<str>> {
        let (claims, name) = self.param.get()?;
        (!claims.any()).then(|| name.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
