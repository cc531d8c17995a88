//! Kill -9 of the gateway while workers run its tasks.
//!
//! Does not: kill the nodes through which the workers are attached; what they have from others is all that is left of the gateway.

use std::time::{Duration, Instant};

use crate::hwp::{
    HOST, WORKED, await_gateway, await_workers, number_of, others, seat, start_worker, starts, tasks, url,
};
use crate::support::{Flock, LONG, alone, lines, say, within};

const TASKS: usize = 200;
/// Of each of the two workers.
const SLOTS: usize = 4;
/// How long a cluster may be without a gateway. Twice what an idle machine is held to: this one runs other tests.
const TAKEOVER_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_killed_gateway_costs_at_most_the_runs_in_flight() {
    let _alone = alone();
    let mut flock = Flock::of(3, HOST);
    let before = await_gateway(&flock, &[1, 2, 3]);
    let killed = number_of(&flock, &before.holder);
    let survivors = others(&flock, &before);
    let _workers: Vec<_> = survivors
        .iter()
        .map(|at| {
            let id = format!("through-{at}");
            let flags = ["--slots", &SLOTS.to_string(), "--capability", "outside"];
            start_worker(&flock, &id, &[&url(&flock, &before, *at)], &flags)
        })
        .collect();
    await_workers(&flock, survivors[0], 2);

    let (began, ended) = (flock.file("began"), flock.file("ended"));
    let script = format!(
        "echo \"$STARLING_TASK $STARLING_ATTEMPT\" >> {}; sleep 0.3; echo \"$STARLING_TASK $STARLING_ATTEMPT\" >> {}",
        began.display(),
        ended.display()
    );
    let array = format!("1-{TASKS}");
    let args = ["--cpus", "0.01", "--constraint", "outside", "--array", &array, "--", "sh", "-c", &script];
    let job = flock.submit(survivors[0], &args);
    within(WORKED, "a third of the tasks", || lines(&ended).len() > TASKS / 3);
    flock.cluster.kill(killed).unwrap();
    let killed_at = Instant::now();

    let mut after = seat(&flock, survivors[1]);
    within(LONG, "another gateway", || {
        after = seat(&flock, survivors[1]);
        after.acting && after.holder != before.holder
    });
    let took = killed_at.elapsed();
    assert!(took < TAKEOVER_MAX, "the new gateway acted after {took:?}");
    assert_eq!(after.term, before.term + 1, "{before:?}, then {after:?}");
    let done = flock.at(survivors[1], &["wait", "--timeout", "120s", &job]).exits(0);
    let all_after = killed_at.elapsed();

    let starts = starts(&began);
    assert_eq!(starts.len(), TASKS, "every task ran");
    let extra = starts.values().sum::<usize>() - TASKS;
    say(&format!(
        "MEASURED: a gateway acts {took:?} after the kill, all ends {all_after:?} after it, {extra} extra runs"
    ));
    assert!(extra <= 2 * SLOTS, "{extra} extra runs, but the workers have {} slots; {done:?}", 2 * SLOTS);
    for number in &survivors {
        assert_sealed(&flock, *number, &job);
    }
    let now = await_gateway(&flock, &survivors);
    assert_eq!((now.term, &now.holder), (after.term, &after.holder), "no other change");
}

/// All tasks ended once, well, by workers; and all nodes that are left say so.
#[track_caller]
fn assert_sealed(flock: &Flock, number: usize, job: &str) {
    within(LONG, "the seals", || flock.one(number, &["job", "info", job])["seal"]["tasks"] == TASKS);
    let detail = flock.one(number, &["job", "info", job]);
    assert_eq!(detail["summary"]["counts"]["done"], TASKS, "{}", detail["summary"]);
    let attempts = detail["attempts"].as_array().unwrap();
    let well: u64 = attempts.iter().filter(|attempt| attempt["state"] == "done").map(tasks).sum();
    assert!(well >= TASKS as u64, "{attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt["attempt"].as_u64() <= Some(2)), "{attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt["state"] != "failed"), "{attempts:?}");
}
