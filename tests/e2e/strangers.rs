//! Strangers: bytes that mean nothing, and peers that are no members.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::catch_up::{api_of, link_of};
use crate::http::Http;
use crate::support::{Flock, LONG, Running, SMALL, client, scratch, up, within};

/// Bytes that look random and are the same every time.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Sends bytes and takes what comes back until the other side has had enough.
fn throw(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // The other side may hang up at any byte.
    let _cut = stream.write_all(bytes);
    let _cut = stream.shutdown(Shutdown::Write);
    let _cut = stream.take(1 << 20).read_to_end(&mut Vec::new());
}

#[test]
fn garbage_on_every_port_leaves_the_node_at_work() {
    let flock = Flock::of(2, SMALL);
    let (api, link) = (api_of(&flock, 1), link_of(&flock, 1));
    let multistream = b"\x13/multistream/1.0.0\n\x07/noise\n".to_vec();
    let thrown: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\n".to_vec(),
        noise(1, 100),
        noise(2, 1 << 20),
        vec![0; 1 << 20],
        vec![0xff; 1 << 20],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [multistream.clone(), noise(3, 70_000)].concat(),
        [multistream, vec![0xff; 70_000]].concat(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied().chain(noise(4, 50_000)).collect(),
        [b"GET /v1/jobs HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat(),
        b"POST /v1/submit HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 9999999999\r\n\r\n".to_vec(),
    ];
    for bytes in &thrown {
        throw(&link, bytes);
        throw(&api, bytes);
    }
    flock.at(1, &["run", "--", "true"]).exits(0);
    flock.at(2, &["run", "--node", &flock.name(1), "--", "true"]).exits(0);
    flock.at(1, &["doctor"]).exits(0);
    assert!(!flock.log(1).contains("panicked"), "{}", flock.log(1));
}

#[test]
fn an_oversize_request_is_refused_and_the_next_one_served() {
    let flock = Flock::of(1, SMALL);
    let api = api_of(&flock, 1);
    // Refused for what the head announces.
    let head = b"POST /v1/submit HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 5000000\r\n\r\n";
    let (status, reply) = Http::open(&api).send(head);
    assert_eq!(status, 413, "{reply}");
    // Fits the API but not the log.
    let (status, reply) = Http::open(&api).post("/v1/submit", &json!({"command": ["true", "x".repeat(1 << 20)]}));
    assert!((400..500).contains(&status), "{status}: {reply}");
    assert!(reply["error"].as_str().is_some_and(|error| !error.is_empty()), "{reply}");
    let head = b"POST /v1/submit HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n{{{";
    let (status, reply) = Http::open(&api).send(head);
    assert_eq!(status, 400, "{reply}");
    let file = flock.file("large");
    std::fs::write(&file, noise(9, 3 << 20)).unwrap();
    flock.at(1, &["submit", "--stdin", file.to_str().unwrap(), "--", "cat"]).exits(1).says("stdin");
    flock.at(1, &["run", "--", "true"]).exits(0);
    assert_eq!(flock.json(1, &["jobs"]).len(), 1, "the others were not taken");
}

#[test]
fn a_peer_with_another_secret_is_refused_and_both_logs_say_so() {
    let (one, two) = (scratch(), scratch());
    let start = |home: &Path, more: &[&str]| {
        client(home, &["cluster", "init"]).exits(0);
        let log = File::create(home.join("log")).unwrap();
        let flags = [&["--no-mdns"], SMALL, more].concat();
        Running::start(up(home, &flags).stdout(log.try_clone().unwrap()).stderr(log))
    };
    let log = |home: &Path| std::fs::read_to_string(home.join("log")).unwrap();
    let mut first = start(one.path(), &[]);
    within(LONG, "the first node", || client(one.path(), &["nodes"]).code == Some(0));
    let info = client(one.path(), &["cluster", "info", "--json"]).exits(0);
    let info: serde_json::Value = serde_json::from_str(info.out.trim()).unwrap();
    let link = info["p2p_addresses"][0].as_str().unwrap();
    let mut second = start(two.path(), &["--join", link]);
    for home in [one.path(), two.path()] {
        within(LONG, "a word about the secret", || log(home).contains("secret") && log(home).contains("refused"));
    }
    for home in [one.path(), two.path()] {
        let nodes = client(home, &["nodes"]).exits(0);
        assert_eq!(nodes.out.matches(" READY ").count(), 1, "{}", nodes.out);
        client(home, &["run", "--", "true"]).exits(0);
    }
    assert_eq!((first.ended(), second.ended()), (None, None));
}
