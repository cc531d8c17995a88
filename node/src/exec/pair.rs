//! A pair from start to end, on one worker thread: the environment server is started, its port awaited, the policy run, the
//! server ended.
//!
//! Invariants: each of the two leads a process group of its own; the policy starts only when the server listens; when
//! `Ended` is reported neither group has a member left; a server is ended after its policy, gently at first.
//! Does not: start a server again, or speak its protocol.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listener::{self, Found};
use super::output::Streams;
use super::pool::{Pool, signal};
use super::port::{self, Given, PortFile, Writer};
use super::process::{Over, Process, Role, Samples, drain, turn};
use super::program::{self, Refusal};
use super::task::{ms_between, patience};
use super::{Cpu, End, EnvServer, ExecEvent, Kill, Launch, TaskKey, Usage, group};

/// From SIGTERM to SIGKILL, for a server whose policy has ended and for a policy whose server has.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long a policy may go on when its server ended well. It may have told the server to, and be about to end itself.
const AFTER_EXIT: Duration = Duration::from_secs(5);
/// The same after a crash: mostly the policy notices at once, and what it says of it is worth having.
const AFTER_CRASH: Duration = Duration::from_millis(250);
/// Time between two looks for the port.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(20);

/// Runs one pair and reports its events; `launch` is the policy's. `scratch` is the thread's read buffer.
pub(super) fn run(pool: &Arc<Pool>, launch: Launch, server: EnvServer, scratch: &mut Vec<u8>) {
    let (key, begin) = (launch.key, Instant::now());
    let started = PortFile::new(&launch.out)
        .map_err(|error| Refusal::new(126, format!("the env's port file cannot be made: {error}")))
        .and_then(|file| {
            let launch = env_launch(&launch, server.argv, &file)?;
            let child = program::spawn(&launch).map_err(|refusal| refusal.of("env"))?;
            Ok((file, Process::new(launch, Role::Env, child, begin)))
        });
    let (mut file, mut env) = match started {
        Ok(started) => started,
        Err(refusal) => return pool.not_started(key, refusal.code, refusal.reason),
    };
    // Before its pipes are read for the first time.
    env.out.head = Some(Vec::new());
    Pool::on_spawned(pool, key, Role::Env, env.pid);
    let pair = Pair { pool, key, begin, host: server.host, deadline: begin + server.port_wait };
    let listens = pair.watch(&mut env, scratch).and_then(|()| pair.await_port(&mut env, &mut file, scratch));
    let (end, policy) = match listens {
        Ok(port) => {
            let pid = env.pid.as_raw_pid().unsigned_abs();
            pool.report(ExecEvent::Port { key, host: pair.host, port, pid });
            pair.run_policy(launch, port, &mut env, scratch)
        }
        Err(Refusal { code, reason }) => (End::NotStarted { code, reason }, None),
    };
    // Without a policy a kill has reached the server already, and one SIGTERM is enough: some take a second one for haste.
    let told = policy.is_none() && pool.kill_asked(key).is_some();
    let env = pair.stop_env(env, if told { Told::Yes } else { Told::No }, scratch);
    drop(file);
    let ended = policy.as_ref().map_or(env.at, |policy| policy.at);
    let usage = Usage {
        wall_ms: ms_between(begin, ended),
        cpu: sum(policy.as_ref().and_then(|policy| policy.cpu), env.cpu),
        max_rss_kib: policy.as_ref().and_then(|policy| policy.max_rss_kib).max(env.max_rss_kib),
    };
    let (out, err) = policy.map(|policy| (policy.out, policy.err)).unwrap_or_default();
    let output = Streams { out, err, env_out: env.out, env_err: env.err, ..Streams::default() };
    pool.report(ExecEvent::Ended { key, end, usage, output });
}

struct Pair<'a> {
    pool: &'a Arc<Pool>,
    key: TaskKey,
    begin: Instant,
    host: IpAddr,
    /// When the server must listen.
    deadline: Instant,
}

