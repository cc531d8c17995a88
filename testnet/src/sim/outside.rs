//! A number from outside the seed: what the rule "same seed, same trace" forbids. Only the sabotage that proves the rule's checker draws from here.

use std::sync::atomic::{AtomicU64, Ordering};

static DRAWN: AtomicU64 = AtomicU64::new(0);

pub(super) fn draw() -> u64 {
    DRAWN.fetch_add(1, Ordering::Relaxed)
}
