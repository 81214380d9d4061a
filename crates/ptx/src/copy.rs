//! t
#[derive(Debug)]
pub(crate) struct Copy;
