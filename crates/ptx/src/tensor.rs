//! t
#[derive(Debug)]
pub(crate) struct LoadMatrix;
#[derive(Debug)]
pub(crate) struct StoreMatrix;
#[derive(Debug)]
pub(crate) struct Mma;
#[derive(Debug)]
pub(crate) struct Wgmma;
