//! What a supervisor and its daemon say to each other, and what a journal consists of: frames of a length and CBOR.
//!
//! Invariants: a journal is the words that its supervisor would say again to a daemon that asks; bytes that do not decode are an error, never a panic.
//! Does not: read or write files and sockets.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use minicbor::bytes::ByteVec;
use starling_core::facts::{Outcome, Usage};
use starling_core::ids::GrantId;
use starling_core::lattice::IntervalSet;

use crate::exec::Kill;
use crate::exec::output::{Stream, Streams, Written};
use crate::output::Place;

/// The protocol that this version speaks. A supervisor of an older one is only ever asked to finish.
pub(super) const PROTOCOL: u16 = 1;
/// A task's event takes 16 KiB at most; whatever is larger than this is damage.
const FRAME_BYTES_MAX: usize = 1 << 20;
const LEN_BYTES: usize = 4;

/// A task to run.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Task {
    /// Which one.
    #[n(0)]
    pub place: Place,
    /// Program and arguments.
    #[n(1)]
    pub argv: Vec<String>,
    /// Variables, as `exec::Launch` takes them.
    #[n(2)]
    pub env: Vec<(String, String)>,
    /// The daemon's own directory when absent.
    #[n(3)]
    pub cwd: Option<String>,
    /// Fed to standard input.
    #[n(4)]
    pub stdin: Option<ByteVec>,
    /// The prefix of its output files, as bytes.
    #[n(5)]
    pub out: ByteVec,
    /// Kept of each stream, in bytes.
    #[n(6)]
    pub cap_bytes: u64,
    /// Of a pair, its environment.
    #[n(7)]
    pub env_server: Option<Server>,
    /// Longest run in milliseconds; 0 for no limit. The daemon ends it then; its supervisor does while there is none.
    #[cbor(n(8), default)]
    pub timeout_ms: u64,
}

/// A pair's environment.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Server {
    /// Program and arguments.
    #[n(0)]
    pub argv: Vec<String>,
    /// Until it must listen, in milliseconds.
    #[n(1)]
    pub port_wait_ms: u64,
    /// The address where it must listen.
    #[n(2)]
    pub host: String,
}

impl Server {
    /// The address where it must listen.
    pub(super) fn host(&self) -> IpAddr {
        self.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// What the daemon tells a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) enum Order {
    /// Run a task.
    #[n(0)]
    Launch(#[n(0)] Box<Task>),
    /// Kill a task.
    #[n(1)]
    Kill {
        #[n(0)]
        place: Place,
        #[n(1)]
        how: Kill,
    },
    /// The ends of these tasks are in the daemon's log: forget them.
    #[n(2)]
    Told {
        #[n(0)]
        grant: GrantId,
        #[n(1)]
        tasks: IntervalSet,
    },
}

/// What a supervisor tells the daemon, and writes down.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) enum Word {
    /// Opens a journal.
    #[n(0)]
    Host {
        #[n(0)]
        protocol: u16,
        #[n(1)]
        pid: u32,
    },
    /// A task is about to start.
    #[n(1)]
    Launched {
        #[n(0)]
        place: Place,
        /// The machine's age then, in milliseconds.
        #[n(1)]
        uptime_ms: u64,
    },
    /// A process group of it runs.
    #[n(2)]
    Group {
        #[n(0)]
        place: Place,
        #[n(1)]
        pid: u32,
    },
    /// Its environment listens.
    #[n(3)]
    Port {
        #[n(0)]
        place: Place,
        #[n(1)]
        host: String,
        #[n(2)]
        port: u16,
    },
    /// It is over.
    #[n(4)]
    Ended(#[n(0)] Box<Ended>),
    /// All that was written down has been said. Never in a journal.
    #[n(5)]
    CaughtUp,
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct Ended {
    #[n(0)]
    pub(super) place: Place,
    #[n(1)]
    pub(super) outcome: Outcome,
    #[n(2)]
    pub(super) usage: Usage,
    /// The length and the dropped bytes of each stream, in the order of `Stream::ALL`.
    #[n(3)]
    pub(super) output: Vec<(u64, u64)>,
}

impl Ended {
    pub(super) fn new(place: Place, outcome: Outcome, usage: Usage, output: &Streams<Written>) -> Self {
        let written = |stream: &Stream| (output.of(*stream).len, output.of(*stream).dropped_bytes);
        Self { place, outcome, usage, output: Stream::ALL.iter().map(written).collect() }
    }

    pub(super) fn streams(&self) -> Streams<Written> {
        let mut streams = Streams::default();
        for (stream, (len, dropped_bytes)) in Stream::ALL.into_iter().zip(&self.output) {
            *streams.of_mut(stream) = Written { len: *len, dropped_bytes: *dropped_bytes };
        }
        streams
    }
}

/// Bytes that are no frames.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// Longer than any frame.
    #[error("a frame of {0} bytes is longer than any")]
    TooLong(usize),
    /// Not the wire form.
    #[error("bytes are not a frame")]
    Malformed(#[from] minicbor::decode::Error),
}

/// Appends a frame.
pub(super) fn put<T: minicbor::Encode<()>>(bytes: &mut Vec<u8>, frame: &T) {
    let begin = bytes.len();
    bytes.extend_from_slice(&[0; LEN_BYTES]);
    minicbor::encode(frame, &mut *bytes).expect("writing to memory cannot fail");
    let len = u32::try_from(bytes.len() - begin - LEN_BYTES).expect("no frame has four gigabytes");
    bytes[begin..begin + LEN_BYTES].copy_from_slice(&len.to_le_bytes());
}

/// Takes the next whole frame out of `bytes`, `at` being how much was taken before; `None` if more must come.
///
/// # Errors
/// If what is there can never become a frame.
pub(super) fn take<T: for<'a> minicbor::Decode<'a, ()>>(bytes: &[u8], at: &mut usize) -> Result<Option<T>, FrameError> {
    let rest = &bytes[*at..];
    let Some((len, rest)) = rest.split_first_chunk::<LEN_BYTES>() else {
        return Ok(None);
    };
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
    if len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(len));
    }
    let Some(body) = rest.get(..len) else {
        return Ok(None);
    };
    let frame = minicbor::decode(body)?;
    *at += LEN_BYTES + len;
    Ok(Some(frame))
}

pub(super) fn of_path(path: &Path) -> ByteVec {
    path.as_os_str().as_bytes().to_vec().into()
}

pub(super) fn to_path(bytes: ByteVec) -> PathBuf {
    OsString::from_vec(bytes.into()).into()
}

impl Task {
    /// A path as it travels.
    #[must_use]
    pub fn path(path: &Path) -> ByteVec {
        of_path(path)
    }
}
