//! Copies that threads begin and wait for in groups.
#[derive(Debug, Default)]
pub(crate) struct Lane32;
