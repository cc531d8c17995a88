//! Compiles the protobuf files without protoc, and derives the JSON form of every message.
//!
//! Invariants: a JSON field has its protobuf name; an absent JSON field means its default.
//! Does not: define any message (`proto/starling/v1/starling.proto`, `proto/hwp/hwp.proto`).

use std::error::Error;

const PROTO: &str = "starling/v1/starling.proto";
/// The worker protocol. Nobody reads it as JSON.
const HWP: &str = "hwp/hwp.proto";

/// Enum-valued fields and the codec that writes them as words: (field path, module of `crate::json`).
const ENUM_FIELDS: &[(&str, &str)] = &[
    ("SubmitRequest.ack", "ack_level"),
    ("SubmitReply.acked", "ack_level"),
    ("JobSummary.state", "job_state"),
    ("JobSummary.ending", "ending"),
    ("ListJobsRequest.states", "job_state::list"),
    ("Attempt.state", "job_state"),
    ("Attempt.ending", "ending"),
    ("ExplainReply.state", "job_state"),
    ("CancelResult.state", "job_state"),
    ("LogsRequest.streams", "log_stream::list"),
    ("LogChunk.stream", "log_stream"),
    ("NodeLine.state", "node_state"),
    ("WorkerSummary.state", "worker_state"),
    ("JobFacts.state", "job_state"),
    ("JobFacts.ending", "ending"),
    ("Check.state", "check_state"),
];

const BYTES_FIELDS: &[&str] = &["SubmitRequest.stdin", "SubmitRequest.request_id", "LogChunk.data"];

/// Fields that hold JSON, which stands for itself in the JSON form.
const JSON_FIELDS: &[&str] = &[
    "SubmitRequest.spec",
    "JobDetail.spec",
    "JobDetail.registers",
    "JobFacts.spec",
    "JobFacts.registers",
    "RelayReport.spec",
    "RelayTask.spec",
];

const ONEOFS: &[&str] = &["RelaySay.say", "RelayHear.hear"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    let mut builder = tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".", "#[serde(default, deny_unknown_fields)]");
    for (field, codec) in ENUM_FIELDS {
        builder = builder
            .field_attribute(format!(".starling.v1.{field}"), format!("#[serde(with = \"crate::json::{codec}\")]"));
    }
    for field in BYTES_FIELDS {
        builder =
            builder.field_attribute(format!(".starling.v1.{field}"), "#[serde(with = \"crate::json::base64_bytes\")]");
    }
    for field in JSON_FIELDS {
        builder =
            builder.field_attribute(format!(".starling.v1.{field}"), "#[serde(with = \"crate::json::embedded\")]");
    }
    builder = builder.field_attribute(".starling.v1.SubmitRequest.ns", "#[serde(alias = \"namespace\")]");
    for oneof in ONEOFS {
        let derive = "#[derive(serde::Serialize, serde::Deserialize)]";
        builder = builder.enum_attribute(format!(".starling.v1.{oneof}"), derive);
    }
    builder.compile_fds(descriptors)?;
    let worker_protocol = protox::compile([HWP], ["proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .bytes(".hwp.StreamedResult.compressed_logs")
        .compile_fds(worker_protocol)?;
    Ok(())
}
