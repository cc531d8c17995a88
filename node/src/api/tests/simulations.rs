//! Simulations, and what attempts tell of usage and ports.
//!
//! Invariants: as in `tests`. Does not: run any (`exec` and the end-to-end tests do).

use serde_json::json;
use starling_proto::v1::{
    Ending, EventsRequest, IndexRange, JobDetail, JobRef, JobState, Simulation, SubmitRequest, TaskPort, Usage,
};
use tonic::Code;

use super::calls::{command, ended, refused, submitted};
use super::http::{get, post};
use super::world::Node;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn simulation(env: &[&str], policy: &[&str]) -> SubmitRequest {
    let simulation = Simulation { env_command: words(env), policy_command: words(policy), port_wait_ms: 0 };
    SubmitRequest { simulation: Some(simulation), ..SubmitRequest::default() }
}

async fn detail(node: &mut Node, job: &str) -> JobDetail {
    node.client.get_job(JobRef { job: job.to_owned() }).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_simulation_is_a_job_with_ports_and_usage() {
    let mut node = Node::start().await;
    let array = vec![IndexRange { start: 3, end: 5 }];
    let request = SubmitRequest { array, ..simulation(&["env", "--fast"], &["/opt/policy", "{port}"]) };
    let job = submitted(&mut node, request).await.job;
    let summary = ended(&mut node, &job).await;
    assert_eq!((summary.name.as_str(), summary.ns.as_str()), ("policy", "simulation"));
    assert_eq!((summary.state(), summary.tasks), (JobState::Done, 3));
    let detail = detail(&mut node, &job).await;
    let asked = detail.simulation.unwrap();
    assert_eq!(
        (asked.env_command, asked.policy_command),
        (words(&["env", "--fast"]), words(&["/opt/policy", "{port}"]))
    );
    assert_eq!((asked.port_wait_ms, detail.command.len()), (30_000, 0));
    let mut ports: Vec<TaskPort> = detail.attempts.iter().flat_map(|attempt| attempt.ports.clone()).collect();
    ports.sort_by_key(|port| port.task);
    let expected = [3, 4, 5].map(|task| TaskPort { task, host: "127.0.0.1".into(), port: 40_000 + task });
    assert_eq!(ports, expected);
    let all = Usage { cpu_user_ms: 120, cpu_sys_ms: 60, wall_ms: 300, max_rss_bytes: 5 << 20, tasks: 3 };
    assert_eq!(detail.usage, Some(all));
    let mut stream = node.client.events(EventsRequest { job, ..Default::default() }).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        if event.kind == "PortAllocated" {
            let address = format!("host=127.0.0.1 port={}", 40_000 + event.tasks[0].start);
            assert!(event.text.ends_with(&address), "{}", event.text);
            told.push(event.tasks[0].start);
        }
    }
    told.sort_unstable();
    assert_eq!(told, [3, 4, 5]);
}

#[tokio::test]
async fn what_broke_says_why_at_every_attempt() {
    let mut node = Node::start().await;
    let request = SubmitRequest { retries: 1, ..simulation(&["break"], &["policy"]) };
    let job = submitted(&mut node, request).await.job;
    let summary = ended(&mut node, &job).await;
    assert_eq!((summary.exit, summary.ending(), summary.reason.as_str()), (Some(70), Ending::Broke, "the env broke"));
    let detail = detail(&mut node, &job).await;
    assert_eq!(detail.attempts.len(), 2);
    for (attempt, number) in detail.attempts.iter().zip([1, 2]) {
        assert_eq!((attempt.attempt, attempt.reason.as_str(), attempt.ports.len()), (number, "the env broke", 1));
        assert_eq!(attempt.usage.unwrap().wall_ms, 100);
    }
}

