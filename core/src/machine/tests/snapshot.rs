//! Snapshots: what they hold brings back the same node, bad ones are refused, and a node that is far behind joins one.

use super::super::snapshot::{self, Local, Shared, SnapshotError};
use super::*;
use crate::event::{SignedBatch, cluster_id};
use crate::ids::{Attempt, Hash};
use crate::machine::{Instead, Outlook};
use crate::testing::{Author, node};

fn config() -> Config {
    let total = Resources { cpu_milli: 2_000, mem_bytes: 1 << 30 };
    Config { gateway: false, snapshot_bytes: 1, snapshot_ms: 1_000, ..Config::new("wren", total) }
}

fn start(seed: u8, from: Option<&snapshot::Bytes>, records: &[Record]) -> Machine {
    let identity = Identity { signer: Signer::from_seed(&[seed; 32]), secret: SECRET, boot: u64::from(seed) };
    let mut recovery = Recovery::new(config(), Registry::built_in(), identity);
    if let Some(bytes) = from {
        let shared = Shared::from_bytes(&bytes.shared, &cluster_id(&SECRET)).unwrap();
        recovery.snapshot(shared, Some(Local::from_bytes(&bytes.local).unwrap()));
    }
    records.iter().for_each(|record| recovery.record(record.clone()));
    recovery.finish(now(0))
}

/// Ticks until it has nothing to write; what it wrote, and the snapshot that it asked for.
fn run(machine: &mut Machine, at: u64, input: Input) -> (Vec<Record>, Option<snapshot::Bytes>) {
    let (mut written, mut snapshot) = (Vec::new(), None);
    let mut effects = machine.step(now(at), input);
    loop {
        let mut write = None;
        for effect in effects {
            match effect {
                Effect::Write { write: id, records } => {
                    written.extend(records);
                    write = Some(id);
                }
                Effect::Snapshot(bytes) => snapshot = Some(*bytes),
                Effect::Gossip(_)
                | Effect::Publish(_)
                | Effect::Send { .. }
                | Effect::Serve { .. }
                | Effect::Spawn(_)
                | Effect::Kill(_)
                | Effect::Reply { .. }
                | Effect::Retire(_)
                | Effect::Fetch { .. }
                | Effect::Notice(_) => {}
            }
        }
        let Some(write) = write else {
            return (written, snapshot);
        };
        effects = machine.step(now(at), Input::Durable(write));
    }
}

/// A node with a running job, its records, and its snapshot.
fn busy() -> (Machine, Vec<Record>, snapshot::Bytes) {
    let mut machine = start(1, None, &[]);
    let (records, early) = run(&mut machine, 1, command(submission(3, AckLevel::Local)));
    assert!(early.is_none(), "not so soon after the start");
    let (more, snapshot) = run(&mut machine, 1_500, Input::Tick);
    (machine, [records, more].concat(), snapshot.expect("there is enough log"))
}

fn batches(author: &mut Author, count: u64) -> Vec<SignedBatch> {
    let first = author.open("finch");
    let mut all = vec![first];
    all.extend((1..count).map(|no| author.say(no, 1)));
    all
}

#[test]
fn a_snapshot_and_the_log_beyond_it_bring_back_the_same_node() {
    let (mut machine, records, snapshot) = busy();
    let (late, _) = run(&mut machine, 1_600, command(submission(1, AckLevel::Local)));
    let mut by_log = start(1, None, &[records, late.clone()].concat());
    let mut by_snapshot = start(1, Some(&snapshot), &late);
    assert_eq!(by_snapshot.frontier(), machine.frontier());
    assert_eq!(by_snapshot.facts().to_bytes(), by_log.facts().to_bytes());
    assert_eq!(by_snapshot.root(), machine.root());
    assert_eq!(by_snapshot.own_log(), by_log.own_log());
    let again = |machine: &mut Machine| show(&machine.step(now(9), Input::Tick));
    assert_eq!(again(&mut by_snapshot), again(&mut by_log), "it reports what it lost, and goes on, alike");
}

/// Whether the silence of node 2 means anything to a node that was just started.
fn counts_on(machine: &Machine) -> bool {
    machine.outlook(now(20_000), &node(2)) != Outlook::NeverHeard
}

