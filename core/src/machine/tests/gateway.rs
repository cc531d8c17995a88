//! The gateway through the whole Machine: claims in the log, workers in the books.

use super::*;
use crate::election::Why;
use crate::facts::Claim;
use crate::ids::{GatewayTerm, Hash, WorkerName};
use crate::lattice::Lattice as _;
use crate::namespace::sys;
use crate::resources::Resources;
use crate::schedule::{Label, Worker};
use crate::testing::{Author, hlc, node};

/// A node that would be the gateway, every write on disk at once.
struct Host {
    machine: Machine,
}

impl Host {
    fn new() -> Self {
        let config = Config::new("wren", Resources { cpu_milli: 2_000, mem_bytes: 1 << 30 });
        let identity = Identity { signer: Signer::from_seed(&[1; 32]), secret: SECRET, boot: 1 };
        Self { machine: Recovery::new(config, Registry::built_in(), identity).finish(now(0)) }
    }

    /// What it says, once all of it is on disk, presence aside.
    fn step(&mut self, at: u64, input: Input) -> String {
        let mut effects = self.machine.step(now(at), input);
        let mut text = show(&effects);
        while let Some(write) = last_write(&effects) {
            effects = self.machine.step(now(at), Input::Durable(write));
            text += &show(&effects);
        }
        let wanted = ["write", "spawn", "kill", "reply", "notice Gateway("];
        let lines = text.lines().filter(|line| wanted.iter().any(|wanted| line.starts_with(wanted)));
        lines.map(|line| line.to_owned() + "\n").collect()
    }

    fn ticks(&mut self, from: u64, to: u64) -> String {
        (from..=to).step_by(250).map(|at| self.step(at, Input::Tick)).collect()
    }

    /// It acts, with a worker that has one slot.
    fn acting() -> Self {
        let mut host = Self::new();
        host.ticks(0, 5_000);
        assert_eq!(host.machine.election().standing().acting(), Some(GatewayTerm(1)));
        host.step(5_001, workers(1));
        host
    }
}

fn workers(slots: u32) -> Input {
    let room = Resources { cpu_milli: 1_000, mem_bytes: u64::MAX };
    let labels = vec![Label("docker".into())];
    Input::Workers(vec![Worker { id: WorkerName("w1".into()), labels, slots, room, attached: true }])
}

/// A job for workers.
fn image(tasks: u32) -> Input {
    let Command::Submit(mut submission) = submission(tasks, AckLevel::Local) else {
        panic!("a submission was made");
    };
    submission.spec = submission.spec.with("image", Value::text("alpine"));
    command(Command::Submit(submission))
}

