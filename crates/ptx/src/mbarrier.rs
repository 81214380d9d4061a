//! t
#[derive(Debug)]
pub(crate) struct Operation;
