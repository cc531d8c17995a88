//! The owner: what it grants, grants again, and seals.

use expect_test::expect;

use super::desk::{Desk, SLOT, retries};
use crate::event::Value;
use crate::facts::{Job, Outcome};
use crate::ids::{Attempt, Epoch, GrantId};
use crate::limits;
use crate::schedule::Owner;
use crate::testing::{command, grant_no, job_id, node, submit, tasks};
use crate::time::Mono;

#[test]
fn tasks_of_unknown_length_go_out_one_to_a_slot() {
    let mut desk = Desk::new(&[2, 3]);
    desk.submit(1, tasks(1, 10), &command());
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        grant 1.2 tasks 3-4 attempt 1 to node 3
    "#]]);
    assert_eq!(desk.owner.backlog(), 6);
    desk.place();
    desk.check(&expect![[""]]);
}

#[test]
fn short_tasks_go_out_in_chunks_of_a_fair_share() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 1_000), &command());
    desk.place();
    desk.at(2);
    desk.end(1, 2, 1, 2, Outcome::Exit(0));
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        seal 1-2 Exit(0)
        grant 1.2 tasks 3-258 attempt 1 to node 2
    "#]]);
    desk.at(102);
    desk.end(2, 2, 3, 200, Outcome::Exit(0));
    desk.place();
    desk.check(&expect![[r#"
        seal 3-200 Exit(0)
        grant 1.3 tasks 259-456 attempt 1 to node 2
    "#]]);
}

#[test]
fn long_tasks_go_out_as_slots_fall_free() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 100), &command());
    desk.place();
    desk.at(60_000);
    desk.end(1, 2, 1, 2, Outcome::Exit(0));
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        seal 1-2 Exit(0)
        grant 1.2 tasks 3-4 attempt 1 to node 2
    "#]]);
}

#[test]
fn the_owner_itself_goes_first() {
    let mut desk = Desk::new(&[1, 2, 3]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 1
    "#]]);
}

#[test]
fn a_more_urgent_job_goes_first() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    let mut urgent = submit(tasks(1, 2), &command());
    urgent.priority = 5;
    desk.fold(job_id(1, 2), Job::submitted(urgent), None);
    assert_eq!(desk.owner.position(&job_id(1, 2)), Some(0));
    assert_eq!(desk.owner.position(&job_id(1, 1)), Some(1));
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
    "#]]);
    assert_eq!(desk.owner.position(&job_id(1, 2)), None);
}

#[test]
fn a_job_that_asks_for_a_node_waits_for_it() {
    let mut desk = Desk::new(&[2]);
    let wanted = command().with("node", Value::text("worker-3"));
    desk.submit(1, tasks(1, 1), &wanted);
    desk.place();
    desk.check(&expect![[""]]);
    desk.join(3);
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1 attempt 1 to node 3
    "#]]);
}

#[test]
fn a_job_too_large_for_every_node_waits_and_holds_nobody_up() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 1), &command().with("cpu", Value::Int(64_000)));
    desk.submit(2, tasks(1, 1), &command());
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1 attempt 1 to node 2
    "#]]);
    assert!(desk.owner.has_waiting());
}

#[test]
fn a_refused_grant_is_placed_elsewhere_with_the_same_attempt() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    desk.candidates.clear();
    desk.join(3);
    desk.refuse(1, 3);
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
    "#]]);
    desk.refuse(1, 2);
    desk.place();
    desk.check(&expect![[r#"
        void 1.1
        grant 1.2 tasks 1-2 attempt 1 to node 3
    "#]]);
    desk.refuse(1, 2);
    desk.check(&expect![[""]]);
}

#[test]
fn an_accepted_grant_cannot_be_refused_any_more() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    let grant = GrantId { job: job_id(1, 1), no: grant_no(1) };
    desk.said.clear();
    desk.owner.on_accepted(&node(2), &grant);
    desk.refuse(1, 2);
    desk.check(&expect![[""]]);
}

#[test]
fn tasks_of_a_dead_node_go_out_again_as_the_next_attempt() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    desk.end(1, 2, 1, 1, Outcome::Exit(0));
    desk.join(3);
    desk.leave(2);
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        seal 1 Exit(0)
        void 1.1
        grant 1.2 tasks 2 attempt 2 to node 3
    "#]]);
}

