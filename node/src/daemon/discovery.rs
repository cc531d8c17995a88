//! Discovery through the rendezvous directory: announces this node, hints at the others.
//!
//! Does not: trust what it finds; the membership challenge decides.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::rendezvous::{Entry, Rendezvous};

/// At first nodes that start together should find each other at once; later the directory changes rarely.
const EAGER: Duration = Duration::from_millis(100);
const EAGER_FOR: Duration = Duration::from_secs(5);
const CALM: Duration = Duration::from_secs(3);
/// Entries go stale after 60 s.
const TOUCH: Duration = Duration::from_secs(20);

/// Runs until `stop` ends. For a thread of its own.
pub(super) fn run(rendezvous: &Rendezvous, name: &str, net: &starling_net::Handle, stop: &Receiver<()>) {
    let started = Instant::now();
    let mut touched: Option<Instant> = None;
    let mut complained = false;
    loop {
        if touched.is_none_or(|at| at.elapsed() >= TOUCH) {
            let entry = Entry { name: name.to_owned(), links: net.listening() };
            match rendezvous.announce(&entry) {
                Ok(()) => complained = false,
                Err(error) if !complained => {
                    warn!(%error, "cannot announce this node in the rendezvous directory; others find it by mDNS or --join");
                    complained = true;
                }
                Err(_) => {}
            }
            touched = Some(Instant::now());
        }
        for entry in rendezvous.others() {
            entry.links.into_iter().take(8).for_each(|addr| net.hint(addr, None));
        }
        let pause = if started.elapsed() < EAGER_FOR { EAGER } else { CALM };
        if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    rendezvous.leave();
}
