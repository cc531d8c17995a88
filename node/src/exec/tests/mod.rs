//! Real processes: how they end, what they print, how they die.
//!
//! Invariants: no sleeps here (the tasks sleep); every wait has a deadline.
//! Does not: measure speed.

mod ends;
mod kills;
mod pairs;
mod streams;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::output::{self, Stream, Streams, Written};
use super::{End, ExecEvent, Executor, Kill, Launch, Options, TaskKey, Usage};

const DEADLINE: Duration = Duration::from_secs(30);

struct Rig {
    executor: Executor,
    events: Receiver<ExecEvent>,
    tmp: TempDir,
}

#[derive(Debug)]
struct Ended {
    key: TaskKey,
    end: End,
    usage: Usage,
    lens: (u64, u64),
    dropped: (u64, u64),
    output: Streams<Written>,
}

impl Rig {
    fn new() -> Self {
        Self::with_threads(64)
    }

    fn with_threads(threads_max: usize) -> Self {
        let (tx, events) = channel();
        // The sender is shared by the workers, as the driver's is.
        let tx = std::sync::Mutex::new(tx);
        let on_event = Box::new(move |event| drop(tx.lock().unwrap().send(event)));
        Self { executor: Executor::start(on_event, Options { threads_max }), events, tmp: tempfile::tempdir().unwrap() }
    }

    fn prefix(&self, run: u64) -> PathBuf {
        self.tmp.path().join(run.to_string())
    }

    fn task(&self, run: u64, argv: &[&str]) -> Launch {
        Launch {
            key: TaskKey { run },
            argv: argv.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            cwd: None,
            stdin: None,
            out: self.prefix(run),
            cap_bytes: 1 << 20,
            env_server: None,
        }
    }

    fn sh(&self, run: u64, script: &str) -> Launch {
        self.task(run, &["sh", "-c", script])
    }

    fn event(&self) -> ExecEvent {
        self.events.recv_timeout(DEADLINE).expect("an event before the deadline")
    }

    fn started(&self) -> u32 {
        match self.event() {
            ExecEvent::Started { pid, .. } => pid,
            other @ (ExecEvent::Port { .. } | ExecEvent::Ended { .. }) => panic!("{other:?}"),
        }
    }

    fn ended(&self) -> Ended {
        match self.event() {
            ExecEvent::Ended { key, end, usage, output } => {
                let (lens, dropped) =
                    ((output.out.len, output.err.len), (output.out.dropped_bytes, output.err.dropped_bytes));
                Ended { key, end, usage, lens, dropped, output }
            }
            other @ (ExecEvent::Port { .. } | ExecEvent::Started { .. }) => panic!("{other:?}"),
        }
    }

    fn run(&self, launch: Launch) -> Ended {
        self.executor.launch(launch);
        self.started();
        self.ended()
    }

    fn refused(&self, launch: Launch) -> (i32, String) {
        self.executor.launch(launch);
        match self.ended().end {
            End::NotStarted { code, reason } => (code, reason),
            other => panic!("{other:?}"),
        }
    }

    fn text(&self, run: u64, stream: Stream) -> String {
        let (bytes, total) = output::read(&self.prefix(run), stream, 0, usize::MAX).unwrap();
        assert_eq!(bytes.len() as u64, total);
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Waits until `done` shows true; the tasks under test make it so.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < DEADLINE, "{what} did not come true");
            std::thread::yield_now();
        }
    }
}

fn lives(pid: u32) -> bool {
    // A zombie is dead; whoever inherited it may reap it late.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| super::usage::fields_after_name(&stat).and_then(|mut fields| fields.next()) != Some("Z"))
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