#[test]
fn a_late_success_of_a_withdrawn_grant_spares_the_retry() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    desk.leave(2);
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        void 1.1
    "#]]);
    // More than it was granted counts for nothing, nor does a failure.
    desk.end(1, 2, 2, 9, Outcome::Exit(0));
    desk.end(1, 2, 1, 1, Outcome::Exit(1));
    desk.check(&expect![[r#"
        seal 2 Exit(0)
    "#]]);
    desk.join(3);
    desk.place();
    desk.check(&expect![[r#"
        grant 1.2 tasks 1 attempt 2 to node 3
    "#]]);
}

#[test]
fn a_failed_task_is_tried_again_after_a_growing_delay_and_then_sealed() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 1), &retries(2));
    desk.place_and_offer();
    desk.end(1, 2, 1, 1, Outcome::Exit(1));
    let first = desk.owner.next_deadline().unwrap();
    assert!((100..=125).contains(&first.0), "{first:?}");
    desk.at(first.0 - 1);
    desk.place_and_offer();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1 attempt 1 to node 2
    "#]]);
    desk.at(first.0);
    desk.place_and_offer();
    desk.end(2, 2, 1, 1, Outcome::Signal(9));
    let second = desk.owner.next_deadline().unwrap().since_ms(first);
    assert!((200..=250).contains(&second), "{second}");
    desk.at(first.0 + second);
    desk.place_and_offer();
    desk.end(3, 2, 1, 1, Outcome::Exit(3));
    desk.check(&expect![[r#"
        grant 1.2 tasks 1 attempt 2 to node 2
        grant 1.3 tasks 1 attempt 3 to node 2
        seal 1 Exit(3)
    "#]]);
    assert_eq!(desk.owner.unsealed(), 0);
}

#[test]
fn a_failure_without_a_budget_is_sealed_at_once() {
    for outcome in
        [Outcome::Exit(7), Outcome::Signal(15), Outcome::NotStarted(127, "no such program".into()), Outcome::TimedOut]
    {
        let mut desk = Desk::new(&[2]);
        desk.submit(1, tasks(1, 1), &command());
        desk.place();
        desk.said.clear();
        desk.end(1, 2, 1, 1, outcome.clone());
        assert_eq!(desk.said, format!("seal 1 {outcome:?}\n"));
        assert_eq!(desk.owner.unsealed(), 0);
    }
}

#[test]
fn lost_attempts_leave_the_users_budget_alone() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 1), &retries(1));
    desk.place();
    desk.end(1, 2, 1, 1, Outcome::Lost);
    desk.place();
    desk.end(2, 2, 1, 1, Outcome::Exit(1));
    desk.at(10_000);
    desk.place();
    desk.end(3, 2, 1, 1, Outcome::Exit(1));
    desk.check(&expect![[r#"
        grant 1.1 tasks 1 attempt 1 to node 2
        grant 1.2 tasks 1 attempt 2 to node 2
        grant 1.3 tasks 1 attempt 3 to node 2
        seal 1 Exit(1)
    "#]]);
}

#[test]
fn a_task_that_is_lost_again_and_again_is_given_up_after_sixteen_attempts() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 1), &command());
    let mut grants = 0;
    while desk.owner.unsealed() > 0 {
        desk.at(desk.now + 60_000);
        desk.place();
        grants += 1;
        assert!(grants <= u32::from(limits::ATTEMPTS_MAX));
        desk.end(grants, 2, 1, 1, Outcome::Lost);
    }
    assert_eq!(grants, u32::from(limits::ATTEMPTS_MAX));
    assert!(desk.said.ends_with("seal 1 Lost\n"), "{}", desk.said);
}

#[test]
fn a_cancel_seals_what_waits_at_once() {
    let mut desk = Desk::new(&[]);
    desk.submit(1, tasks(1, 5), &command());
    desk.cancel(1);
    desk.check(&expect![[r#"
        seal 1-5 Cancelled
    "#]]);
    assert_eq!(desk.owner.unsealed(), 0);
}

#[test]
fn a_cancel_seals_what_waits_for_its_retry_at_once() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 1), &retries(3));
    desk.place();
    desk.end(1, 2, 1, 1, Outcome::Exit(1));
    desk.cancel(1);
    desk.check(&expect![[r#"
        grant 1.1 tasks 1 attempt 1 to node 2
        seal 1 Cancelled
    "#]]);
    assert_eq!(desk.owner.unsealed(), 0);
}

#[test]
fn a_cancel_leaves_what_is_granted_to_its_executor() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 3), &retries(3));
    desk.place();
    desk.cancel(1);
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        seal 3 Cancelled
    "#]]);
    // One finished before the cancel reached it, the other was stopped.
    desk.end(1, 2, 1, 1, Outcome::Exit(0));
    desk.end(1, 2, 2, 2, Outcome::Cancelled);
    desk.check(&expect![[r#"
        seal 1 Exit(0)
        seal 2 Cancelled
    "#]]);
    assert_eq!(desk.owner.unsealed(), 0);
}

#[test]
fn a_cancelled_task_that_fails_is_not_tried_again() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 1), &retries(3));
    desk.place();
    desk.cancel(1);
    desk.end(1, 2, 1, 1, Outcome::Exit(1));
    desk.check(&expect![[r#"
        grant 1.1 tasks 1 attempt 1 to node 2
        seal 1 Exit(1)
    "#]]);
}

#[test]
fn a_cancelled_grant_that_is_refused_or_lost_is_sealed_as_cancelled() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    desk.cancel(1);
    desk.refuse(1, 2);
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        void 1.1
        seal 1-2 Cancelled
    "#]]);
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    desk.cancel(1);
    desk.leave(2);
    desk.check(&expect![[r#"
        grant 1.1 tasks 1-2 attempt 1 to node 2
        void 1.1
        seal 1-2 Cancelled
    "#]]);
    assert_eq!(desk.owner.unsealed(), 0);
}

#[test]
fn an_offer_comes_again_until_it_is_answered() {
    let mut desk = Desk::new(&[2]);
    desk.submit(1, tasks(1, 2), &command());
    desk.place();
    let offers = desk.owner.offers_due(Mono(0), 1_000);
    assert_eq!(offers.len(), 1);
    assert_eq!(offers[0].attempt, Attempt(1));
    assert_eq!(offers[0].tasks, tasks(1, 2));
    assert_eq!(desk.owner.offers_due(Mono(999), 1_000), []);
    assert_eq!(desk.owner.next_deadline(), Some(Mono(1_000)));
    assert_eq!(desk.owner.offers_due(Mono(1_000), 1_000), offers);
    desk.owner.on_accepted(&node(3), &offers[0].grant);
    assert_eq!(desk.owner.offers_due(Mono(2_000), 1_000), offers);
    desk.owner.on_accepted(&node(2), &offers[0].grant);
    assert_eq!(desk.owner.offers_due(Mono(3_000), 1_000), []);
}

#[test]
fn an_idempotency_key_names_its_first_job_even_once_that_is_over() {
    let mut desk = Desk::new(&[2]);
    let keyed = command().with("request", Value::Bytes(vec![1]));
    desk.submit(1, tasks(1, 1), &keyed);
    desk.submit(2, tasks(1, 1), &keyed);
    assert_eq!(desk.owner.request(&[1]), Some(job_id(1, 1)));
    assert_eq!(desk.owner.request(&[2]), None);
    desk.cancel(1);
    assert_eq!(desk.owner.request(&[1]), Some(job_id(1, 1)));
}

#[test]
fn a_restarted_owner_goes_on_where_it_was() {
    let mut desk = Desk::new(&[2, 3]);
    desk.submit(1, tasks(1, 6), &retries(1));
    desk.place();
    desk.end(1, 2, 1, 1, Outcome::Exit(0));
    desk.refuse(2, 3);
    let said = std::mem::take(&mut desk.said);
    desk.owner = Owner::default();
    let total = SLOT.plus(&SLOT, 1);
    for worker in [2, 3] {
        desk.owner.on_room(crate::ids::Seat::machine(node(worker)), total, total);
    }
    desk.fold(job_id(1, 1), Job::default(), None);
    assert_eq!(desk.said, "", "nothing is decided twice, after\n{said}");
    desk.place();
    desk.check(&expect![[r#"
        grant 1.3 tasks 5 attempt 1 to node 2
        grant 1.4 tasks 6 attempt 1 to node 3
    "#]]);
}

#[test]
fn grants_of_each_epoch_have_numbers_of_their_own() {
    let mut desk = Desk::new(&[2]);
    desk.owner.on_epoch(Epoch(1));
    desk.submit(1, tasks(1, 1), &command());
    desk.place();
    desk.owner.on_epoch(Epoch(3));
    desk.submit(2, tasks(1, 1), &command());
    desk.place();
    desk.owner.on_epoch(Epoch(u64::MAX));
    desk.join(3);
    desk.submit(3, tasks(1, 1), &command());
    desk.place();
    desk.check(&expect![[r#"
        grant 1.1 tasks 1 attempt 1 to node 2
        grant 1.131073 tasks 1 attempt 1 to node 2
        grant 1.2147418113 tasks 1 attempt 1 to node 3
    "#]]);
}
