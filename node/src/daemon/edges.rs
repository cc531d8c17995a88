//! Edges: carrying out the Machine's effects with the store, the network and processes.
//!
//! Invariants: runs on the driver's thread, so nothing here blocks; a full queue to a peer or to the serving thread drops, and sync repairs.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use starling_core::event::Signer;
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{JobId, LogId, WriteId};
use starling_core::machine::{Effect, Input, Record, Spawn, Work};
use starling_net::{Lane, PeerKey, Topic};
use tracing::{debug, warn};

use super::archivist::Keep;
use super::fetch::Fetches;
use super::serve::{Serve, Wanted};
use super::voices::Voices;
use crate::driver::{Edges, Handle};
use crate::history::History;
use crate::hwp::gateway;
use crate::output::{Files, Place};
use crate::relay;
use crate::storage::{self, LogKey, Store};
use crate::supervise::{Keeper, Server, Task};
use crate::wire::{self, Control};

/// Kept of each output stream (DESIGN section 12).
const OUTPUT_CAP_BYTES: u64 = 64 * 1024 * 1024;

/// The real world.
#[derive(Debug)]
pub(super) struct RealEdges {
    /// The durable log.
    pub(super) store: Store,
    /// Links and gossip.
    pub(super) net: starling_net::Handle,
    /// Processes.
    pub(super) keeper: Keeper,
    /// Programs outside that run tasks.
    pub(super) relays: relay::Handle,
    /// Workers from outside.
    pub(super) gateway: gateway::Handle,
    /// Pulls to be served.
    pub(super) serve: SyncSender<Serve>,
    /// What is to be brought to disk beside the log.
    pub(super) keep: SyncSender<Keep>,
    /// What is kept of retired jobs.
    pub(super) history: History,
    /// Snapshots of others.
    pub(super) fetches: Fetches,
    /// Who said what last.
    pub(super) voices: Arc<Voices>,
    /// Signs presence.
    pub(super) signer: Signer,
    /// Where output goes.
    pub(super) files: Files,
    /// The driver, for writes that are refused at once.
    pub(super) handle: Handle,
    /// Job directories made since the start.
    pub(super) made: BTreeSet<JobId>,
}

impl Edges for RealEdges {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Write { write, records } => self.write(write, records),
            Effect::Gossip(batch) => {
                self.publish(Topic::Log, Bytes::copy_from_slice(batch.bytes()));
            }
            Effect::Publish(presence) => {
                let signed = wire::sign_presence(&self.signer, &presence);
                self.voices.hear(presence.node, &signed);
                self.publish(Topic::Presence, signed);
            }
            Effect::Send { to, message } => {
                let frame = wire::encode(&Control::Core(message));
                if let Err(error) = self.net.send(PeerKey(to.0), Lane::Control, frame) {
                    debug!(node = %to, %error, "message dropped");
                }
            }
            Effect::Serve { to, log, from, known, instead, joined } => {
                // Full: the peer asks again.
                let _full = self.serve.try_send(Serve::Log(Wanted { to, log, from, known, instead, joined }));
            }
            Effect::Retire(past) => {
                let jobs: Vec<JobId> = past.iter().map(|past| past.id).collect();
                for job in &jobs {
                    self.made.remove(job);
                }
                self.history.append(past);
                // Full: the archivist is at work, and will look again before it waits.
                let _full = self.keep.try_send(Keep::Retired(jobs));
            }
            Effect::Snapshot(bytes) => {
                let segment = self.store.current();
                if self.keep.try_send(Keep::Snapshot { bytes, segment }).is_err() {
                    self.handle.try_input(Input::Snapshotted(Err("the disk is far behind".to_owned())));
                }
            }
            Effect::Fetch { from, id, bytes } => {
                if !self.fetches.want(from, id, bytes) {
                    let result = Err("this node is busy with another".to_owned());
                    self.handle.try_input(Input::Fetched { from, result });
                }
            }
            Effect::Spawn(spawn) => self.spawn(*spawn),
            Effect::Kill(run) => {
                // Whoever does not have it leaves it alone.
                self.keeper.kill(run);
                self.relays.kill(run);
                self.gateway.kill(run);
            }
            // The driver keeps these to itself.
            Effect::Reply { .. } | Effect::Notice(_) => {}
        }
    }
}

