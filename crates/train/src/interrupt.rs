//! Ctrl-C: the first one asks the loop to save and stop, the second ends the process.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// `timeout` and some supervisors send one signal twice, to the process and to its group. Nobody presses Ctrl-C again
/// so soon.
const ECHO: Duration = Duration::from_millis(300);

/// Installs the handler for Ctrl-C and termination signals. A second call does nothing.
pub fn install() {
    // An error means that a handler is already there.
    let mut first = Instant::now();
    let _ = ctrlc::set_handler(move || {
        if !REQUESTED.swap(true, Ordering::SeqCst) {
            first = Instant::now();
            // Where nobody reads this, the run is saved all the same.
            let _ = writeln!(std::io::stderr(), "\nstopping after this step; press Ctrl-C again to stop at once");
        } else if first.elapsed() > ECHO {
            std::process::exit(130);
        }
    });
}

/// Whether a stop was asked for.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Asks for a stop, as Ctrl-C does.
pub fn request() {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// Forgets a request, to train again in the same process.
pub fn clear() {
    REQUESTED.store(false, Ordering::SeqCst);
}
