//! Tests of what the gateway, its workers and tokens look like.
//!
//! Invariants: tables stay within 100 columns. Does not: open a socket.

use starling_proto::v1::{
    Attempt, GatewayReply, JobState, ListWorkersReply, Token, WorkerAddress, WorkerState, WorkerSummary,
};

use super::{request_of, usage_code, verb};
use crate::cli::args::{GatewayVerb, TokenVerb, Verb};
use crate::cli::table::Colour;
use crate::cli::{gateway, jobs};

#[test]
fn verbs_of_the_gateway_are_read() {
    assert!(matches!(verb("starling gateway status"), Verb::Gateway(GatewayVerb::Status)));
    let Verb::Gateway(GatewayVerb::Token(TokenVerb::Add(add))) = verb("starling gateway token add ci") else {
        panic!("not an addition");
    };
    assert_eq!(add.name, "ci");
    assert!(matches!(verb("starling nodes -w"), Verb::Nodes(args) if args.wide));
    for line in ["starling gateway", "starling gateway token add", "starling gateway token revoke"] {
        assert_eq!(usage_code(line), 2, "{line}");
    }
}

#[test]
fn labels_and_images_become_part_of_the_request() {
    let line = "starling submit --constraint gpu=2,zone:a --constraint linux --image alpine:3 -- true";
    let Verb::Submit(args) = verb(line) else { panic!("not a submit") };
    let request = request_of(args).unwrap();
    assert_eq!((request.constraint.join(" ").as_str(), request.image.as_str()), ("gpu=2 zone:a linux", "alpine:3"));
    let Verb::Up(up) = verb("starling up --label gpu=2 --label docker --no-gateway") else { panic!("not up") };
    assert_eq!((up.labels.join(" ").as_str(), up.no_gateway), ("gpu=2 docker", true));
    let long = "x".repeat(65);
    for line in [
        "starling up --label é",
        &format!("starling up --label {long}"),
        "starling submit --constraint a,,b true",
        "starling submit --constraint gpu* true",
        "starling submit --ns render --constraint gpu",
    ] {
        assert_eq!(usage_code(line), 2, "{line}");
    }
}

#[test]
fn status_tells_who_since_when_and_why() {
    let reply = GatewayReply {
        term: 3,
        holder: "finch".into(),
        since_unix_ms: 1_795_692_621_304,
        acting: true,
        workers: 2,
        slots: 8,
        slots_free: 5,
        why: "finch has held term 3 for 4 min, and acts".into(),
        addresses: vec![WorkerAddress { node: "finch".into(), address: "127.0.0.1:50051".into() }],
        ..GatewayReply::default()
    };
    let text = gateway::status_block(&reply, 1_795_692_621_304 + 250_000).render(Colour::Off);
    expect_test::expect![[r#"
        gateway:    finch
        term:       3
        since:      2026-11-26T11:30:21.304Z (4m10s ago)
        acts:       yes
        workers:    2, 5 of 8 slots free
        why:        finch has held term 3 for 4 min, and acts
        attach at:  127.0.0.1:50051 (finch)
    "#]]
    .assert_eq(&text);
    let none = GatewayReply {
        why: "no claim yet: this node sees 1 of 3 members, less than half".into(),
        ..Default::default()
    };
    let text = gateway::status_block(&none, 0).render(Colour::Off);
    expect_test::expect![[r#"
        gateway:  none
        why:      no claim yet: this node sees 1 of 3 members, less than half
    "#]]
    .assert_eq(&text);
}

#[test]
fn workers_table_shows_states_and_load() {
    let ready = WorkerSummary {
        name: "w1".into(),
        state: WorkerState::Ready.into(),
        slots: 4,
        busy: 1,
        cpu_milli: Some(1_250),
        mem_bytes: Some(3 << 30),
        silent_ms: 1_200,
        labels: vec!["docker".into(), "linux".into()],
        ..WorkerSummary::default()
    };
    let full = WorkerSummary { name: "w\u{1b}2".into(), state: WorkerState::Full.into(), busy: 4, ..ready.clone() };
    let away = WorkerSummary {
        name: "w3".into(),
        state: WorkerState::Away.into(),
        cpu_milli: None,
        mem_bytes: None,
        silent_ms: 12_000,
        labels: Vec::new(),
        ..ready.clone()
    };
    let text = gateway::workers_table(&[ready.clone(), full, away]).render(Colour::Off);
    expect_test::expect![[r#"
        WORKER  STATE  SLOTS  BUSY   CPU  MEM  HEARD  LABELS
        w1      READY      4     1  1.25   3G   1.2s  docker,linux
        w?2     FULL       4     4  1.25   3G   1.2s  docker,linux
        w3      AWAY       4     1     -    -    12s  -
    "#]]
    .assert_eq(&text);
    let reply = ListWorkersReply { gateway: "finch".into(), term: 3, workers: vec![ready], view: None };
    assert_eq!(gateway::workers_title(&reply), "workers of gateway finch, term 3");
    let line = serde_json::to_value(&gateway::worker_lines(&reply)[0]).unwrap();
    let of = |key: &str| line[key].to_string();
    assert_eq!([of("kind"), of("name"), of("state"), of("term")].join(" "), r#""worker" "w1" "ready" 3"#);
}

#[test]
fn tokens_are_random_and_known_by_the_hash_of_their_text() {
    let ((token, hash), (other, _)) = (gateway::fresh_token(), gateway::fresh_token());
    assert_ne!(token, other);
    assert_eq!(token.len(), 43);
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
    assert_eq!(hash, blake3::hash(token.as_bytes()).to_hex().to_string());
    let valid = Token {
        name: "ci".into(),
        hash: "ab".repeat(32),
        added_unix_ms: 1_795_692_621_304,
        added_by: "wren".into(),
        ..Token::default()
    };
    let revoked =
        Token { name: "lab".into(), revoked_unix_ms: 1_795_692_721_304, revoked_by: "finch".into(), ..valid.clone() };
    let text = gateway::tokens_table(&[valid, revoked]).render(Colour::Off);
    expect_test::expect![[r#"
        NAME  HASH          ADDED                             STATE
        ci    abababababab  2026-11-26T11:30:21.304Z at wren  valid
        lab   abababababab  2026-11-26T11:30:21.304Z at wren  revoked 2026-11-26T11:32:01.304Z at finch
    "#]]
    .assert_eq(&text);
}

#[test]
fn an_attempt_names_the_worker_that_ran_it() {
    let attempt = Attempt { attempt: 1, node: "wren".into(), state: JobState::Done.into(), ..Attempt::default() };
    let by_worker = Attempt { worker: "w1".into(), ..attempt.clone() };
    let text = jobs::attempts_table(&[attempt, by_worker]).render(Colour::Off);
    let cells = |line: usize| text.lines().nth(line).unwrap().split_whitespace().nth(2).unwrap().to_owned();
    assert_eq!([cells(1), cells(2)], ["wren", "wren/w1"]);
}
