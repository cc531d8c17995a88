//! A small HTTP/1.1 client over one connection, so that what goes over the wire is known byte by byte.
//!
//! Does not: follow or compress, or read streams that never end.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(20);

/// An answer; header names are in lower case.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

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

    /// Sends a request of any content type.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: starling\r\ncontent-length: {}\r\n\r\n", body.len());
        self.stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        self.answer()
    }

    /// Sends these bytes; the status and the answer.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> (u16, Value) {
        // A server that refuses a large body answers before it has read it all.
        let _refused = self.stream.get_mut().write_all(bytes);
        let Answer { status, body, .. } = self.answer();
        (status, body)
    }

    /// Reads one answer.
    fn answer(&mut self) -> Answer {
        let line = self.line();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {line:?}")).parse().unwrap();
        let mut headers = BTreeMap::new();
        while let Some((key, value)) = self.line().split_once(": ") {
            headers.insert(key.to_lowercase(), value.to_owned());
        }
        let body = match headers.get("content-length") {
            Some(length) => self.bytes(length.parse().unwrap()),
            None if headers.contains_key("transfer-encoding") => self.chunks(),
            None => Vec::new(),
        };
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            body.extend(self.bytes(size));
            self.line();
            if size == 0 {
                return body;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }
}
