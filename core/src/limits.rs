//! Every bound of the protocol, in one place, related by assertions that hold at compile time.
//!
//! Source: DESIGN section 12 unless a line says otherwise.

/// Largest encoded Event, bytes.
pub const EVENT_BYTES_MAX: usize = 16 * 1024;
/// Largest encoded Batch with its signature, bytes.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Largest encoded declaration of a namespace, bytes: it travels in one Event.
pub const DECLARATION_BYTES_MAX: usize = EVENT_BYTES_MAX / 2;
/// Bytes of a name in a declaration: of the namespace, a kind, field, phase, register or label.
pub const DECLARED_NAME_BYTES_MAX: usize = 64;
/// Bytes of a label's value.
pub const LABEL_BYTES_MAX: usize = 256;
/// Phases of a declared namespace.
pub const PHASES_MAX: usize = 64;
/// Fields of one schema, and rules, registers and labels of one declaration.
pub const DECLARED_ITEMS_MAX: usize = 128;
/// Most Events in one Batch.
pub const BATCH_EVENTS_MAX: usize = 256;
/// Bytes a Batch spends beside its events: header, chain hash, signature.
pub const BATCH_OVERHEAD_BYTES: usize = 256;
/// Deepest nesting of a value in a WorkSpec.
pub const VALUE_DEPTH_MAX: usize = 8;
/// Batches kept per author while a gap before them is being pulled.
pub const OUT_OF_ORDER_BATCHES_MAX: usize = 64;
/// Bytes of such batches over all authors.
pub const OUT_OF_ORDER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest response to one pull, bytes.
pub const SYNC_RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Pulls in flight at once, over all peers.
pub const PULLS_MAX: usize = 8;
/// A pull without an answer is asked of another peer after this long.
pub const PULL_TIMEOUT_MS: u64 = 3_000;
/// A task is given up after this many attempts (DESIGN J6).
pub const ATTEMPTS_MAX: u16 = 16;
/// How far a remote clock may pull ours ahead of the wall (DESIGN L7).
pub const HLC_AHEAD_MS_MAX: u64 = 500;
/// Tasks in one job's array.
pub const TASKS_MAX: u32 = 10_000_000;
/// Words of a command line.
pub const COMMAND_WORDS_MAX: usize = 1_024;
/// Events waiting for their write. Beyond it a submission is refused as busy.
pub const OUTBOX_EVENTS_MAX: usize = 8_192;
/// Submissions waiting for their acknowledgement.
pub const PENDING_REPLIES_MAX: usize = 16_384;
/// A `remote1` acknowledgement that no peer confirms falls back to `local` after this long.
pub const REMOTE_ACK_MS_MAX: u64 = 2_000;
/// Grants one executor holds at once.
pub const HELD_GRANTS_MAX: usize = 1_024;
/// Offers an executor keeps while it waits for the job's submission to arrive.
pub const PARKED_OFFERS_MAX: usize = 256;
/// Tasks in one grant, per slot of the executor.
pub const CHUNK_PER_SLOT_MAX: u32 = 128;
/// Jobs looked at in one placement pass.
pub const PLACE_SCAN_MAX: usize = 128;
/// Nodes whose presence is remembered.
pub const FLEET_MAX: usize = 4_096;
/// Declarations that commands may register. Others' are kept whatever their number: acceptance depends on bytes alone.
pub const DECLARATIONS_MAX: usize = 1_024;
/// Pools of workers that a gateway tells of. Workers beyond get no tasks.
pub const POOLS_MAX: usize = 64;
/// Workers that a gateway sponsors.
pub const WORKERS_MAX: usize = 4_096;
/// Labels of a node or a worker, and labels that a job may ask for.
pub const LABELS_MAX: usize = 32;
/// Bytes of such a label, where people write it.
pub const LABEL_TEXT_BYTES_MAX: usize = 64;
/// Tokens that commands may add, revoked ones included.
pub const TOKENS_MAX: usize = 1_024;
/// Ranges of tasks in what is kept of one retired job, and places where its tasks ran.
pub const PAST_RANGES_MAX: usize = 4_096;
/// Retired jobs whose idempotency key or client-chosen name still answers a repeated submission.
pub const RETIRED_KEYS_MAX: usize = 10_000;
/// Ranges of job numbers in one retirement.
pub const RETIRE_RANGES_MAX: usize = 512;
/// Shared part of another node's snapshot, bytes. Larger ones are refused.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// A snapshot is offered in place of log that is still there if it saves sending more than this, and more than it is long itself, bytes. Whoever takes it
/// has no history of the jobs that were retired meanwhile, so that a short absence is better made up for by log.
pub const SNAPSHOT_SAVES_BYTES: u64 = 16 * 1024 * 1024;
/// Largest piece of a snapshot in one answer, bytes.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 1024 * 1024 - 1024;
/// Batches on other branches than the first, of one forked log. Honest authors leave a forked log at once; a hostile one is not followed beyond.
pub const FORKS_MAX: usize = 8_192;
/// Of a log whose beginning went into a snapshot, this many of the last batches there are recognised, so that another branch is told from what is held.
pub const MARKS_KEPT_MAX: usize = 256;
/// Batches that a survey of logs on disk or in a file keeps track of, at 16 bytes each.
pub const SURVEY_BATCHES_MAX: usize = 1 << 24;
/// Imports that wait for the disk at once; one holds at most `SYNC_RESPONSE_BYTES_MAX` of batches.
pub const IMPORTS_MAX: usize = 8;

const _: () = assert!(EVENT_BYTES_MAX + BATCH_OVERHEAD_BYTES < BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX * OUT_OF_ORDER_BATCHES_MAX < OUT_OF_ORDER_BYTES_MAX);
const _: () = assert!(RETIRE_RANGES_MAX * 18 + 1_024 <= EVENT_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX * 4 <= SYNC_RESPONSE_BYTES_MAX);
const _: () = assert!(IMPORTS_MAX * SYNC_RESPONSE_BYTES_MAX < OUT_OF_ORDER_BYTES_MAX);
const _: () = assert!(BATCH_EVENTS_MAX * 4 <= OUTBOX_EVENTS_MAX);
const _: () = assert!(DECLARATION_BYTES_MAX + 1_024 <= EVENT_BYTES_MAX);