#[tokio::test]
async fn the_usage_of_a_batch_job_is_told_once_it_has_ended() {
    let mut node = Node::start().await;
    let job = submitted(&mut node, command(&["echo", "x"])).await.job;
    ended(&mut node, &job).await;
    let done = detail(&mut node, &job).await;
    let used = Usage { cpu_user_ms: 40, cpu_sys_ms: 20, wall_ms: 100, max_rss_bytes: 5 << 20, tasks: 1 };
    assert_eq!((done.attempts[0].usage, done.usage, done.simulation), (Some(used), Some(used), None));
    let job = submitted(&mut node, command(&["hold"])).await.job;
    let running = detail(&mut node, &job).await;
    assert_eq!(running.usage, None);
    assert!(running.attempts.iter().all(|attempt| attempt.usage.is_none() && attempt.ports.is_empty()));
}

#[tokio::test]
async fn simulations_over_http_have_the_same_fields() {
    let node = Node::start().await;
    let body = json!({"simulation": {"env_command": ["env"], "policy_command": ["exit", "0"], "port_wait_ms": 500}});
    let (status, reply) = post(&node, "/v1/submit", &body).await;
    assert_eq!((status, &reply["job"]), (200, &json!("wren-1")));
    let (status, _) = get(&node, "/v1/jobs/wren-1/wait").await;
    assert_eq!(status, 200);
    let (status, body) = get(&node, "/v1/jobs/wren-1").await;
    let detail: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &detail["simulation"]["port_wait_ms"]), (200, &json!(500)));
    let attempt = &detail["attempts"][0];
    assert_eq!(attempt["ports"], json!([{"task": 0, "host": "127.0.0.1", "port": 40_000}]));
    assert_eq!((&attempt["usage"]["cpu_user_ms"], &attempt["usage"]["max_rss_bytes"]), (&json!(40), &json!(5 << 20)));
    let unknown = json!({"simulation": {"environment": ["env"]}});
    let (status, reply) = post(&node, "/v1/submit", &unknown).await;
    assert!(status == 400 && reply["error"].as_str().unwrap().contains("environment"), "{reply}");
}

#[tokio::test]
async fn wrong_simulations_are_refused_field_by_field() {
    let mut node = Node::start().await;
    let wrong = SubmitRequest {
        ns: "batch".into(),
        command: words(&["true"]),
        stdin: vec![1],
        fields: words(&["env_cmd=x"]),
        simulation: Some(Simulation {
            policy_command: words(&["a\0b"]),
            port_wait_ms: 86_400_001,
            ..Default::default()
        }),
        ..SubmitRequest::default()
    };
    let (status, detail) = refused(&mut node, wrong).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let seen: Vec<[&str; 2]> =
        detail.violations.iter().map(|wrong| [wrong.field.as_str(), wrong.got.as_str()]).collect();
    let expected = [
        ["ns", "batch"],
        ["command", "true"],
        ["stdin", "1 bytes"],
        ["fields", "env_cmd=x"],
        ["simulation.env_command", "nothing"],
        ["simulation.policy_command", "a\\0b"],
        ["simulation.port_wait_ms", "86400001"],
    ];
    assert_eq!(seen, expected);
    assert!(detail.violations.iter().all(|wrong| !wrong.expected.is_empty()));
    let (_, detail) = refused(&mut node, SubmitRequest { ns: "simulation".into(), ..command(&["true"]) }).await;
    assert_eq!(detail.violations[0].field, "simulation.env_command");
    // In the namespace's own words its fields have its own names.
    let fields = vec!["env_cmd=env".to_owned()];
    let request = SubmitRequest { ns: "simulation".into(), fields, ..SubmitRequest::default() };
    let (_, detail) = refused(&mut node, request).await;
    assert_eq!(detail.violations[0].field, "policy_cmd");
    // What only the schema knows comes back under the API's name.
    let many = simulation(&["env"], &vec!["word"; 5_000]);
    let (status, detail) = refused(&mut node, many).await;
    assert_eq!(
        (status.code(), detail.violations[0].field.as_str()),
        (Code::InvalidArgument, "simulation.policy_command")
    );
}