impl Pair<'_> {
    /// A process whose end cannot be noticed is of no use here, and is killed.
    fn watch(&self, process: &mut Process, scratch: &mut Vec<u8>) -> Result<(), Refusal> {
        process.watch().map_err(|error| {
            signal(process.pid, Kill::Hard);
            process.until_end_of_file(scratch);
            Refusal::new(126, format!("the machine gave no descriptor to watch a process with: {error}"))
        })
    }

    /// Waits until the server listens on the port it gives.
    fn await_port(&self, env: &mut Process, file: &mut PortFile, scratch: &mut Vec<u8>) -> Result<u16, Refusal> {
        let mut samples = Samples::from(self.begin);
        let mut gap = LOOK_FIRST;
        let (mut given, mut last) = (None, Found::Nobody);
        loop {
            if let Some(how) = self.pool.kill_asked(self.key) {
                return Err(Refusal::killed(how));
            }
            let now = Instant::now();
            given = match given {
                None => look(env, file, now)?,
                Some(port) => Some(port),
            };
            if let Some(port) = given {
                let found = listener::find(SocketAddr::new(self.host, port), env.pid);
                match &found {
                    Found::Group if env.exited.is_none() => return Ok(port),
                    // Twice, because the group may change while one looks at it.
                    Found::Stranger(who) if last == found || env.exited.is_some() => {
                        return Err(refuse(format!("port {port} is already taken: {who} listens there, not the env")));
                    }
                    Found::Group | Found::Stranger(_) | Found::Nobody => {}
                }
                last = found;
            }
            if env.exited.is_some() {
                let what =
                    given.map_or_else(|| "gave a port".to_owned(), |port| format!("listened on its port {port}"));
                return Err(refuse(format!("the env {} before it {what}", words(env.end()))));
            }
            if now >= self.deadline {
                return Err(self.too_late(env, given));
            }
            turn([&mut *env], Some(gap.min(self.deadline - now)), scratch);
            gap = (gap * 2).min(LOOK_MAX);
            if samples.is_due() {
                env.sample();
            }
        }
    }

    fn too_late(&self, env: &Process, given: Option<u16>) -> Refusal {
        let within = format!("within {} s", (self.deadline - self.begin).as_secs_f32());
        if let Some(port) = given {
            let to = SocketAddr::new(self.host, port);
            return refuse(format!("the env gave port {port}, but nothing listened on {to} {within}"));
        }
        let first = env.out.head.as_deref().and_then(|head| head.split(|byte| *byte == b'\n').next());
        let hint = match first {
            Some(line) if !line.is_empty() => format!("; its first line is {}", port::shown(line)),
            Some(_) | None => String::new(),
        };
        let how = "write it to the file named by STARLING_PORT_FILE, or print PORT=n as the first line";
        refuse(format!("the env gave no port {within}: {how}{hint}"))
    }

    /// Runs the policy to its end, beside the server.
    fn run_policy(&self, launch: Launch, port: u16, env: &mut Process, scratch: &mut Vec<u8>) -> (End, Option<Over>) {
        let (key, begin) = (self.key, Instant::now());
        let launch = policy_launch(launch, self.host, port);
        let child = match program::spawn(&launch).map_err(|refusal| refusal.of("policy")) {
            Ok(child) => child,
            Err(Refusal { code, reason }) => return (End::NotStarted { code, reason }, None),
        };
        let pid = child.id();
        let mut policy = Process::new(launch, Role::Main, child, begin);
        Pool::on_spawned(self.pool, key, Role::Main, policy.pid);
        let refusal = self.watch(&mut policy, scratch).err();
        let (mut killed, mut lost) = (Killed::No, None);
        if refusal.is_none() {
            self.pool.report(ExecEvent::Started { key, pid });
            killed = self.until_policy_ends(&mut policy, env, scratch);
            // A kill that was asked for explains both ends.
            lost = env.exited.filter(|_| self.pool.kill_asked(key).is_none()).and_then(|_| env.end());
            drain([&mut policy, &mut *env], || patience(self.pool, key), scratch);
        }
        let group = policy.pid;
        self.pool.finish_policy(key, group);
        let over = policy.reap();
        group::await_gone(group);
        let end = match (refusal, lost) {
            (Some(Refusal { code, reason }), _) => End::NotStarted { code, reason },
            (None, Some(env)) => blame(env, &over.end, killed),
            (None, None) => over.end.clone(),
        };
        (end, Some(over))
    }

    /// Serves both until the policy is over, or has to be because the server is.
    fn until_policy_ends(&self, policy: &mut Process, env: &mut Process, scratch: &mut Vec<u8>) -> Killed {
        let mut samples = Samples::from(self.begin);
        while policy.exited.is_none() {
            let mut wait = samples.left();
            if let Some(at) = env.exited
                && self.pool.kill_asked(self.key).is_none()
            {
                let patience = if env.end() == Some(End::Exit(0)) { AFTER_EXIT } else { AFTER_CRASH };
                let left = (at + patience).saturating_duration_since(Instant::now());
                if left.is_zero() {
                    signal(policy.pid, Kill::Gentle);
                    until_exit_or_grace([policy, env], scratch);
                    return Killed::Yes;
                }
                wait = wait.min(left);
            }
            turn([&mut *policy, &mut *env], Some(wait), scratch);
            if samples.is_due() {
                policy.sample();
                env.sample();
            }
        }
        Killed::No
    }

    /// Ends the server, and takes the task out of the table.
    fn stop_env(&self, mut env: Process, told: Told, scratch: &mut Vec<u8>) -> Over {
        // Also if it has exited: others of its group may be there.
        if told == Told::No {
            signal(env.pid, Kill::Gentle);
        }
        until_exit_or_grace([&mut env], scratch);
        let patience = || if self.pool.kill_asked(self.key) == Some(Kill::Hard) { Duration::ZERO } else { STOP_GRACE };
        drain([&mut env], patience, scratch);
        let group = env.pid;
        self.pool.finish(self.key, group);
        let over = env.reap();
        group::await_gone(group);
        over
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    Yes,
    No,
}