#[test]
fn a_node_alone_listens_then_claims_settles_and_acts() {
    let mut host = Host::new();
    expect![[r#""#]].assert_eq(&host.ticks(0, 2_750));
    expect![[r#"
        write 1: Admit , ClaimGateway 
        notice Gateway(Settling { term: GatewayTerm(1), since: Mono(3000) })
    "#]]
    .assert_eq(&host.ticks(3_000, 3_750));
    expect![[r#"
        notice Gateway(Acting { term: GatewayTerm(1), since: Mono(4000) })
    "#]]
    .assert_eq(&host.ticks(4_000, 60_000));
    let claim = host.machine.facts().gateway().claim().copied();
    assert_eq!(claim.map(|claim| (claim.term, claim.node)), Some((GatewayTerm(1), node(1))));
}

#[test]
fn workers_are_given_tasks_while_the_node_acts() {
    let mut host = Host::acting();
    expect![[r#"
        write 2: SubmitJob 1-2
        reply 1: job 1 Local fresh=true
        write 3: Grant 1
        spawn 1.1 task 1 attempt 1
        write 4: JobStarted 1
    "#]]
    .assert_eq(&host.step(5_002, image(2)));
    let ended = Input::TaskEnded { run: RunId(1), outcome: Outcome::Exit(0), usage: Usage::default() };
    expect![[r#"
        write 5: JobFinished 1
        write 6: Grant 2, Seal 1
        spawn 1.2 task 2 attempt 1
        write 7: JobStarted 2
    "#]]
    .assert_eq(&host.step(5_100, ended));
}

#[test]
fn workers_of_a_node_that_does_not_act_are_none() {
    let mut host = Host::new();
    host.step(1, workers(1));
    assert_eq!(host.machine.executor().worker_count(), 0);
    assert!(!host.step(2, image(1)).contains("spawn"));
}

#[test]
fn a_greater_claim_takes_the_workers_and_their_tasks_away_at_once() {
    let mut host = Host::acting();
    host.step(5_002, image(1));
    let mut other = Author::new(2);
    let claim = other.append(vec![other.admit("finch"), sys::claim_gateway(hlc(9), GatewayTerm(2))]);
    expect![[r#"
        write 5: Admit , ClaimGateway 
        kill 1
        notice Gateway(Following)
        write 6: JobFinished 1
    "#]]
    .assert_eq(&host.step(5_300, Input::Batch { from: node(2), batch: claim }));
    assert_eq!(host.machine.executor().worker_count(), 0);
    host.step(5_400, workers(1));
    assert_eq!(host.machine.executor().worker_count(), 0, "it does not act any more");
}

#[test]
fn nodes_that_have_written_nothing_count_among_those_that_must_be_seen() {
    let mut host = Host::acting();
    for mut other in [machine(2), machine(3)] {
        for effect in other.step(now(5_100), Input::Tick) {
            if let Effect::Publish(presence) = effect {
                host.step(5_100, Input::Presence(presence));
            }
        }
    }
    assert_eq!(host.machine.facts().roster_size(), 1);
    expect![[r#""#]].assert_eq(&host.ticks(5_250, 8_000));
    // Silent they are not seen any more: it is cut off from the majority, which has another gateway.
    expect![[r#"
        notice Gateway(Following)
    "#]]
    .assert_eq(&host.ticks(8_250, 60_000));
    let why = host.machine.explain_gateway(now(60_000));
    assert_eq!(why, Why::HeldBack { live: 1, roster: 3 });
}

#[test]
fn a_gateway_that_alone_has_written_something_is_followed_by_one_that_has_not() {
    let mut host = Host::new();
    for mut other in [machine(2), machine(3)] {
        for effect in other.step(now(100), Input::Tick) {
            if let Effect::Publish(presence) = effect {
                host.step(100, Input::Presence(presence));
            }
        }
    }
    let mut holder = Author::new(2);
    let claim = holder.append(vec![holder.admit("finch"), sys::claim_gateway(hlc(9), GatewayTerm(1))]);
    host.step(200, Input::Batch { from: node(2), batch: claim });
    assert_eq!(host.machine.facts().roster_size(), 1);
    // Node 3 goes on, node 2 does not.
    let mut third = machine(3);
    for at in (250..=9_000).step_by(250) {
        let effects = third.step(now(at), Input::Tick);
        for presence in
            effects.iter().filter_map(|effect| if let Effect::Publish(it) = effect { Some(it) } else { None })
        {
            host.step(at, Input::Presence(presence.clone()));
        }
        host.step(at, Input::Tick);
    }
    assert_eq!(host.machine.election().standing().acting(), Some(GatewayTerm(2)));
}

#[test]
fn of_two_claims_all_nodes_take_the_same() {
    let claim = |term, seed, at| Claim { term: GatewayTerm(term), node: node(seed), hlc: hlc(at) };
    let mut claims = [claim(1, 1, 5), claim(1, 2, 4), claim(2, 1, 1), claim(1, 3, 9)];
    claims.sort_unstable();
    let mut all = crate::facts::Gateway::default();
    for one in claims.iter().rev() {
        let _ = all.join(crate::facts::Gateway::claimed(*one));
    }
    assert_eq!(all.claim(), Some(&claim(2, 1, 1)));
    assert!(claim(1, 1, 9) < claim(1, 2, 1) || node(2) < node(1), "of one term the greater node");
}

#[test]
fn tokens_are_added_once_and_revoked_for_ever() {
    let mut host = Host::new();
    let add = || command(Command::AddToken { hash: Hash([5; 32]), name: "farm".into() });
    expect![[r#"
        write 1: Admit , AddToken 
        reply 1: Noted
    "#]]
    .assert_eq(&host.step(1, add()));
    expect![[r#"
        reply 1: Noted
    "#]]
    .assert_eq(&host.step(2, add()));
    assert_eq!(host.machine.facts().gateway().valid_tokens().count(), 1);
    let revoke = |byte| command(Command::RevokeToken(Hash([byte; 32])));
    expect![[r#"
        reply 1: Error(UnknownToken)
    "#]]
    .assert_eq(&host.step(3, revoke(6)));
    expect![[r#"
        write 2: RevokeToken 
        reply 1: Noted
    "#]]
    .assert_eq(&host.step(4, revoke(5)));
    expect![[r#"
        reply 1: Noted
    "#]]
    .assert_eq(&host.step(5, add()));
    assert_eq!(host.machine.facts().gateway().valid_tokens().count(), 0);
}

#[test]
fn a_node_that_stops_gives_the_seat_up() {
    let mut host = Host::acting();
    host.step(5_002, image(1));
    let text = host.step(5_003, Input::Shutdown);
    assert!(text.contains("kill 1"), "{text}");
    assert_eq!(host.machine.election().standing().acting(), None);
}
