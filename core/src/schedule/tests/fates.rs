//! Whatever happens to grants, each task is in one place at a time and is sealed once.

use proptest::prelude::*;

use super::desk::{Desk, retries};
use crate::facts::{Job, Outcome, Run};
use crate::ids::Attempt;
use crate::lattice::IntervalSet;
use crate::limits;
use crate::schedule::Owner;
use crate::testing::{job_id, node, tasks};

#[derive(Clone, Debug)]
enum Op {
    Place,
    End(prop::sample::Index, u8),
    Refuse(prop::sample::Index),
    Die(u8),
    Cancel,
    Wait,
    Restart,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Place),
        6 => (any::<prop::sample::Index>(), 0_u8..5).prop_map(|(grant, how)| Op::End(grant, how)),
        2 => any::<prop::sample::Index>().prop_map(Op::Refuse),
        1 => (2_u8..4).prop_map(Op::Die),
        1 => Just(Op::Wait),
        1 => Just(Op::Restart),
    ]
}

/// Grants neither withdrawn nor ended, with what is left of them.
fn open_grants(desk: &Desk) -> Vec<(u32, u8, IntervalSet)> {
    let job = &desk.jobs[&job_id(1, 1)];
    let open = job.grants.iter().filter(|(_, grant)| !grant.void);
    open.filter_map(|(no, grant)| {
        let placed = grant.placed.as_ref()?;
        let by = (1..9).find(|seed| node(*seed) == placed.node)?;
        let ended = grant.run().map(Run::all_ended).unwrap_or_default();
        Some((no.no, by, placed.tasks.difference(&ended)))
    })
    .filter(|(_, _, left)| !left.is_empty())
    .collect()
}

fn carry_out(desk: &mut Desk, op: &Op) {
    let open = open_grants(desk);
    match op {
        Op::Place => desk.place(),
        Op::End(which, how) if !open.is_empty() => {
            let (grant, by, left) = which.get(&open);
            let task = left.first().unwrap_or(0);
            let outcome = match how {
                0 => Outcome::Lost,
                1 => Outcome::Exit(1),
                _ => Outcome::Exit(0),
            };
            desk.end(*grant, *by, task, task, outcome);
        }
        Op::Refuse(which) if !open.is_empty() => {
            let (grant, by, _) = which.get(&open);
            desk.refuse(*grant, *by);
        }
        Op::End(..) | Op::Refuse(_) => {}
        Op::Die(worker) => {
            desk.leave(*worker);
            desk.join(*worker);
        }
        Op::Cancel => desk.cancel(1),
        Op::Wait => desk.at(desk.now + 40_000),
        Op::Restart => {
            desk.owner = Owner::default();
            desk.candidates.clear();
            desk.join(2);
            desk.join(3);
            desk.fold(job_id(1, 1), Job::default(), None);
        }
    }
}

/// No task is granted twice at a time, sealed twice, or on more than sixteen attempts.
fn assert_books(desk: &Desk) {
    let job = &desk.jobs[&job_id(1, 1)];
    let mut granted = job.sealed_tasks();
    let mut sealed = IntervalSet::new();
    for tasks in job.seals.values().flat_map(|seals| seals.values()) {
        assert!(sealed.intersection(tasks).is_empty(), "sealed twice");
        let _ = sealed.union_with(tasks);
    }
    for (grant, _, left) in open_grants(desk) {
        let left = left.difference(&sealed);
        assert!(granted.intersection(&left).is_empty(), "grant {grant}: {left} granted twice\n{}", desk.said);
        let _ = granted.union_with(&left);
    }
    for grant in job.grants.values() {
        let attempt = grant.placed.as_ref().map_or(Attempt(1), |placed| placed.attempt);
        assert!((1..=limits::ATTEMPTS_MAX).contains(&attempt.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_task_is_sealed_once(
        ops in prop::collection::vec(any_op(), 0..60),
        cancel in any::<bool>(),
        budget in 0_i64..3,
    ) {
        let mut desk = Desk::new(&[2, 3]);
        desk.submit(1, tasks(1, 12), &retries(budget));
        for op in &ops {
            carry_out(&mut desk, op);
            assert_books(&desk);
        }
        if cancel {
            carry_out(&mut desk, &Op::Cancel);
        }
        for _ in 0..200 {
            if desk.owner.unsealed() == 0 {
                break;
            }
            carry_out(&mut desk, &Op::Wait);
            carry_out(&mut desk, &Op::Place);
            for (grant, by, left) in open_grants(&desk) {
                for task in left.iter() {
                    desk.end(grant, by, task, task, Outcome::Exit(0));
                }
            }
            assert_books(&desk);
        }
        prop_assert_eq!(desk.owner.unsealed(), 0, "{}", desk.said);
        prop_assert_eq!(desk.jobs[&job_id(1, 1)].sealed_tasks(), tasks(1, 12));
    }
}