/// Whether a server has got its SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

/// What the outcome is when the server ended before its policy, which then ended like this.
fn blame(env: End, policy: &End, killed: Killed) -> End {
    // The policy had what it wanted; or the server ended well and the policy's failure is its own.
    if killed == Killed::No && (*policy == End::Exit(0) || env == End::Exit(0)) {
        return policy.clone();
    }
    let policy = match killed {
        Killed::Yes => "was killed".to_owned(),
        Killed::No => words(Some(policy.clone())),
    };
    End::EnvLost { reason: format!("the env {} while the policy ran; then the policy {policy}", words(Some(env))) }
}

/// Serves the first one until it exits; after the grace it is killed. The others are served meanwhile.
fn until_exit_or_grace<const N: usize>(mut processes: [&mut Process; N], scratch: &mut Vec<u8>) {
    let deadline = Instant::now() + STOP_GRACE;
    while let Some(first) = processes.first()
        && first.exited.is_none()
    {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            signal(first.pid, Kill::Hard);
        }
        turn(processes.each_mut().map(|process| &mut **process), (!left.is_zero()).then_some(left), scratch);
    }
}

/// The port, if the server has given one by now.
fn look(env: &Process, file: &mut PortFile, now: Instant) -> Result<Option<u16>, Refusal> {
    let in_line = port::in_line(env.out.head.as_deref().unwrap_or_default());
    let writer = if env.exited.is_some() { Writer::Ended } else { Writer::Runs };
    let given = if in_line == Given::NotYet { file.look(writer, now) } else { in_line };
    match given {
        Given::NotYet => Ok(None),
        Given::Port(port) => Ok(Some(port)),
        Given::Rubbish(what) => Err(refuse(format!("the env {what}, which is no port: expected 1 to 65535"))),
    }
}

fn env_launch(launch: &Launch, argv: Vec<String>, file: &PortFile) -> Result<Launch, Refusal> {
    let Some(path) = file.path().to_str() else {
        return Err(refuse(format!("the env cannot be told its port file, whose path is no text: {:?}", file.path())));
    };
    let mut launch = Launch { argv, stdin: None, ..launch.clone() };
    replace(&mut launch.argv, "{port_file}", path);
    launch.env.push(("STARLING_PORT_FILE".to_owned(), path.to_owned()));
    Ok(launch)
}

fn policy_launch(mut launch: Launch, host: IpAddr, port: u16) -> Launch {
    let (host, port) = (host.to_string(), port.to_string());
    replace(&mut launch.argv, "{port}", &port);
    replace(&mut launch.argv, "{host}", &host);
    launch.env.push(("STARLING_HOST".to_owned(), host));
    launch.env.push(("STARLING_PORT".to_owned(), port));
    launch
}

fn replace(argv: &mut [String], name: &str, value: &str) {
    for argument in argv {
        if argument.contains(name) {
            *argument = argument.replace(name, value);
        }
    }
}

fn refuse(reason: String) -> Refusal {
    Refusal::new(126, reason)
}

/// How a process ended, as the rest of a sentence.
fn words(end: Option<End>) -> String {
    match end {
        Some(End::Exit(code)) => format!("exited with code {code}"),
        Some(End::Signal(number)) => format!("was killed by signal {number}"),
        Some(other @ (End::NotStarted { .. } | End::EnvLost { .. })) => other.to_string(),
        None => "ended".to_owned(),
    }
}

fn sum(one: Option<Cpu>, other: Option<Cpu>) -> Option<Cpu> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Cpu { user_ms: one.user_ms + other.user_ms, sys_ms: one.sys_ms + other.sys_ms })
        }
        (one, other) => one.or(other),
    }
}