#[test]
fn who_was_heard_is_known_in_the_next_life_and_who_was_only_heard_of_is_not() {
    let mut machine = start(1, None, &[]);
    let mut author = Author::new(2);
    let (theirs, _) = run(&mut machine, 1, command(Command::Import(batches(&mut author, 2))));
    assert!(!counts_on(&start(1, None, &theirs)), "its log came by hand");
    machine.step(now(2), Input::LinkUp(node(2)));
    assert!(run(&mut machine, 3, Input::Tick).0.is_empty(), "that alone is worth no write");
    let (more, _) = run(&mut machine, 4, command(submission(3, AckLevel::Local)));
    let (_, snapshot) = run(&mut machine, 1_500, Input::Tick);
    assert!(counts_on(&start(1, None, &[theirs, more].concat())));
    assert!(counts_on(&start(1, snapshot.as_ref(), &[])));
}

/// Simulator seed 16607: it ran the job, did not understand its own report of the end, and ran it again in its next life.
#[test]
fn a_job_that_a_newer_versions_snapshot_tells_of_is_not_run_by_an_old_one() {
    let mut newer = start(1, None, &[]);
    let list = || Value::List(vec![Value::text("true")]);
    let spec = WorkSpec::new().with("env_cmd", list()).with("policy_cmd", list()).with("node", Value::text("lark"));
    let (ns, kind, tasks) = ("simulation".into(), "".into(), IntervalSet::one(1));
    let simulation = Submission { ns, kind, tasks: tasks.clone(), priority: 0, spec, ack: AckLevel::Local };
    run(&mut newer, 1, command(Command::Submit(Box::new(simulation))));
    let (_, snapshot) = run(&mut newer, 1_500, Input::Tick);
    let shared = Shared::from_bytes(&snapshot.unwrap().shared, &cluster_id(&SECRET)).unwrap();
    let join = |registry: Registry| {
        let identity = Identity { signer: Signer::from_seed(&[2; 32]), secret: SECRET, boot: 2 };
        let mut recovery = Recovery::new(config(), registry, identity);
        recovery.snapshot(shared.clone(), None);
        recovery.finish(now(0))
    };
    let grant = GrantId { job: crate::testing::job_id(1, 1), no: crate::testing::grant_no(1) };
    let offer = || {
        let offer = Offer { grant, attempt: Attempt(1), tasks: tasks.clone(), pool: None };
        Input::Message { from: node(1), message: Message::Offer(offer) }
    };
    let mut same = join(Registry::built_in());
    assert!(show(&same.step(now(1), offer())).contains("write"), "it accepts");
    let mut registry = Registry::empty();
    registry.add(Box::new(crate::namespace::sys::Sys::default()));
    let mut old = join(registry);
    let text: String = show(&old.step(now(1), offer()))
        + &(2..8_000).step_by(250).map(|at| show(&old.step(now(at), Input::Tick))).collect::<String>();
    assert!(!text.contains("write") && text.contains("accepted=false"), "{text}");
}

#[test]
fn records_that_the_snapshot_covers_change_nothing() {
    let (mut machine, records, snapshot) = busy();
    let mut again = start(1, Some(&snapshot), &records);
    assert_eq!(again.frontier(), machine.frontier());
    assert_eq!(again.root(), machine.root());
    assert_eq!(again.logs().forked().count(), 0);
}

#[test]
fn a_snapshot_that_failed_is_tried_again_and_one_that_did_not_is_not() {
    let (mut machine, _, _) = busy();
    run(&mut machine, 1_600, Input::Snapshotted(Err("no space left".into())));
    let (_, again) = run(&mut machine, 9_000, Input::Tick);
    assert!(again.is_some());
    run(&mut machine, 9_001, Input::Snapshotted(Ok(())));
    assert!(run(&mut machine, 90_000, Input::Tick).1.is_none(), "nothing was written since");
}

#[test]
fn the_next_snapshot_waits_for_as_much_log_as_the_last_one_took() {
    let (mut machine, _, first) = busy();
    run(&mut machine, 1_600, Input::Snapshotted(Ok(())));
    let mut log = 0;
    for at in 9_000.. {
        let (records, snapshot) = run(&mut machine, at, command(submission(1, AckLevel::Local)));
        for record in records {
            if let Record::Batch(batch) = record {
                log += batch.bytes().len();
            }
        }
        if snapshot.is_some() {
            break;
        }
    }
    assert!(log >= first.shared.len() + first.local.len(), "after {log} bytes");
}

