//! Links that break, servers that do not read, tokens that are wrong, workers that stop.
//!
//! Invariants: no result is lost while the worker's directory lives.

use std::process::Command;

use tonic::Status;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_says_what_it_is_and_how_it_is() {
    let server = Server::start(Some(TOKEN), Way::Reads).await;
    let home = tempfile::tempdir().unwrap();
    let mut choice = Choice::default();
    choice.limits.heartbeat = Duration::from_millis(50);
    let worker = Running::start(&[&server.url], &home, choice);
    let mut rig = Rig::with(server, worker, home);
    let Heard::Registered(said) = rig.hear("a registration", |heard| matches!(heard, Heard::Registered(_))).await
    else {
        panic!("asked for a registration");
    };
    assert_eq!(said.worker_id, "w1");
    for label in ["gpu=2", "linux", "slots=2", "starling"] {
        assert!(said.capabilities.iter().any(|said| said == label), "{label}: {said:?}");
    }
    rig.attached().await;
    rig.assign("j", sh("exec sleep 600"));
    let is_busy = |heard: &Heard| match heard {
        Heard::Beat(beat) => beat.worker_id == "w1" && beat.resource_usage.as_ref().unwrap().active_jobs == 1,
        _ => false,
    };
    let Heard::Beat(beat) = rig.hear("a busy heartbeat", is_busy).await else { panic!("asked for a heartbeat") };
    assert!(beat.resource_usage.unwrap().memory_usage_mb > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_while_the_link_breaks_and_is_told_of_to_the_next_session() {
    let mut rig = Rig::start(Choice::default()).await;
    let go = rig.home.path().join("go");
    rig.assign(
        "j",
        sh(&format!("echo before; while [ ! -e {} ]; do sleep 0.01; done; echo after; exit 3", go.display())),
    );
    rig.line("j", "before").await;
    rig.server.hang_up(None);
    rig.attached().await;
    rig.hear("accepted again", |heard| matches!(heard, Heard::Said(Payload::JobAccepted(_)))).await;
    assert_eq!(rig.accepted, ["j", "j"]);
    std::fs::write(go, "").unwrap();
    assert_eq!(rig.result("j").await.exit_code, 3);
    assert_eq!(rig.lines("j"), ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_sent_again_until_it_is_acknowledged() {
    let mut rig = Rig::start(Choice::default()).await;
    let script = "kill -9 $$";
    let first = rig.run("j", script).await;
    for _ in 0..2 {
        rig.server.hang_up(Some(Status::unavailable("another one leads now")));
        rig.attached().await;
        assert_eq!(rig.result("j").await, first);
    }
    assert_eq!(rig.lines("j"), ["[starling: signal 9]"; 3], "the line comes with it each time");
    // A new worker in the same directory still has it.
    let Rig { server, worker, home, .. } = rig;
    worker.stop().await;
    let worker = Running::start(&[&server.url], &home, Choice::default());
    let mut rig = Rig::with(server, worker, home);
    rig.attached().await;
    assert_eq!(rig.result("j").await, first);
    // A new assignment takes its place, and a cancel ends it.
    assert_eq!(rig.run("j", "exit 5").await.exit_code, 5);
    rig.cancel("j");
    assert_eq!(rig.run("other", "true").await.exit_code, 0);
    rig.server.hang_up(None);
    rig.attached().await;
    rig.result("other").await;
    assert!(rig.results["j"].is_empty(), "{:?}", rig.results);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_reads_holds_up_nothing_but_its_own_news() {
    let server = Server::start(Some(TOKEN), Way::Ignores).await;
    let home = tempfile::tempdir().unwrap();
    let mut choice = Choice::default();
    choice.limits.flush = Duration::from_millis(200);
    choice.limits.backlog_bytes = 1 << 20;
    let worker = Running::start(&[&server.url], &home, choice);
    let mut rig = Rig::with(server, worker, home);
    rig.attached().await;
    let made = rig.home.path().join("made");
    rig.assign("flood", sh("yes 'a line of the flood' | head -c 8000000; exit 4"));
    // One slot is the flood's, and these need the other one.
    for at in 0..3 {
        let path = made.with_extension(at.to_string());
        rig.assign(&format!("j{at}"), sh(&format!("echo > {}", path.display())));
        until("a job runs", || path.exists()).await;
    }
    until("the flood's result", || std::fs::read_dir(rig.home.path().join("results")).unwrap().count() == 4).await;
    rig.server.way(Way::Reads);
    rig.server.hang_up(None);
    rig.attached().await;
    let flood = rig.result("flood").await;
    assert_eq!((flood.exit_code, flood.stdout.len()), (4, 64 << 10));
    assert_eq!(rig.result("j2").await.exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_cut_and_said_to_be() {
    let server = Server::start(Some(TOKEN), Way::Reads).await;
    let home = tempfile::tempdir().unwrap();
    let mut choice = Choice::default();
    choice.limits.backlog_bytes = 100_000;
    let worker = Running::start(&[&server.url], &home, choice);
    let mut rig = Rig::with(server, worker, home);
    rig.attached().await;
    rig.assign("flood", sh("seq 1 1000000"));
    rig.result("flood").await;
    let lines = rig.lines("flood");
    assert_eq!(lines.last(), Some(&"1000000"));
    let dropped = lines.iter().filter_map(|line| line.strip_prefix('[')?.strip_suffix(" lines dropped]"));
    let dropped: usize = dropped.map(|count| count.parse::<usize>().unwrap()).sum();
    let kept = lines.iter().filter(|line| !line.starts_with('[')).count();
    assert!(dropped > 0 && kept + dropped == 1_000_000, "{kept} + {dropped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_is_said_once_and_tried_again_slowly() {
    let mut server = Server::start(Some(TOKEN), Way::Reads).await;
    let home = tempfile::tempdir().unwrap();
    let worker = Running::start(&[&server.url], &home, Choice { token: Some("wrong"), ..Choice::default() });
    let begin = Instant::now();
    until("three refusals", || server.refused() >= 3).await;
    assert!(begin.elapsed() >= 2 * Choice::default().limits.refused, "{:?}", begin.elapsed());
    assert_eq!(worker.told("token"), 1, "{:?}", worker.told);
    assert!(server.heard.try_recv().is_err(), "nothing else was said");
    assert!(worker.stop().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_has_its_turn_when_one_is_gone() {
    // A port that nobody listens on.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(None, Way::Reads).await;
    let home = tempfile::tempdir().unwrap();
    let urls = [format!("http://{gone}"), server.url.clone()];
    let worker = Running::start(&[&urls[0], &urls[1]], &home, Choice { token: None, ..Choice::default() });
    let mut rig = Rig::with(server, worker, home);
    rig.attached().await;
    assert_eq!(rig.run("j", "exit 7").await.exit_code, 7);
    until("it is told", || rig.worker.told("no link to") == 1 && rig.worker.told("attached to") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_ends_its_jobs_and_sends_their_results() {
    let mut rig = Rig::start(Choice::default()).await;
    rig.assign("soft", sh("trap 'echo bye; exit 0' TERM; echo on; while :; do sleep 0.01; done"));
    rig.line("soft", "on").await;
    rig.worker.stop.send_replace(true);
    let soft = rig.result("soft").await;
    assert_eq!((soft.exit_code, soft.stdout.as_str()), (-1, "on\nbye\n"));
    assert_eq!(rig.lines("soft").last(), Some(&"[starling: signal 15]"));
    rig.hear("the end of the stream", |heard| matches!(heard, Heard::Closed)).await;
    assert!(rig.worker.stop().await < Duration::from_secs(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_worker_and_orphans_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let error = Home::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("in use by process") && error.contains("--dir"), "{error}");
    let (name, (variable, value)) = (home.name().to_owned(), home.mark());
    drop(home);
    // What a worker leaves that was killed: a child with its mark.
    let mut orphan = Command::new("sleep").arg("600").env(&variable, &value).spawn().unwrap();
    let mut other = Command::new("sleep").arg("600").env(&variable, "another").spawn().unwrap();
    until("both run their program", || [&orphan, &other].iter().all(|child| marked(child.id(), &variable))).await;
    let home = Home::open(dir.path()).unwrap();
    assert!(!lives(orphan.id()) && lives(other.id()));
    assert_eq!((home.name(), home.mark().1), (name.as_str(), value));
    other.kill().unwrap();
    orphan.wait().unwrap();
    other.wait().unwrap();
    let free = Home::open_free(dir.path()).unwrap();
    assert!(
        Home::open_free(dir.path()).unwrap().dir().ends_with("hwp-worker-2") && free.dir().ends_with("hwp-worker-1")
    );
}

fn marked(pid: u32, variable: &str) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|entry| entry.starts_with(variable.as_bytes()))
}
