//! How long a thread of the pool that waits looks for other work: waking it from sleep takes longer than many an
//! operator, but a thread that never slept would keep a core from others.

use std::time::{Duration, Instant};

/// Polls without work after which the thread lets others have its core in between.
const POLLS: u32 = 1 << 10;
/// Time after which it gives up.
const LONGEST: Duration = Duration::from_millis(5);

/// The patience of one wait.
pub(super) struct Patience {
    /// Polls without work in a row.
    idle: u32,
    since: Instant,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience { idle: 0, since: Instant::now() }
    }

    /// There was work: it polls quickly again. The time goes on.
    pub(super) fn worked(&mut self) {
        self.idle = 0;
    }

    /// There was no work: pauses, and says whether to look again.
    pub(super) fn lasts(&mut self) -> bool {
        if self.idle < POLLS {
            self.idle += 1;
            std::hint::spin_loop();
            return true;
        }
        let lasts = self.since.elapsed() < LONGEST;
        if lasts {
            std::thread::yield_now();
        }
        lasts
    }
}
