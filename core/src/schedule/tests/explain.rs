//! Explain: each reason why a job waits. And the fleet, which the reasons rest on.

use crate::config::Config;
use crate::event::{Value, WorkSpec};
use crate::facts::{Handler, Job, Outcome, Submit};
use crate::ids::Term;
use crate::resources::Resources;
use crate::schedule::{Explanation, Fleet, Gatewayship, Health, NodeReason, Presence, RelaySlots, explain};
use crate::testing::{command, ended, grant_no, hlc, job_id, joined, node, placed, started, submit, tasks};
use crate::time::{Mono, Wall};

const TWO: Resources = Resources { cpu_milli: 2_000, mem_bytes: 1_000 };

pub(super) fn presence(seed: u8, name: &str) -> Presence {
    Presence {
        node: node(seed),
        boot: 1,
        seq: 1,
        name: name.into(),
        wall: Wall(0),
        total: TWO,
        free: TWO,
        backlog: 0,
        running: 0,
        digest: 0,
        root: 0,
        api: String::new(),
        links: Vec::new(),
        accepts: true,
        version: "0".into(),
        stats: None,
        relays: Vec::new(),
        labels: Vec::new(),
        gateway: Gatewayship::default(),
    }
}

fn fleet(presences: Vec<Presence>) -> Fleet {
    let mut fleet = Fleet::new(&Config::new("x", TWO), Mono(0));
    for presence in presences {
        assert!(fleet.hear(Mono(0), presence));
    }
    fleet
}

fn submitted(spec: &WorkSpec) -> Job {
    Job::submitted(submit(tasks(1, 3), spec))
}

/// The one node's reason.
fn reason(now: u64, spec: &WorkSpec, presence: Presence) -> NodeReason {
    let fleet = fleet(vec![presence]);
    let explanation = explain(Mono(now), &node(1), &submitted(spec), &fleet);
    let Explanation::Waiting { nodes, .. } = explanation else {
        panic!("{explanation:?}");
    };
    nodes[0].2.clone()
}

#[test]
fn a_job_whose_submission_has_not_arrived_is_unknown() {
    assert_eq!(explain(Mono(0), &node(1), &Job::default(), &fleet(vec![])), Explanation::Unknown);
}

#[test]
fn a_sealed_job_is_finished() {
    let job = joined([submitted(&command()), Job::sealed(Term(1), Outcome::Exit(0), tasks(1, 3), hlc(9))]);
    assert_eq!(explain(Mono(0), &node(1), &job, &fleet(vec![])), Explanation::Finished);
}

#[test]
fn a_job_whose_unsealed_tasks_all_run_does_not_wait() {
    let job = joined([
        submitted(&command()),
        Job::granted(grant_no(1), placed(node(2), 1, tasks(1, 3))),
        Job::reported(grant_no(1), node(2), started(tasks(1, 3))),
        Job::reported(grant_no(1), node(2), ended(tasks(3, 3), Outcome::Exit(0))),
        Job::sealed(Term(1), Outcome::Exit(0), tasks(3, 3), hlc(9)),
    ]);
    assert_eq!(explain(Mono(0), &node(1), &job, &fleet(vec![])), Explanation::Running { tasks: 2 });
}

#[test]
fn a_waiting_job_tells_its_need_and_its_owners_health() {
    let seen = fleet(vec![presence(1, "wren")]);
    let of = |now| {
        let explanation = explain(Mono(now), &node(1), &submitted(&command()), &seen);
        let Explanation::Waiting { tasks, need, owner, .. } = explanation else {
            panic!("{explanation:?}");
        };
        (tasks, need.cpu_milli, owner)
    };
    assert_eq!(of(0), (3, 1_000, Health::Live));
    assert_eq!(of(3_000), (3, 1_000, Health::Suspect));
    assert_eq!(of(6_000), (3, 1_000, Health::Dead));
}

#[test]
fn each_node_has_its_reason() {
    let wren = || presence(1, "wren");
    assert_eq!(reason(0, &command(), wren()), NodeReason::CouldRun);
    assert_eq!(reason(3_000, &command(), wren()), NodeReason::Silent { for_ms: 3_000 });
    assert_eq!(reason(0, &command().with("node", Value::text("finch")), wren()), NodeReason::NotWanted);
    assert_eq!(reason(0, &command().with("memory", Value::Int(2_000)), wren()), NodeReason::TooSmall { total: TWO });
    let full = Presence { free: Resources::default(), ..wren() };
    assert_eq!(reason(0, &command(), full), NodeReason::Busy { free: Resources::default() });
    let broken = Presence { accepts: false, ..wren() };
    assert_eq!(reason(0, &command(), broken), NodeReason::NotAccepting);
}

#[test]
fn a_job_for_relays_waits_for_one_of_its_namespace() {
    let event = crate::namespace::batch::submit_job(hlc(1), job_id(1, 1), tasks(1, 1), 0, WorkSpec::new());
    let job = Job::submitted(Submit::new(&event, Handler::Relay));
    let reason = |relays: Vec<RelaySlots>| {
        let seen = fleet(vec![Presence { relays, ..presence(1, "wren") }]);
        let Explanation::Waiting { nodes, .. } = explain(Mono(0), &node(1), &job, &seen) else {
            panic!("it waits");
        };
        nodes[0].2.clone()
    };
    let none = NodeReason::NoRelay { ns: "batch".into() };
    let serving = |ns: &str, slots| vec![RelaySlots { ns: ns.into(), slots }];
    assert_eq!(reason(vec![]), none);
    assert_eq!(reason(serving("other", 4)), none);
    assert_eq!(reason(serving("batch", 0)), none);
    assert_eq!(reason(serving("batch", 1)), NodeReason::CouldRun);
}

#[test]
fn a_presence_counts_once_and_an_old_one_never() {
    let mut fleet = fleet(vec![presence(1, "wren")]);
    let at = |seq, boot| Presence { seq, boot, ..presence(1, "wren") };
    assert!(!fleet.hear(Mono(10), at(1, 1)));
    assert!(fleet.hear(Mono(20), at(2, 1)));
    assert!(!fleet.hear(Mono(30), at(1, 1)));
    assert!(fleet.hear(Mono(40), at(1, 2)), "it restarted");
    assert_eq!(fleet.peer(&node(1)).map(|peer| peer.heard), Some(Mono(40)));
}

#[test]
fn a_node_never_heard_of_is_not_dead_before_there_was_time_to_hear_it() {
    let fleet = fleet(vec![]);
    assert_eq!(fleet.health(Mono(0), &node(9)), Health::Suspect);
    assert_eq!(fleet.health(Mono(60_000), &node(9)), Health::Dead);
}
