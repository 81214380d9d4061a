//! `ldmatrix`, `stmatrix` and `mma.sync`.

use super::warp::{Warp, lanes};
use super::{Block, Machine};
use crate::code::{Collective, Lanes};
use crate::memory;
use crate::report::FindingKind;
use crate::tensor::{LoadMatrix, Mma, Operands, StoreMatrix, is_half, place_a, place_b, place_c};
use crate::types::{Space, Type};

/// Bytes of a row of a matrix of `ldmatrix`.
const ROW: usize = 16;

impl Machine<'_> {
    pub(super) fn matrices(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, group: u32, what: &Collective) {
        if group != u32::MAX {
            let message = format!("it needs all 32 lanes of a warp, {group:#010x} execute it");
            return self.fatal(FindingKind::Divergence, b, warp, pc, None, message);
        }
        match what {
            Collective::LoadMatrix(m) => self.load_matrix(b, warp, pc, m),
            Collective::StoreMatrix(m) => self.store_matrix(b, warp, pc, m),
            Collective::Mma(m) => self.mma(b, warp, pc, m),
            Collective::Wgmma(m) => self.wgmma(b, warp, pc, m),
            Collective::WgmmaCommit => self.wgmma_commit(b, warp),
            Collective::WgmmaWait(count) => self.wgmma_wait(b, warp, pc, *count),
            // Registers of the interpreter are not counted; a fence orders them with the tensor unit.
            _ => {}
        }
    }

    /// The addresses of `count` matrices' rows: of matrix i by lanes 8·i … 8·i + 7. None if one is wrong.
    fn rows(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        a: crate::code::Address,
        count: usize,
    ) -> Option<Lanes> {
        let mask = if count == 4 { u32::MAX } else { (1 << (8 * count)) - 1 };
        self.defined(b, warp, pc, mask, a.base);
        let addresses = self.addresses(warp, a);
        if self.misaligned(b, warp, pc, mask, &addresses, ROW) {
            return None;
        }
        for lane in lanes(mask) {
            if b.shared.offset(addresses[lane], ROW).is_none() {
                self.out_of_bounds(b, warp, pc, lane, Space::Shared, addresses[lane], ROW, "touched");
                return None;
            }
        }
        self.count_shared(&addresses, mask, ROW);
        Some(addresses)
    }

    fn load_matrix(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, m: &LoadMatrix) {
        let count = m.to.len();
        let Some(addresses) = self.rows(b, warp, pc, m.address, count) else { return };
        let me = self.accessor(b, warp, pc, false);
        let mut fault = None;
        for (i, &to) in m.to.iter().enumerate() {
            let mut matrix = [[0u16; 8]; 8];
            for (r, row) in matrix.iter_mut().enumerate() {
                let lane = 8 * i + r;
                let at = (addresses[lane] - b.shared.base) as usize;
                if self.options.checks {
                    let cells = &mut b.shared.cells[at..at + ROW];
                    let found = self.shadow.read(cells, &me, lane as u32, &b.clocks);
                    fault = fault.or(found.map(|f| (lane, f)));
                }
                for (c, value) in row.iter_mut().enumerate() {
                    *value = memory::read(&b.shared.data[at + 2 * c..], 2) as u16;
                }
            }
            let pick = |lane: usize, e: usize| {
                let (r, c) = (lane / 4, lane % 4 * 2 + e);
                if m.transposed { matrix[c][r] } else { matrix[r][c] }
            };
            let out = std::array::from_fn(|lane| pick(lane, 0) as u64 | (pick(lane, 1) as u64) << 16);
            warp.set(to, &out, u32::MAX);
        }
        if let Some((lane, fault)) = fault {
            self.memory_fault(b, warp, pc, lane, Space::Shared, addresses[lane], fault, "read");
        }
    }

    fn store_matrix(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, m: &StoreMatrix) {
        for &s in &m.from {
            self.defined(b, warp, pc, u32::MAX, s);
        }
        let Some(addresses) = self.rows(b, warp, pc, m.address, m.from.len()) else { return };
        let me = self.accessor(b, warp, pc, false);
        let mut fault = None;
        for (i, &from) in m.from.iter().enumerate() {
            let value = *warp.value(self.code, from);
            for r in 0..8 {
                let lane = 8 * i + r;
                let at = (addresses[lane] - b.shared.base) as usize;
                for c in 0..8 {
                    let (row, column) = if m.transposed { (c, r) } else { (r, c) };
                    let half = value[row * 4 + column / 2] >> (16 * (column & 1));
                    memory::write(&mut b.shared.data[at + 2 * c..], 2, half);
                }
                if self.options.checks {
                    let cells = &mut b.shared.cells[at..at + ROW];
                    let found = self.shadow.write(cells, &me, lane as u32, &b.clocks, false);
                    fault = fault.or(found.map(|f| (lane, f)));
                }
            }
        }
        if let Some((lane, fault)) = fault {
            self.memory_fault(b, warp, pc, lane, Space::Shared, addresses[lane], fault, "written");
        }
    }

    fn mma(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, m: &Mma) {
        for &s in m.a.iter().chain(&m.b).chain(&m.c) {
            self.defined(b, warp, pc, u32::MAX, s);
        }
        let size = m.types[0].size();
        let each = 4 / size;
        let element = |word: u64, e: usize| (word >> (8 * size * e)) as u32 & (u32::MAX >> (32 - 8 * size));
        let mut o = Operands { a: vec![0; m.m * m.k], b: vec![0; 8 * m.k], k: m.k };
        let halves = m.m / 8;
        for (i, &s) in m.a.iter().enumerate() {
            // With eight rows a register holds the next k, not the next rows.
            let i = if halves == 1 { 2 * i } else { i };
            let value = warp.value(self.code, s);
            for lane in 0..32 {
                for e in 0..each {
                    let (row, k) = place_a(lane, i, e, size);
                    o.a[row * m.k + k] = element(value[lane], e);
                }
            }
        }
        for (i, &s) in m.b.iter().enumerate() {
            let value = warp.value(self.code, s);
            for lane in 0..32 {
                for e in 0..each {
                    let (k, column) = place_b(lane, i, e, size);
                    o.b[column * m.k + k] = element(value[lane], e);
                }
            }
        }
        self.report.counters.tensor_operations += (m.m * 8 * m.k) as u64;
        let c: Vec<Lanes> = m.c.iter().map(|&s| *warp.value(self.code, s)).collect();
        let capability = self.capability();
        let (half, integers) = (is_half(m.types[2]), m.types[2] == Type::S32);
        let product = (!integers).then(|| o.floats(m.types[0], capability, half));
        for (r, &to) in m.to.iter().enumerate() {
            let mut out = [0; 32];
            for lane in 0..32 {
                let one = |i: usize, c: u64| {
                    let (row, column) = place_c(lane, i);
                    match &product {
                        Some(product) => product(row, column, c),
                        None => o.integers([m.types[0], m.types[1]], m.saturate, row, column, c as u32) as u64,
                    }
                };
                let c = c[r][lane];
                out[lane] = match half {
                    true => one(2 * r, c & 0xffff) | one(2 * r + 1, c >> 16) << 16,
                    false => one(r, c),
                };
            }
            warp.set(to, &out, u32::MAX);
        }
    }

    /// The generation whose arithmetic tensor instructions have.
    pub(super) fn capability(&self) -> u32 {
        self.options.capability.unwrap_or(self.code.target)
    }
}
