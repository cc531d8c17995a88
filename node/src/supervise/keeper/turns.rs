//! The keeper's thread: turn by turn, what was asked, what was said, what is due.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::mem;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{GrantId, RunId};
use tracing::{error, warn};

use super::hosted::{self, Hosted, Origin, Remains, Untold};
use super::{Command, Happened, Launcher, OnHappened, Start, Table, Told, locked};
use crate::exec::Kill;
use crate::exec::output::Streams;
use crate::output::Place;
use crate::supervise::frame::{Ended, Order, Task, Word};
use crate::supervise::link::Link;
use crate::supervise::muster::bury;
use crate::supervise::not_started;
use crate::supervise::spool::Spool;

/// Supervisors at once. Low: grants share them. High: memory, a few MiB each.
const HOSTS_MAX: usize = 64;
/// How long one is kept for the next grant: much longer than a series of small jobs needs.
const IDLE: Duration = Duration::from_secs(5);
/// Time between two looks at what the log has.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Turns {
    spool: Arc<Spool>,
    launcher: Launcher,
    tell: OnHappened,
    told: Told,
    rx: Receiver<Command>,
    woken: UnixStream,
    running: Arc<Mutex<Table>>,
    /// The run of each launched task.
    runs: BTreeMap<Place, RunId>,
    hosts: Vec<Hosted>,
    remains: Vec<Remains>,
    /// Told to go.
    leaving: Vec<Child>,
    next_look: Instant,
}

/// Whether there is another turn.
#[derive(PartialEq, Eq)]
enum Next {
    Turn,
    Nothing,
}

impl Turns {
    pub(super) fn new(
        start: Start,
        rx: Receiver<Command>,
        woken: UnixStream,
        running: Arc<Mutex<Table>>,
    ) -> io::Result<Self> {
        let Start { spool, found, runs, launcher, tell, told } = start;
        let mut turns = Self {
            spool,
            launcher,
            tell,
            told,
            rx,
            woken,
            running,
            runs: runs.iter().map(|(run, place)| (*place, *run)).collect(),
            hosts: Vec::new(),
            remains: Vec::new(),
            leaving: Vec::new(),
            next_look: Instant::now() + LOOK,
        };
        for (run, place) in runs {
            locked(&turns.running).insert(run, super::Running { place, groups: Vec::new() });
        }
        for (name, book) in found.left {
            turns.keep(name, hosted::untold(&book, |_| true));
        }
        for living in found.living {
            let mut hosted = Hosted {
                name: living.name,
                link: Link::new(living.stream, living.rest)?,
                child: None,
                origin: Origin::Adopted,
                grant: None,
                live: living
                    .book
                    .0
                    .iter()
                    .filter(|(_, entry)| entry.ended.is_none())
                    .map(|(place, _)| *place)
                    .collect(),
                untold: Untold::new(),
                idle_since: Instant::now(),
            };
            hosted.untold = hosted::untold(&living.book, |place| !hosted.live.contains(place));
            for place in hosted.live.iter().filter(|place| !turns.runs.contains_key(place)) {
                warn!(?place, "a task runs that this node's log does not know; it is stopped");
                hosted.link.put(&Order::Kill { place: *place, how: Kill::Hard });
            }
            for (place, entry) in living.book.0.iter().filter(|(_, entry)| entry.ended.is_none()) {
                turns.on_known(*place, &entry.groups, entry.port.as_ref());
            }
            turns.hosts.push(hosted);
        }
        Ok(turns)
    }

    /// What was written of a task that runs on.
    fn on_known(&self, place: Place, groups: &[u32], port: Option<&(String, u16)>) {
        for pid in groups {
            self.on_group(&place, *pid);
        }
        if let (Some((host, port)), Some(run)) = (port, self.runs.get(&place)) {
            (self.tell)(Happened::Port { run: *run, host: host.into(), port: *port });
        }
    }

    pub(super) fn run(mut self) {
        // What a muster had read already shows in no poll.
        let mut heard: Vec<bool> = vec![true; self.hosts.len()];
        loop {
            self.hear(&heard);
            if self.take_commands() == Next::Nothing {
                break;
            }
            if Instant::now() >= self.next_look {
                self.look();
            }
            self.send();
            heard = self.wait();
        }
        self.send();
    }

