//! A worker that is called, and calls back.
//!
//! Invariants: only published calls and ReportResult are used; nothing but an end in the log and an exit code says how a job ended.

use starling_proto::hwp::worker_service_client::WorkerServiceClient;
use starling_proto::hwp::{AssignJobRequest, CancelJobRequest, HeartbeatRequest};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::*;

/// A worker that listens, and a client that calls it.
struct Called {
    rig: Rig,
    client: WorkerServiceClient<Channel>,
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

impl Called {
    async fn start(slots: usize) -> Self {
        let server = Server::start(Some(TOKEN), Way::Reads).await;
        let home = tempfile::tempdir().unwrap();
        let worker = Running::start(&[&server.url], &home, Choice { slots, listens: true, ..Choice::default() });
        let mut rig = Rig::with(server, worker, home);
        let endpoint = endpoint(&mut rig).await;
        let client = WorkerServiceClient::connect(endpoint).await.unwrap();
        Self { rig, client }
    }

    async fn assign(&mut self, job_id: &str, script: &str) -> Result<(), Code> {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = AssignJobRequest { job_id: job_id.to_owned(), command, ..AssignJobRequest::default() };
        let accepted = self.client.assign_job(with_token(request, TOKEN)).await.map_err(|status| status.code())?;
        assert_eq!(accepted.into_inner().job_id, job_id);
        Ok(())
    }

    async fn cancel(&mut self, job_id: &str) -> Result<(), Code> {
        let request = with_token(CancelJobRequest { job_id: job_id.to_owned() }, TOKEN);
        self.client.cancel_job(request).await.map(drop).map_err(|status| status.code())
    }

    /// The exit code and the lines of a job that runs to its end.
    async fn run(&mut self, job_id: &str, script: &str) -> (i32, Vec<&str>) {
        self.assign(job_id, script).await.unwrap();
        let exit_code = self.rig.result(job_id).await.exit_code;
        (exit_code, self.rig.lines(job_id))
    }
}

/// Where the worker says it is called.
async fn endpoint(rig: &mut Rig) -> String {
    match rig.hear("a registration", |heard| matches!(heard, Heard::Registered(_))).await {
        Heard::Registered(said) => {
            let mut labels = said.capabilities.iter();
            labels.find_map(|label| label.strip_prefix("endpoint=")).expect("it says where").to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_reported_after_the_last_line() {
    let mut called = Called::start(2).await;
    assert_eq!(called.run("zero", "echo a; echo b").await, (0, vec!["a", "b"]));
    assert_eq!(called.run("three", "exit 3").await, (3, vec![]));
    assert_eq!(called.run("killed", "echo a; kill -9 $$").await, (-1, vec!["a", "[starling: signal 9]"]));
    called.assign("long", "echo on; exec sleep 600").await.unwrap();
    called.rig.line("long", "on").await;
    called.cancel("long").await.unwrap();
    assert_eq!(called.rig.result("long").await.exit_code, -1);
    assert_eq!(called.rig.lines("long"), ["on", "[starling: cancelled]"]);
    assert_eq!(called.cancel("unknown").await, Err(Code::NotFound));
    let command = vec!["no-such-program".to_owned()];
    let request = AssignJobRequest { job_id: "absent".to_owned(), command, ..AssignJobRequest::default() };
    called.client.assign_job(with_token(request, TOKEN)).await.unwrap();
    assert_eq!(called.rig.result("absent").await.exit_code, -1);
    assert!(called.rig.lines("absent")[0].contains("command not found"), "the published result has no other place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_repeated_until_it_is_taken_and_then_no_more() {
    let mut called = Called::start(2).await;
    called.rig.server.refuse_reports(3);
    assert_eq!(called.run("killed", "kill -9 $$").await, (-1, vec!["[starling: signal 9]"]));
    assert_eq!(called.run("next", "exit 1").await.0, 1);
    let kept = called.rig.home.path().join("results");
    until("nothing is kept", || std::fs::read_dir(&kept).unwrap().count() == 0).await;
    // Whatever it may have sent twice has come before this.
    called.assign("last", "true").await.unwrap();
    called.rig.result("last").await;
    assert!(called.rig.results.values().all(Vec::is_empty), "{:?}", called.rig.results);
    assert_eq!(called.rig.lines("killed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_calls_that_no_worker_serves_are_refused() {
    let mut called = Called::start(1).await;
    let request =
        || AssignJobRequest { job_id: "j".to_owned(), command: vec!["true".to_owned()], ..AssignJobRequest::default() };
    for request in [Request::new(request()), with_token(request(), "wrong")] {
        assert_eq!(called.client.assign_job(request).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let status = called.client.heartbeat(with_token(HeartbeatRequest::default(), TOKEN)).await.unwrap_err();
    assert!(status.code() == Code::Unimplemented && status.message().contains("this is a worker"), "{status}");
    let nameless = AssignJobRequest { job_id: String::new(), ..request() };
    assert_eq!(called.client.assign_job(with_token(nameless, TOKEN)).await.unwrap_err().code(), Code::InvalidArgument);
    for at in 0..5 {
        called.assign(&format!("j{at}"), "exec sleep 600").await.unwrap();
    }
    assert_eq!(called.assign("j5", "true").await, Err(Code::ResourceExhausted));
    assert_eq!(called.assign("j0", "true").await, Ok(()), "it runs already");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_can_call_is_refused() {
    let error = super::super::dial_back::bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("--listen"), "{error}");
}
