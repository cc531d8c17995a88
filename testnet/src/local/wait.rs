//! Waiting for conditions with a deadline.

use std::time::{Duration, Instant};

/// Looks again after this long.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether `condition` came true within `deadline`.
pub fn until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        pause(PAUSE);
    }
}

/// Lets others run for a while.
pub fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    // A parked thread may wake early.
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}