    /// Waits until there is something to do; which supervisors have something to say.
    fn wait(&mut self) -> Vec<bool> {
        let is_due = !self.remains.is_empty()
            || !self.leaving.is_empty()
            || self.hosts.iter().any(|host| !host.untold.is_empty() || host.live.is_empty());
        let timeout = is_due.then(|| self.next_look.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        fds.extend(self.hosts.iter().map(|host| host.link.interest()));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => warn!(%error, "polling the supervisors failed"),
        }
        let shown: Vec<bool> = fds.iter().skip(1).map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        // Empty: nobody woke it.
        let _empty = self.woken.read(&mut [0; 256]);
        shown
    }

    fn take_commands(&mut self) -> Next {
        loop {
            match self.rx.try_recv() {
                Ok(Command::Launch(run, task)) => self.launch(run, *task),
                Ok(Command::Kill(run)) => self.kill(run),
                Ok(Command::Leave) | Err(TryRecvError::Disconnected) => return Next::Nothing,
                Err(TryRecvError::Empty) => return Next::Turn,
            }
        }
    }

    fn launch(&mut self, run: RunId, task: Task) {
        let place = task.place;
        match self.pick(&place.grant) {
            Ok(index) => {
                let host = &mut self.hosts[index];
                host.grant = Some(place.grant);
                host.live.insert(place);
                host.link.put(&Order::Launch(Box::new(task)));
                self.runs.insert(place, run);
            }
            Err(error) => {
                error!(%error, "no supervisor can be started");
                self.runs.insert(place, run);
                let outcome = not_started("the machine could not start its supervisor", &error);
                self.end(place, outcome, Usage::default(), Streams::default());
            }
        }
    }

    fn kill(&mut self, run: RunId) {
        let Some(place) = locked(&self.running).get(&run).map(|running| running.place) else {
            return;
        };
        if let Some(host) = self.hosts.iter_mut().find(|host| host.live.contains(&place)) {
            host.link.put(&Order::Kill { place, how: Kill::Gentle });
        }
    }

