//! The HTTP twin over a loopback port.
//!
//! Invariants: as in `tests`. Does not: repeat what gRPC's tests show.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::world::{DEADLINE, Node};

/// Whether the sender closes its side after what it has sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Close,
    Listen,
}

/// Sends bytes and reads until the node closes.
async fn raw(node: &Node, bytes: &[u8], then: Then) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(node.http).await.unwrap();
        // The node may close before it has read everything.
        let _closed = stream.write_all(bytes).await;
        if then == Then::Close {
            let _closed = stream.shutdown().await;
        }
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(DEADLINE, talk).await.unwrap()
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name)).map(|(_, value)| value)
    }
}

/// Status and body of one request.
pub(super) async fn ask(node: &Node, line: &str, headers: &str, body: &str) -> (u16, String) {
    let Answered { status, body, .. } = request(node, line, headers, body).await;
    (status, body)
}

/// One request on a connection of its own.
pub(super) async fn request(node: &Node, line: &str, headers: &str, body: &str) -> Answered {
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    let answer = raw(node, request.as_bytes(), Then::Listen).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let is_chunked = head.contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(body) } else { body.to_owned() };
    Answered { status: head[9..12].parse().unwrap(), head: head.to_owned(), body }
}

/// The content of a chunked body.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&rest[..size]);
        chunks = &rest[size + 2..];
    }
    body
}

pub(super) async fn get(node: &Node, path: &str) -> (u16, String) {
    ask(node, &format!("GET {path}"), "", "").await
}

pub(super) async fn post(node: &Node, path: &str, body: &Value) -> (u16, Value) {
    let json = "content-type: application/json\r\n";
    let (status, body) = ask(node, &format!("POST {path}"), json, &body.to_string()).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn job_lives_its_life_over_http() {
    let node = Node::start().await;
    let (status, reply) = post(&node, "/v1/submit", &json!({"command": ["echo", "hi"]})).await;
    assert_eq!((status, &reply["job"], &reply["acked"]), (200, &json!("wren-1"), &json!("local")));
    let (status, body) = get(&node, "/v1/jobs/wren-1/wait").await;
    assert!(status == 200 && body.contains(r#""state":"done""#), "{body}");
    let (status, body) = get(&node, "/v1/jobs/wren-1/logs?format=text").await;
    assert!(status == 200 && body.contains("echo hi"), "{body}");
    let (_, body) = get(&node, "/v1/jobs/wren-1/logs").await;
    assert!(body.contains(r#""data":"ZWNobyBoaQo=""#), "{body}");
    let (status, body) = get(&node, "/v1/jobs?states=done&limit=5").await;
    assert!(status == 200 && body.contains(r#""total":1"#), "{body}");
    for path in ["/v1/jobs/wren-1", "/v1/jobs/wren-1/explain", "/v1/nodes", "/v1/info", "/v1/doctor"] {
        let (status, body) = get(&node, path).await;
        assert!(status == 200 && body.contains("wren"), "{path}: {body}");
    }
    let (status, body) = get(&node, "/v1/events?job=wren-1").await;
    assert!(status == 200 && body.contains(r#""kind":"Seal""#), "{body}");
    let (status, reply) = post(&node, "/v1/jobs/wren-1/cancel", &json!({})).await;
    assert_eq!((status, &reply["results"][0]["note"]), (200, &json!("already DONE")));
    assert_eq!(get(&node, "/healthz").await.0, 200);
}

#[tokio::test]
async fn wrong_requests_get_json_with_the_right_status() {
    let node = Node::start().await;
    let (status, reply) = post(&node, "/v1/submit", &json!({"command": []})).await;
    assert_eq!((status, &reply["violations"][0]["field"]), (400, &json!("command")));
    let (status, reply) = post(&node, "/v1/submit", &json!({"comand": ["true"]})).await;
    assert!(status == 400 && reply["error"].to_string().contains("comand"), "{reply}");
    let cases = [
        ("GET /v1/jobs/wren-9", "", 404),
        ("GET /v1/jobs/wren-9/wait", "", 404),
        ("GET /v1/nothing", "", 404),
        ("GET /v1/jobs?colour=red", "", 400),
        ("GET /v1/jobs?states=odd", "", 400),
        ("GET /v1/submit", "", 405),
        ("POST /v1/submit", "", 415),
        ("POST /v1/submit", "content-type: application/json\r\norigin: http://evil\r\n", 403),
    ];
    for (line, headers, expected) in cases {
        let (status, body) = ask(&node, line, headers, "").await;
        assert_eq!(status, expected, "{line}: {body}");
        assert!(body.contains(r#""error":"#), "{line}: {body}");
    }
}

#[tokio::test]
async fn garbage_and_oversize_cost_their_own_connection_only() {
    let node = Node::start().await;
    let garbage: [&[u8]; 3] = [
        b"\x00\xff\x16\x03\x01 garbage \r\n\r\n",
        &[b'x'; 100_000],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, and long enough to be read as one",
    ];
    for bytes in garbage {
        raw(&node, bytes, Then::Close).await;
    }
    let head = "POST /v1/submit HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\nconnection: close\r\n\r\n{";
    let answer = raw(&node, head.as_bytes(), Then::Listen).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(get(&node, "/healthz").await, (200, "ok\n".to_owned()));
}