impl RealEdges {
    fn write(&self, write: WriteId, records: Vec<Record>) {
        let records = records.iter().map(to_disk).collect();
        if self.store.write(write.0, records).is_err() {
            let reason = "its queue is full".to_owned();
            self.handle.try_input(Input::WriteFailed { write, reason });
        }
    }

    fn hand_over(&self, spawn: Spawn) {
        let run = spawn.run;
        if !self.relays.assign(spawn) {
            warn!("a task could not be handed to the relays; it is granted again");
            self.handle.try_input(Input::TaskEnded { run, outcome: Outcome::Lost, usage: Usage::default() });
        }
    }

    fn hand_out(&self, spawn: Spawn) {
        let run = spawn.run;
        if !self.gateway.assign(spawn) {
            warn!("a task could not be handed to the gateway; it is granted again");
            self.handle.try_input(Input::TaskEnded { run, outcome: Outcome::Lost, usage: Usage::default() });
        }
    }

    fn publish(&self, topic: Topic, bytes: Bytes) {
        if let Err(error) = self.net.publish(topic, bytes) {
            debug!(%error, "gossip dropped");
        }
    }

    fn spawn(&mut self, spawn: Spawn) {
        if matches!(spawn.work, Work::Relay(_)) {
            return self.hand_over(spawn);
        }
        if matches!(spawn.work, Work::Worker(_)) {
            return self.hand_out(spawn);
        }
        let place = Place { grant: spawn.grant, task: spawn.task };
        if self.made.insert(spawn.grant.job) {
            let dir = self.files.job_dir(&spawn.grant.job);
            if let Err(error) = std::fs::create_dir_all(&dir) {
                warn!(dir = %dir.display(), %error, "no directory for output");
                self.made.remove(&spawn.grant.job);
            }
        }
        let (launch, env_server) = match spawn.work {
            Work::Process(launch) => (launch, None),
            Work::Pair(pair) => {
                let host = Ipv4Addr::LOCALHOST.to_string();
                let env_server = Server { argv: pair.env_command, port_wait_ms: pair.port_wait_ms, host };
                (pair.policy, Some(env_server))
            }
            Work::Relay(_) | Work::Worker(_) => return,
        };
        let mut env = launch.env;
        env.push(("STARLING_RUN_OWNER".to_owned(), self.signer.node().to_hex()));
        env.push(("STARLING_ATTEMPT".to_owned(), spawn.attempt.to_string()));
        let task = Task {
            place,
            argv: launch.command,
            env,
            cwd: launch.cwd,
            stdin: launch.stdin.map(Into::into),
            out: Task::path(&self.files.prefix(&place)),
            cap_bytes: OUTPUT_CAP_BYTES,
            env_server,
            timeout_ms: launch.timeout_ms,
        };
        let run = spawn.run;
        if !self.keeper.launch(run, task) {
            warn!("a task could not be handed to the keeper; it is granted again");
            self.handle.try_input(Input::TaskEnded { run, outcome: Outcome::Lost, usage: Usage::default() });
        }
    }
}

/// A record as the store keeps it.
fn to_disk(record: &Record) -> storage::Record {
    match record {
        Record::Batch(batch) => {
            let header = batch.header();
            storage::Record::Batch {
                log: log_key(&header.log),
                first_seq: header.first_seq.0,
                count: header.count,
                bytes: Bytes::copy_from_slice(batch.bytes()),
            }
        }
        Record::Note(note) => storage::Record::Local(wire::encode(note)),
        Record::CleanShutdown => storage::Record::Clean,
    }
}

/// A log's key as the store spells it.
#[must_use]
pub(super) fn log_key(log: &LogId) -> LogKey {
    LogKey { node: log.node.0, epoch: log.epoch.0 }
}