#[test]
fn a_batch_below_a_snapshot_is_a_duplicate_and_the_last_one_still_shows_a_fork() {
    let mut machine = start(1, None, &[]);
    let mut author = Author::new(2);
    let mut clone = author.clone();
    let all = batches(&mut author, 5);
    all.iter().for_each(|batch| drop(run(&mut machine, 1, Input::Batch { from: node(2), batch: batch.clone() })));
    run(&mut machine, 1_500, Input::Tick);
    run(&mut machine, 1_501, Input::Snapshotted(Ok(())));
    let before = machine.frontier().clone();
    for batch in &all {
        run(&mut machine, 2_000, Input::Batch { from: node(2), batch: batch.clone() });
    }
    assert_eq!((machine.frontier(), machine.logs().forked().count()), (&before, 0));
    clone.resume(&all[3]);
    let other = clone.say(77, 1);
    run(&mut machine, 2_001, Input::Batch { from: node(2), batch: other });
    assert_eq!(machine.logs().forked().count(), 1);
}

/// A node that was offered a snapshot by node 2 in answer to its pull.
fn offered(machine: &mut Machine) -> String {
    machine.step(now(1), Input::LinkUp(node(2)));
    offered_again(machine, 3, 9)
}

fn offered_again(machine: &mut Machine, at: u64, id: u8) -> String {
    let mut author = Author::new(3);
    let batch = batches(&mut author, 3).pop().unwrap();
    machine.step(now(at), Input::Batch { from: node(2), batch });
    let log = author.log();
    let message = Message::SnapshotAhead { log, id: Hash([id; 32]), bytes: 4_000 };
    show(&machine.step(now(at), Input::Message { from: node(2), message }))
}

#[test]
fn a_node_that_is_far_behind_joins_a_snapshot_and_goes_on_from_there() {
    // Node 2 has seen much of node 3's log.
    let mut ahead = start(2, None, &[]);
    let mut author = Author::new(3);
    let all = batches(&mut author, 9);
    all[..7].iter().for_each(|batch| drop(run(&mut ahead, 1, Input::Batch { from: node(3), batch: batch.clone() })));
    let (_, snapshot) = run(&mut ahead, 1_500, Input::Tick);
    let shared = Shared::from_bytes(&snapshot.unwrap().shared, &cluster_id(&SECRET)).unwrap();

    let mut behind = start(1, None, &[]);
    assert!(offered(&mut behind).contains("fetch 4000 bytes"));
    // What lies beyond the snapshot waits already.
    run(&mut behind, 4, Input::Batch { from: node(2), batch: all[7].clone() });
    let fetched = Input::Fetched { from: node(2), result: Ok(Box::new(shared)) };
    let (written, own) = run(&mut behind, 5, fetched);
    let met = Record::Note(Note::Met { node: node(2) });
    assert_eq!(written, [Record::Batch(all[7].clone()), met], "only what is beyond needs to be written");
    let own = own.expect("a snapshot of its own takes the other's place");
    run(&mut behind, 6, Input::Batch { from: node(2), batch: all[8].clone() });
    run(&mut ahead, 1_600, Input::Batch { from: node(3), batch: all[7].clone() });
    run(&mut ahead, 1_601, Input::Batch { from: node(3), batch: all[8].clone() });
    assert_eq!(behind.frontier(), ahead.frontier());
    assert_eq!(behind.root(), ahead.root());
    let shared = Shared::from_bytes(&own.shared, &cluster_id(&SECRET)).unwrap();
    assert!(shared.logs.iter().any(|end| end.log == author.log() && end.len == Seq(7)));
    let pull = pulls(&mut behind, 6, 5);
    assert!(pull.contains("pull from 1") && !pull.contains("alone"), "{pull}");
    let again = Message::SnapshotAhead { log: Author::new(5).log(), id: Hash([9; 32]), bytes: 4_000 };
    behind.step(now(7), Input::Message { from: node(2), message: again });
    assert!(pulls(&mut behind, 8, 5).contains("pull from 1 of the log alone"), "the peer's has no more to give");
}

