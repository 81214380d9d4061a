//! Synchronisation through memory: fences, and strong accesses that publish or acquire.
//!
//! A release makes what the warp knows part of the address; an acquire of the same address learns it. A fence before
//! a relaxed write, and one after a relaxed read, do the same.

use super::access::resolve;
use super::warp::{Warp, lanes};
use super::{Block, Machine};
use crate::clock::Knowledge;
use crate::code::{Lanes, Order};
use crate::decode::SHARED_WINDOW;
use crate::types::Space;

impl Machine<'_> {
    /// A fence of the thread, for its block or for the device.
    pub(super) fn fence(&mut self, b: &mut Block, warp: &mut Warp, device: bool) {
        if let Some(mut pending) = warp.pending.take() {
            if !device {
                pending.foreign.clear();
            }
            b.clocks.join(warp.index, &pending);
        }
        warp.published = Some((self.known(b, warp), device));
        b.clocks.tick(warp.index);
        warp.stamp += 1;
    }

    /// What a warp knows, told to other blocks as well.
    fn known(&self, b: &Block, warp: &Warp) -> Knowledge {
        let mut known = b.clocks.snapshot(warp.index);
        // To another block this block's clocks are foreign.
        known.foreign.insert(b.index, known.view.clone());
        known
    }

    /// A key that tells addresses of shared memory of different blocks apart.
    fn key(b: &Block, address: u64) -> u64 {
        match resolve(address) {
            (Space::Global, address) if address > SHARED_WINDOW => address,
            (_, within) => within | 1 << 63 | (b.index as u64) << 32,
        }
    }

    /// Before a strong write.
    pub(super) fn publish(&mut self, b: &mut Block, warp: &mut Warp, addresses: &Lanes, mask: u32, order: Order) {
        let known = if order.release { Some((self.known(b, warp), true)) } else { warp.published.clone() };
        let Some((known, device)) = known else { return };
        let device = device && order.device;
        for lane in lanes(mask) {
            let entries = self.published.entry(Self::key(b, addresses[lane])).or_default();
            match entries.iter_mut().find(|e| e.0 == b.index) {
                Some(entry) => {
                    entry.1 |= device;
                    entry.2.add(&known);
                }
                None => entries.push((b.index, device, known.clone())),
            }
        }
        if order.release {
            b.clocks.tick(warp.index);
            warp.stamp += 1;
        }
    }

    /// After a strong read.
    pub(super) fn acquired(&mut self, b: &mut Block, warp: &mut Warp, addresses: &Lanes, mask: u32, order: Order) {
        let mut learned: Option<Knowledge> = None;
        for lane in lanes(mask) {
            for (block, device, known) in self.published.get(&Self::key(b, addresses[lane])).into_iter().flatten() {
                let into = learned.get_or_insert_default();
                if *block == b.index {
                    into.add(known);
                } else if *device && order.device {
                    let foreign = Knowledge { foreign: known.foreign.clone(), ..Default::default() };
                    into.add(&foreign);
                }
            }
        }
        let Some(learned) = learned else { return };
        if order.acquire {
            b.clocks.join(warp.index, &learned);
            warp.stamp += 1;
        } else {
            warp.pending.get_or_insert_default().add(&learned);
        }
    }
}
