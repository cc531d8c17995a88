//! Tests of the JSON form.
//!
//! Invariants: none. Does not: test generated code beyond the attached codecs.

mod published;

use crate::Word;
use crate::v1::{AckLevel, JobFacts, JobState, JobSummary, ListJobsRequest, SubmitRequest};

#[test]
fn message_with_enums_and_bytes_survives_json() {
    let request = SubmitRequest {
        command: vec!["true".into()],
        stdin: vec![0, 255, 7],
        ack: AckLevel::Remote1.into(),
        cpus_milli: Some(500),
        spec: r#"{"url":"http://x"}"#.into(),
        ..SubmitRequest::default()
    };
    let text = serde_json::to_string(&request).unwrap();
    assert!(text.contains(r#""spec":{"url":"http://x"}"#), "{text}");
    assert!(text.contains("\"ack\":\"remote1\"") && text.contains("\"stdin\":\"AP8H\""), "{text}");
    assert_eq!(serde_json::from_str::<SubmitRequest>(&text).unwrap(), request);
}

#[test]
fn absent_fields_take_their_defaults() {
    let request: SubmitRequest = serde_json::from_str(r#"{"command":["true"]}"#).unwrap();
    assert_eq!(request.command, ["true"]);
    assert_eq!(request.ack(), AckLevel::Default);
    assert_eq!(request.cpus_milli, None);
}

#[test]
fn unknown_field_and_unknown_word_are_named() {
    let error = serde_json::from_str::<SubmitRequest>(r#"{"comand":[]}"#).unwrap_err().to_string();
    assert!(error.contains("comand"), "{error}");
    let error = serde_json::from_str::<SubmitRequest>(r#"{"ack":"all"}"#).unwrap_err().to_string();
    assert!(error.contains("expected one of default, local, remote1, got \"all\""), "{error}");
}

#[test]
fn list_of_words_reads_any_case() {
    let request: ListJobsRequest = serde_json::from_str(r#"{"states":["RUNNING","done"]}"#).unwrap();
    assert_eq!(request.states, [i32::from(JobState::Running), i32::from(JobState::Done)]);
}

#[test]
fn unknown_enum_number_is_written_as_its_default() {
    let job = JobSummary { state: 99, ..JobSummary::default() };
    assert!(serde_json::to_string(&job).unwrap().contains("\"state\":\"unknown\""));
    assert_eq!(JobState::Lost.word(), "lost");
}

#[test]
fn embedded_json_stands_for_itself() {
    let job = JobFacts { spec: r#"{"url":"http://x"}"#.into(), registers: "{}".into(), ..JobFacts::default() };
    let text = serde_json::to_string(&job).unwrap();
    assert!(text.contains(r#""spec":{"url":"http://x"},"registers":{}"#), "{text}");
    assert_eq!(serde_json::from_str::<JobFacts>(&text).unwrap(), job);
    let empty = serde_json::to_string(&JobFacts::default()).unwrap();
    assert!(empty.contains(r#""spec":{}"#), "{empty}");
}