/// Simulator seed 93967: what it had joined lay neither in its log nor in a snapshot that it could offer, and it never wrote one again.
#[test]
fn a_snapshot_that_was_to_take_anothers_place_is_tried_again_if_the_disk_was_full() {
    let (_, _, theirs) = busy();
    let shared = Shared::from_bytes(&theirs.shared, &cluster_id(&SECRET)).unwrap();
    let mut behind = start(2, None, &[]);
    offered(&mut behind);
    let (_, own) = run(&mut behind, 5, Input::Fetched { from: node(2), result: Ok(Box::new(shared)) });
    assert!(own.is_some());
    let (_, at_once) = run(&mut behind, 6, Input::Snapshotted(Err("no space left".into())));
    assert!(at_once.is_none(), "a full disk is not asked again without a pause");
    let (_, again) = run(&mut behind, 1_100, Input::Tick);
    assert!(again.is_some());
}

#[test]
fn a_node_that_keeps_all_log_asks_for_the_log_alone() {
    let identity = Identity { signer: Signer::from_seed(&[1; 32]), secret: SECRET, boot: 1 };
    let recovery = Recovery::new(Config { archive: true, ..config() }, Registry::built_in(), identity);
    let mut machine = recovery.finish(now(0));
    machine.step(now(1), Input::LinkUp(node(2)));
    assert!(pulls(&mut machine, 2, 4).contains("pull from 1 of the log alone"));
}

#[test]
fn a_snapshot_that_brought_nothing_is_followed_by_the_log_alone() {
    let (_, _, snapshot) = busy();
    let fetched = || {
        let shared = Shared::from_bytes(&snapshot.shared, &cluster_id(&SECRET)).unwrap();
        Input::Fetched { from: node(2), result: Ok(Box::new(shared)) }
    };
    let mut machine = start(4, None, &[]);
    assert!(offered(&mut machine).contains("fetch"));
    run(&mut machine, 4, fetched());
    run(&mut machine, 5, Input::Snapshotted(Ok(())));
    assert!(!pulls(&mut machine, 6, 5).contains("alone"), "it brought what node 1 wrote");
    // Another name, and nothing new in it.
    assert!(offered_again(&mut machine, 7, 8).contains("fetch"));
    run(&mut machine, 8, fetched());
    assert!(pulls(&mut machine, 9, 6).contains("pull from 1 of the log alone"));
}

/// Two nodes of which the second alone has a batch of another branch of node 3's log, and all of that log.
fn with_and_without_a_branch() -> (Machine, Machine, Vec<SignedBatch>) {
    let (mut without, mut with) = (start(1, None, &[]), start(2, None, &[]));
    let mut author = Author::new(3);
    let chain = batches(&mut author, 3);
    let mut twin = Author::new(3);
    twin.open("finch");
    let other = twin.say(77, 1);
    for batch in &chain {
        run(&mut without, 1, Input::Batch { from: node(2), batch: batch.clone() });
        run(&mut with, 1, Input::Batch { from: node(1), batch: batch.clone() });
    }
    run(&mut with, 1, Input::Batch { from: node(1), batch: other });
    assert!(with.logs().is_forked(&author.log()));
    without.step(now(1), Input::LinkUp(node(2)));
    (without, with, chain)
}

#[test]
fn a_branch_that_a_peer_has_in_its_snapshot_alone_is_asked_for_once_its_log_had_nothing_more() {
    let (mut without, with, chain) = with_and_without_a_branch();
    let log = chain[0].header().log;
    let mut asked = Vec::new();
    for at in 2..6 {
        let tips = Input::Message { from: node(2), message: Message::Tips(with.frontier().clone()) };
        asked.push(show(&without.step(now(at), tips)));
        // The peer's log has nothing but what is known: the rest is in its snapshot.
        let batches = chain.clone();
        run(&mut without, at, Input::Pulled { from: node(2), log, batches, more: false });
    }
    assert!(asked[0].contains("of the log alone"), "{asked:?}");
    let last = asked.last().unwrap();
    assert!(last.contains("pull from 1") && !last.contains("alone"), "{asked:?}");
}

