//! Who answers for a tensor: an optimiser claims the parameters and buffers of the modules it was made from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The claims on a parameter or a buffer. Clones speak of the same tensor.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<AtomicUsize>);

impl Claims {
    /// Whether anybody claims the tensor.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn key(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// One claim; it ends when it is dropped.
#[derive(Debug)]
struct Claim(Claims);

impl Claim {
    fn new(claims: &Claims) -> Claim {
        claims.0.fetch_add(1, Ordering::Relaxed);
        Claim(claims.clone())
    }
}

impl Clone for Claim {
    fn clone(&self) -> Claim {
        Claim::new(&self.0)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Everything that one optimiser claims, for as long as it lives.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    claims: HashMap<usize, Claim>,
}

impl Owner {
    /// Claims a tensor.
    pub fn claim(&mut self, claims: &Claims) {
        self.claims.entry(claims.key()).or_insert_with(|| Claim::new(claims));
    }

    /// Whether a change to tensors with these claims is for this owner's step to decide: one of them is its own, or
    /// nobody claims any.
    pub(crate) fn decides(&self, claims: &[Claims]) -> bool {
        let own = |claims: &Claims| self.claims.contains_key(&claims.key());
        claims.iter().any(own) || !claims.iter().any(Claims::any)
    }
}
