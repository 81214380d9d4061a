//! Vector clocks: who knows of whose doings within a block, and what it learned of other blocks.
//!
//! Agents are the warps, then each warp's copy engine, then what comes up as the block runs: tensor units of
//! warpgroups, mbarriers (for the copies that complete on them) and groups of bulk copies. Only warps have a view of
//! their own; an engine acts with the view of the warp that gave it the work.

use std::collections::BTreeMap;

/// What is known of each agent: the clock up to which its doings have been seen.
pub(crate) type View = Vec<u32>;

/// What is known of other blocks, by block.
pub(crate) type Foreign = BTreeMap<u32, View>;

/// The clocks of a block.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// A view for each warp.
    pub views: Vec<View>,
    /// Of these, what a fence has made visible to the asynchronous proxy.
    pub fenced: Vec<View>,
    pub foreign: Vec<Foreign>,
    warps: usize,
    agents: u16,
}

impl Clocks {
    pub fn new(warps: usize) -> Clocks {
        let mut views = vec![vec![0; warps]; warps];
        for (w, view) in views.iter_mut().enumerate() {
            view[w] = 1;
        }
        let (fenced, foreign) = (vec![Vec::new(); warps], vec![Foreign::new(); warps]);
        // Each warp's engine of asynchronous copies comes first.
        Clocks { views, fenced, foreign, warps, agents: 2 * warps as u16 }
    }

    /// The agent of a warp's copy engine.
    pub fn copier(&self, warp: usize) -> u16 {
        (self.warps + warp) as u16
    }

    /// A new agent.
    pub fn agent(&mut self) -> u16 {
        self.agents += 1;
        self.agents - 1
    }

    /// Whether a warp's view covers what `agent` did at `clock`.
    #[inline]
    pub fn knows(&self, warp: usize, agent: u16, clock: u32) -> bool {
        self.views[warp].get(agent as usize).is_some_and(|&c| c >= clock)
    }

    /// Whether what `agent` did through the generic proxy is visible to the asynchronous one.
    pub fn knows_fenced(&self, warp: usize, agent: u16, clock: u32) -> bool {
        self.fenced[warp].get(agent as usize).is_some_and(|&c| c >= clock)
    }

    /// Whether a warp has learned of another block's doings.
    pub fn knows_foreign(&self, warp: usize, block: u32, agent: u16, clock: u32) -> bool {
        self.foreign[warp].get(&block).and_then(|v| v.get(agent as usize)).is_some_and(|&c| c >= clock)
    }

    /// Whether a warp has learned anything of other blocks.
    #[inline]
    pub fn knows_others(&self, warp: usize) -> bool {
        !self.foreign[warp].is_empty()
    }

    /// The warp has done something that others may learn of: what follows is later.
    pub fn tick(&mut self, warp: usize) {
        self.views[warp][warp] += 1;
    }

    /// The warp learns what an engine did up to `clock`.
    pub fn learn(&mut self, warp: usize, agent: u16, clock: u32) {
        let view = &mut self.views[warp];
        if view.len() <= agent as usize {
            view.resize(agent as usize + 1, 0);
        }
        view[agent as usize] = view[agent as usize].max(clock);
    }

    /// Everything the warp knows, to be learned by others.
    pub fn snapshot(&self, warp: usize) -> Knowledge {
        Knowledge {
            view: self.views[warp].clone(),
            fenced: self.fenced[warp].clone(),
            foreign: self.foreign[warp].clone(),
        }
    }

    /// The warp learns all of it.
    pub fn join(&mut self, warp: usize, from: &Knowledge) {
        merge(&mut self.views[warp], &from.view);
        merge(&mut self.fenced[warp], &from.fenced);
        for (block, view) in &from.foreign {
            merge(self.foreign[warp].entry(*block).or_default(), view);
        }
    }

    /// What the warp knows becomes visible to the asynchronous proxy.
    pub fn fence(&mut self, warp: usize) {
        let (views, fenced) = (&self.views, &mut self.fenced);
        merge(&mut fenced[warp], &views[warp]);
    }
}

/// What a warp knew at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    pub view: View,
    pub fenced: View,
    pub foreign: Foreign,
}

impl Knowledge {
    pub fn add(&mut self, other: &Knowledge) {
        merge(&mut self.view, &other.view);
        merge(&mut self.fenced, &other.fenced);
        for (block, view) in &other.foreign {
            merge(self.foreign.entry(*block).or_default(), view);
        }
    }
}

/// The later of two views, agent by agent.
pub(crate) fn merge(into: &mut View, from: &View) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (a, b) in into.iter_mut().zip(from) {
        *a = (*a).max(*b);
    }
}