#[test]
fn a_branch_that_came_after_a_snapshot_is_asked_for_beside_it() {
    let (mut without, mut with, chain) = with_and_without_a_branch();
    let (log, id) = (chain[0].header().log, Hash([9; 32]));
    let (_, _, early) = busy();
    assert!(pulls(&mut without, 2, 5).contains("pull from 1"));
    let message = Message::SnapshotAhead { log: Author::new(5).log(), id, bytes: 4_000 };
    assert!(show(&without.step(now(3), Input::Message { from: node(2), message })).contains("fetch"));
    let shared = Shared::from_bytes(&early.shared, &cluster_id(&SECRET)).unwrap();
    run(&mut without, 4, Input::Fetched { from: node(2), result: Ok(Box::new(shared)) });
    let tips = Input::Message { from: node(2), message: Message::Tips(with.frontier().clone()) };
    let asked = pair::sent(&without.step(now(5), tips));
    let is_pull = |message: &Message| matches!(message, Message::Pull { log: of, .. } if *of == log);
    let pull = asked.into_iter().find(is_pull).unwrap();
    let served = with.step(now(6), Input::Message { from: node(1), message: pull });
    let joined =
        served.iter().find_map(|effect| if let Effect::Serve { joined, .. } = effect { *joined } else { None });
    assert_eq!(joined, Some(id), "that one would bring nothing, though the log before the branch is gone");
}

#[test]
fn a_node_whose_log_has_branches_offers_any_snapshot_to_who_says_it_would_do() {
    let (_, mut with, chain) = with_and_without_a_branch();
    let log = chain[0].header().log;
    let mut instead = |or_snapshot, log| {
        let message = Message::Pull { log, from: Seq(1), or_snapshot, joined: None };
        let effects = with.step(now(2), Input::Message { from: node(1), message });
        effects
            .into_iter()
            .find_map(|effect| if let Effect::Serve { instead, .. } = effect { Some(instead) } else { None })
    };
    assert_eq!(instead(true, log), Some(Instead::OfAny));
    assert_eq!(instead(false, log), Some(Instead::OfGone));
    assert_eq!(instead(true, Author::new(2).log()), Some(Instead::OfMuch));
}

/// What a node asks node 2 for that hears the end of another's log from it.
fn pulls(machine: &mut Machine, at: u64, author: u8) -> String {
    let batch = batches(&mut Author::new(author), 4).pop().unwrap();
    show(&machine.step(now(at), Input::Batch { from: node(2), batch }))
}

#[test]
fn an_offer_that_nobody_asked_for_is_ignored_and_a_bad_snapshot_is_not_asked_for_again() {
    let mut machine = start(1, None, &[]);
    machine.step(now(0), Input::LinkUp(node(2)));
    let message = Message::SnapshotAhead { log: Author::new(3).log(), id: Hash([9; 32]), bytes: 4_000 };
    assert!(!show(&machine.step(now(0), Input::Message { from: node(2), message })).contains("fetch"));
    assert!(offered(&mut machine).contains("fetch"));
    let refused = Input::Fetched { from: node(2), result: Err("its facts have another root".into()) };
    assert!(show(&machine.step(now(4), refused)).contains("Refused"));
    assert!(pulls(&mut machine, 3, 4).contains("pull from 1 of the log alone"), "it may have a log that is better");
    assert!(!offered_again(&mut machine, 3, 9).contains("fetch"), "not from the same peer so soon");
    assert!(!offered_again(&mut machine, 100, 8).contains("fetch"), "nor its next one at once");
    assert!(!offered_again(&mut machine, 3_000, 9).contains("fetch"), "that very one");
    assert!(
        offered_again(&mut machine, 3_000, 8).contains("fetch"),
        "the peer had written another while this one came"
    );
    let refused = Input::Fetched { from: node(2), result: Err("it stopped answering".into()) };
    machine.step(now(3_001), refused);
    assert!(offered(&mut machine).contains("fetch"), "one that has come back may have become better");
}

