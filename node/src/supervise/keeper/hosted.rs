//! One supervisor as the keeper knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use starling_core::ids::GrantId;
use starling_core::lattice::IntervalSet;

use crate::output::Place;
use crate::supervise::MARK;
use crate::supervise::journal::Book;
use crate::supervise::link::Link;
use crate::supervise::spool::Spool;

/// Ends that a journal keeps for the daemon's log.
pub(super) type Untold = BTreeMap<GrantId, IntervalSet>;

/// Whose supervisor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This daemon's.
    Own,
    /// A previous one's: it has that one's environment and version, and is only asked to finish.
    Adopted,
}

/// A supervisor that lives.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) name: String,
    pub(super) link: Link,
    pub(super) child: Option<Child>,
    pub(super) origin: Origin,
    /// The last grant that it was given.
    pub(super) grant: Option<GrantId>,
    /// Launched and not ended.
    pub(super) live: BTreeSet<Place>,
    pub(super) untold: Untold,
    pub(super) idle_since: Instant,
}

/// The journal of one that is gone.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) name: String,
    pub(super) untold: Untold,
}

/// Starts a supervisor of this very program.
pub(super) fn spawn(spool: &Spool, name: &str, listener: UnixListener) -> io::Result<Child> {
    // The link leads to the program that runs, also when another one has taken its place on disk, or none.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("starling").arg("supervise").arg(spool.path()).arg(name);
    command.env(MARK, spool.mark(name));
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(spool.complaints()?);
    command.spawn()
}

/// Everything in a book, as what the log does not have yet.
pub(super) fn untold(book: &Book, counts: impl Fn(&Place) -> bool) -> Untold {
    let mut untold = Untold::new();
    for place in book.0.keys().filter(|place| counts(place)) {
        add(&mut untold, place);
    }
    untold
}

pub(super) fn add(untold: &mut Untold, place: &Place) {
    let _ = untold.entry(place.grant).or_default().insert(place.task);
}

/// Takes out what was told, and says what that was.
pub(super) fn settle(untold: &mut Untold, told: &[(GrantId, IntervalSet)]) -> Vec<(GrantId, IntervalSet)> {
    let mut settled = Vec::new();
    for (grant, tasks) in told {
        let Some(left) = untold.get_mut(grant) else { continue };
        let common = left.intersection(tasks);
        left.subtract(&common);
        if left.is_empty() {
            untold.remove(grant);
        }
        if !common.is_empty() {
            settled.push((*grant, common));
        }
    }
    settled
}
