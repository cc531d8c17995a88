//! A small HTTP/1.1 client over one connection, so that what goes over the wire is known byte by byte.
//!
//! Does not: follow, compress, or read chunked bodies to the end of a stream that never ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(20);

/// One connection to a node's API.
#[derive(Debug)]
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Posts JSON; the status and the answer.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: starling\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.send(format!("{head}{body}").as_bytes())
    }

    /// Gets JSON; the status and the answer.
    pub(crate) fn get(&mut self, path: &str) -> (u16, Value) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: starling\r\n\r\n");
        self.send(head.as_bytes())
    }

    /// Sends these bytes; the status and the answer.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> (u16, Value) {
        self.stream.get_mut().write_all(bytes).unwrap();
        self.answer()
    }

    /// Reads one answer with a length.
    fn answer(&mut self) -> (u16, Value) {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {line:?}")).parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let Some((key, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            if key.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}