#[test]
fn a_snapshot_with_another_root_cluster_or_form_is_refused() {
    let (_, _, snapshot) = busy();
    let cluster = cluster_id(&SECRET);
    let of = |bytes: &[u8]| Shared::from_bytes(bytes, &cluster).map(drop);
    assert!(of(&snapshot.shared).is_ok());
    assert!(matches!(Shared::from_bytes(&snapshot.shared, &cluster_id(&[1; 32])), Err(SnapshotError::OtherCluster)));
    // The root lies behind the array's head, the version, and the cluster's 34 bytes.
    let mut wrong = snapshot.shared.clone();
    wrong[40] ^= 1;
    assert!(matches!(of(&wrong), Err(SnapshotError::WrongRoot { .. })), "{:?}", of(&wrong));
    wrong = snapshot.shared.clone();
    wrong[1] = 2;
    assert!(matches!(of(&wrong), Err(SnapshotError::Version(2))));
    for cut in 0..snapshot.shared.len() {
        assert!(of(&snapshot.shared[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..snapshot.shared.len() {
        for bit in 0..8 {
            let mut bytes = snapshot.shared.clone();
            bytes[at] ^= 1 << bit;
            // A log's end is no part of the root: the hash of all bytes, which is the snapshot's name, guards it.
            if let Ok(()) = of(&bytes) {
                assert_ne!(snapshot::name(&bytes), snapshot::name(&snapshot.shared));
            }
        }
    }
}

#[test]
fn an_acceptance_outlives_the_note_that_the_snapshot_covers() {
    let mut machine = start(1, None, &[]);
    let mut author = Author::new(2);
    let job = JobId { log: author.log(), no: crate::ids::JobNo(1) };
    let admit = author.admit("finch");
    let submit = crate::namespace::batch::submit_job(
        crate::testing::hlc(5),
        job,
        IntervalSet::one(1),
        0,
        crate::testing::command(),
    );
    let batch = author.append(vec![admit, submit]);
    machine.step(now(0), Input::LinkUp(node(2)));
    run(&mut machine, 1, Input::Batch { from: node(2), batch });
    let grant = crate::testing::grant_id(job, 1);
    let offer = Offer { grant, attempt: Attempt(1), tasks: IntervalSet::one(1), pool: None };
    run(&mut machine, 2, Input::Message { from: node(2), message: Message::Offer(offer) });
    let (_, snapshot) = run(&mut machine, 1_500, Input::Tick);
    let mut again = start(1, Some(&snapshot.unwrap()), &[]);
    let text = show(&again.step(now(1), Input::Tick));
    assert!(text.contains("JobFinished 1"), "the owner hears that the task was lost: {text}");
}

#[test]
fn what_waits_for_the_disk_is_on_it_with_a_snapshot_that_holds_it() {
    let mut ahead = start(2, None, &[]);
    let mut author = Author::new(3);
    let all = batches(&mut author, 9);
    let heard = |batch: &SignedBatch| Input::Batch { from: node(3), batch: batch.clone() };
    all[..7].iter().for_each(|batch| drop(run(&mut ahead, 1, heard(batch))));
    let (_, snapshot) = run(&mut ahead, 1_500, Input::Tick);
    let shared = Shared::from_bytes(&snapshot.unwrap().shared, &cluster_id(&SECRET)).unwrap();
    let up_to_seven = ahead.frontier().tip(&author.log());

    let mut behind = start(1, None, &[]);
    assert!(offered(&mut behind).contains("fetch 4000 bytes"));
    all[..5].iter().for_each(|batch| drop(run(&mut behind, 4, heard(batch))));
    // Two more that the snapshot holds, and one that it does not, are being written.
    let effects: Vec<Effect> = all[5..8].iter().flat_map(|batch| behind.step(now(5), heard(batch))).collect();
    let write = last_write(&effects).unwrap();
    behind.step(now(6), Input::Fetched { from: node(2), result: Ok(Box::new(shared)) });
    assert_eq!(behind.frontier().tip(&author.log()), up_to_seven, "its facts hold that much");
    assert_eq!(behind.facts().to_bytes(), ahead.facts().to_bytes());
    behind.step(now(7), Input::WriteFailed { write, reason: "no space left".into() });
    assert_eq!(behind.frontier().tip(&author.log()), up_to_seven);
    run(&mut behind, 1_100, heard(&all[7]));
    run(&mut ahead, 1_600, heard(&all[7]));
    assert_eq!(behind.frontier().tip(&author.log()), ahead.frontier().tip(&author.log()));
}