    /// The supervisor for a task of `grant`: the grant's own, an idle one, a new one, or the least busy one.
    fn pick(&mut self, grant: &GrantId) -> io::Result<usize> {
        let own = || self.hosts.iter().enumerate().filter(|(_, host)| host.origin == Origin::Own);
        let of_grant = own().find(|(_, host)| host.grant == Some(*grant) && !host.live.is_empty());
        let fit = of_grant.or_else(|| own().find(|(_, host)| host.live.is_empty()));
        if let Some((index, _)) = fit {
            return Ok(index);
        }
        let shared = own().min_by_key(|(_, host)| host.live.len()).map(|(index, _)| index);
        if let Some(index) = shared
            && self.hosts.len() >= HOSTS_MAX
        {
            return Ok(index);
        }
        match (self.start_host(), shared) {
            (Ok(host), _) => {
                self.hosts.push(host);
                Ok(self.hosts.len() - 1)
            }
            (Err(error), Some(index)) => {
                warn!(%error, "no further supervisor can be started; grants share one");
                Ok(index)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn start_host(&mut self) -> io::Result<Hosted> {
        let name = format!("{:016x}", rand::random::<u64>());
        let (listener, stream) = self.spool.bind(&name)?;
        let child = match (self.launcher)(&self.spool, &name, listener) {
            Ok(child) => child,
            Err(error) => {
                self.spool.remove(&name);
                return Err(error);
            }
        };
        let (live, untold) = (std::collections::BTreeSet::new(), Untold::new());
        let link = Link::new(stream, Vec::new())?;
        Ok(Hosted { name, link, child, origin: Origin::Own, grant: None, live, untold, idle_since: Instant::now() })
    }

    fn hear(&mut self, shown: &[bool]) {
        let mut gone = Vec::new();
        for index in 0..self.hosts.len() {
            if !shown.get(index).copied().unwrap_or_default() {
                continue;
            }
            let mut words = Vec::new();
            let result = self.hosts[index].link.pull(&mut words);
            for word in words {
                self.on_word(index, word);
            }
            if let Err(error) = result {
                gone.push((index, error));
            }
        }
        for (index, error) in gone.into_iter().rev() {
            let host = self.hosts.swap_remove(index);
            warn!(supervisor = host.name, tasks = host.live.len(), %error, "a supervisor is gone");
            self.on_gone(host);
        }
    }

    fn on_word(&mut self, index: usize, word: Word) {
        match word {
            Word::Host { .. } | Word::Launched { .. } | Word::CaughtUp => {}
            Word::Group { place, pid } => self.on_group(&place, pid),
            Word::Port { place, host, port } => {
                if let Some(run) = self.runs.get(&place) {
                    (self.tell)(Happened::Port { run: *run, host: host.into(), port });
                }
            }
            Word::Ended(ended) => {
                let host = &mut self.hosts[index];
                host.live.remove(&ended.place);
                host.idle_since = Instant::now();
                if self.runs.contains_key(&ended.place) {
                    hosted::add(&mut host.untold, &ended.place);
                } else {
                    // Nobody waits for it.
                    let tasks = starling_core::lattice::IntervalSet::one(ended.place.task);
                    host.link.put(&Order::Told { grant: ended.place.grant, tasks });
                }
                self.on_ended(*ended);
            }
        }
    }

    fn on_ended(&mut self, ended: Ended) {
        let output = ended.streams();
        self.end(ended.place, ended.outcome, ended.usage, output);
    }

    fn on_group(&self, place: &Place, pid: u32) {
        if let Some(run) = self.runs.get(place)
            && let Some(running) = locked(&self.running).get_mut(run)
        {
            running.groups.push(pid);
        }
    }

    fn end(&mut self, place: Place, outcome: Outcome, usage: Usage, output: Streams<crate::exec::output::Written>) {
        if let Some(run) = self.runs.remove(&place) {
            locked(&self.running).remove(&run);
            (self.tell)(Happened::Ended { run, place, outcome, usage, output });
        }
    }

    /// A supervisor died: its journal may hold ends that it could not tell any more; the rest is lost, once nothing of it runs.
    fn on_gone(&mut self, host: Hosted) {
        let book = bury(&self.spool, &host.name).unwrap_or_else(|error| {
            error!(supervisor = host.name, %error, "its journal cannot be read; its tasks are lost");
            self.spool.kill(&host.name);
            crate::supervise::journal::Book::default()
        });
        for place in &host.live {
            match book.0.get(place).and_then(|entry| entry.ended.clone()) {
                Some(ended) => self.on_ended(*ended),
                None => self.end(*place, Outcome::Lost, Usage::default(), Streams::default()),
            }
        }
        self.leaving.extend(host.child);
        self.keep(host.name, hosted::untold(&book, |_| true));
    }

    fn keep(&mut self, name: String, untold: Untold) {
        if untold.is_empty() {
            self.spool.remove(&name);
        } else {
            self.remains.push(Remains { name, untold });
        }
    }

    /// Lets go of what the log has, and of supervisors that nobody needs.
    fn look(&mut self) {
        self.next_look = Instant::now() + LOOK;
        let of_hosts = self.hosts.iter().map(|host| &host.untold);
        let mut asked = Untold::new();
        for (grant, tasks) in of_hosts.chain(self.remains.iter().map(|remains| &remains.untold)).flatten() {
            let _ = asked.entry(*grant).or_default().union_with(tasks);
        }
        let told = if asked.is_empty() { Vec::new() } else { (self.told)(asked.into_iter().collect()) };
        for host in &mut self.hosts {
            for (grant, tasks) in hosted::settle(&mut host.untold, &told) {
                host.link.put(&Order::Told { grant, tasks });
            }
        }
        for mut remains in mem::take(&mut self.remains) {
            let _settled = hosted::settle(&mut remains.untold, &told);
            self.keep(remains.name, remains.untold);
        }
        self.send();
        let is_needless = |host: &Hosted| {
            let is_over = host.live.is_empty() && host.untold.is_empty() && !host.link.has_waiting();
            is_over && (host.origin == Origin::Adopted || host.idle_since.elapsed() >= IDLE)
        };
        let (needless, kept) = mem::take(&mut self.hosts).into_iter().partition::<Vec<_>, _>(is_needless);
        self.hosts = kept;
        // The end of its connection is the word to go.
        self.leaving.extend(needless.into_iter().filter_map(|host| host.child));
        self.leaving.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Sends what waits, as far as the sockets take it. One that is broken shows in the next poll.
    fn send(&mut self) {
        for host in &mut self.hosts {
            if let Err(error) = host.link.flush() {
                tracing::debug!(supervisor = host.name, %error, "a supervisor does not hear");
            }
        }
    }
}
