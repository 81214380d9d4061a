//! stub
use crate::*;
#[derive(Debug)]
pub struct Reference;
impl Reference {
    pub fn new() -> Reference {
        Reference
    }
}
impl Backend for Reference {
    fn name(&self) -> &str {
        "cpu"
    }
    fn alloc(&self, _: DType, _: usize, _: Class) -> Result<std::sync::Arc<Storage>> {
        unimplemented!()
    }
    fn upload(&self, _: &[u8], _: &mut ArrayMut<'_>) -> Result<()> {
        unimplemented!()
    }
    fn download(&self, _: &Array) -> Result<Vec<u8>> {
        unimplemented!()
    }
    fn run(&self, _: &Op, _: &[&Array], _: &mut [ArrayMut<'_>]) -> Result<()> {
        unimplemented!()
    }
    fn update(&self, _: &Update, _: &Array, _: &mut [Slot<'_>]) -> Result<Outcome> {
        unimplemented!()
    }
    fn memory(&self) -> MemoryStats {
        unimplemented!()
    }
    fn reset_peak_memory(&self) {}
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
