//! The gateway parted from the majority, on hosts of their own: it stops, another takes over, and after healing there is one.
//!
//! Does not: run where nobody may make network namespaces; the test says so there.

use std::fs::File;
use std::path::Path;

use starling_testnet::local::{Cluster, Namespaces, Options, Port, can_make_namespaces, share_secret};

use crate::hwp::{WORKED, await_gateway, await_workers, number_of, others, said_by, seat, starts, worker};
use crate::support::{BINARY, Flock, LONG, Running, alone, lines, scratch, skip, within};

const TASKS: usize = 60;
const SLOTS: usize = 2;
/// Where a node listens for workers that are on its own host.
const LOCAL: &str = "http://127.0.0.1:50051";

/// A worker on the host of a node, attached to that node.
fn start_worker_on(flock: &Flock, host: usize, id: &str) -> Running {
    let program = flock.cluster.namespaces().unwrap().command(host, Path::new(BINARY));
    let flags = ["--slots", &SLOTS.to_string(), "--capability", "outside"];
    let mut command = worker(program, &flock.file(id), id, &[LOCAL], &flags);
    Running::start(command.stderr(File::create(said_by(flock, id)).unwrap()))
}

#[test]
fn a_gateway_parted_from_the_majority_stops_and_all_agree_after_healing() {
    if !can_make_namespaces() {
        skip("network namespaces: no right to make them, or no iproute2");
        return;
    }
    let _alone = alone();
    let home = scratch();
    let hosts = Namespaces::make("hwp", 3).unwrap();
    share_secret(Path::new(BINARY), home.path(), 3).unwrap();
    let options = Options::uniform(Path::new(BINARY), home.path(), 3, &["--cpus", "1"]);
    let flock = Flock::with(home, Cluster::start_in_namespaces(options, hosts).unwrap());
    let before = await_gateway(&flock, &[1, 2, 3]);
    let parted = number_of(&flock, &before.holder);
    let rest = others(&flock, &before);
    // One of the workers is cut off with the gateway.
    let _workers: Vec<_> = (1..=3).map(|host| start_worker_on(&flock, host, &format!("beside-{host}"))).collect();
    await_workers(&flock, rest[0], 3);

    let began = flock.file("began");
    let script = format!(
        "echo \"$STARLING_TASK $STARLING_ATTEMPT\" >> {}; sleep 0.3; exit $((STARLING_TASK % 2))",
        began.display()
    );
    let submit = |at: usize, array: &str| {
        let args = ["--cpus", "0.01", "--constraint", "outside", "--array", array, "--", "sh", "-c", &script];
        flock.submit(at, &args)
    };
    // One of the three nodes has written nothing so far. It must be seen all the same.
    let first = submit(rest[0], &format!("1-{TASKS}"));
    within(WORKED, "a third of the tasks", || lines(&began).len() > TASKS / 3);
    let hosts = flock.cluster.namespaces().unwrap();
    hosts.set_port(parted, Port::Down).unwrap();

    within(LONG, "the parted gateway to stop", || !seat(&flock, parted).acting);
    let told = seat(&flock, parted);
    assert_eq!((told.term, &told.holder), (before.term, &before.holder), "it has heard of no other");
    assert!(told.why.contains("sees 1 of 3 members"), "{}", told.why);
    let elected = || rest.iter().all(|at| seat(&flock, *at).holder != before.holder);
    within(LONG, "the majority's election", elected);
    let after = await_gateway(&flock, &rest);
    assert_eq!(after.term, before.term + 1, "{before:?}, then {after:?}");
    // Both sides take jobs; workers run those of the majority.
    let apart = submit(parted, "1-4");
    let meanwhile = submit(rest[1], "1-8");
    for job in [&first, &meanwhile] {
        flock.at(rest[0], &["wait", "--timeout", "120s", job]).exits(1);
    }
    assert!(!seat(&flock, parted).acting, "it still does not act");
    assert_eq!(flock.state(parted, &apart), "pending", "nobody runs it there");

    hosts.set_port(parted, Port::Up).unwrap();
    flock.cluster.await_ready(3).unwrap();
    flock.at(parted, &["wait", "--timeout", "120s", &apart]).exits(1);
    let healed = await_gateway(&flock, &[1, 2, 3]);
    assert_eq!((healed.term, &healed.holder), (after.term, &after.holder), "the gateway that was elected remains");
    within(LONG, "all workers at it", || seat(&flock, parted).workers == 3);
    flock.await_equal(&[1, 2, 3]);
    let seen: Vec<_> = (1..=3).map(|number| flock.json(number, &["jobs", "--all"])).collect();
    assert_eq!(seen[0].len(), 3);
    assert!(seen.iter().all(|jobs| *jobs == seen[0]), "{seen:?}");
    let details: Vec<_> = (1..=3).map(|number| outcomes(&flock, number, &first)).collect();
    assert!(details.iter().all(|detail| *detail == details[0]), "{details:?}");
    assert_eq!(starts(&began).len(), TASKS, "every task ran");
    flock.at(rest[0], &["doctor"]).exits(0);
}

/// What a node knows of how a job's tasks ended.
fn outcomes(flock: &Flock, number: usize, job: &str) -> [serde_json::Value; 3] {
    let detail = flock.one(number, &["job", "info", job]);
    [detail["attempts"].clone(), detail["seal"].clone(), detail["summary"]["counts"].clone()]
}
