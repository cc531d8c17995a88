//! Submissions and cancels.

use starling_core::facts::view;
use starling_proto::hwp::{AssignJobRequest, CancelJobRequest, Empty};
use tonic::Code;

use super::world::{Node, assignment, within};

#[tokio::test]
async fn an_assignment_is_a_job_that_can_be_cancelled_by_either_name() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let request =
        AssignJobRequest { name: "cloth".into(), image: "alpine:3".into(), ..assignment("a-1", &["sew", "x"]) };
    assert_eq!(within(client.assign_job(request)).await.unwrap().into_inner().job_id, "a-1");
    within(client.assign_job(assignment("a 2", &["/bin/sleep", "9"]))).await.unwrap();
    let jobs = node.ask(|machine| {
        let facts = machine.facts();
        let line = |id| {
            let spec = facts.job(&id)?.submit.as_ref()?.spec();
            let words: Vec<String> = spec.texts("command").map(ToString::to_string).collect();
            Some((
                view::job_name(facts, &id),
                spec.text("name")?.to_string(),
                spec.text("image").cloned(),
                words.join(" "),
            ))
        };
        facts.jobs().filter_map(|(id, _)| line(id)).collect::<Vec<_>>()
    });
    let line = |job: &str, name: &str, image: Option<&str>, words: &str| {
        (job.to_owned(), name.to_owned(), image.map(Into::into), words.to_owned())
    };
    let expected = [line("wren-1", "cloth", Some("alpine:3"), "sew x"), line("wren-2", "sleep", None, "/bin/sleep 9")];
    assert_eq!(jobs.await, expected);
    for job_id in ["a-1", "wren-2", "a-1"] {
        let cancel = CancelJobRequest { job_id: job_id.to_owned() };
        within(client.cancel_job(cancel)).await.unwrap();
    }
    let is_cancelled = node.ask(|machine| machine.facts().jobs().all(|(_, job)| job.cancel.0.is_some()));
    assert!(is_cancelled.await);
    for unknown in ["nothing", "wren-9"] {
        let refused = within(client.cancel_job(CancelJobRequest { job_id: unknown.to_owned() })).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        assert!(refused.message().contains(unknown), "{refused}");
    }
}

#[tokio::test]
async fn an_id_that_is_used_again_gives_the_same_job_or_a_refusal() {
    let node = Node::start().await;
    let mut client = node.client().await;
    for _ in 0..2 {
        within(client.assign_job(assignment("once", &["hold"]))).await.unwrap();
    }
    for other in [
        assignment("once", &["hold", "x"]),
        AssignJobRequest { name: "other".into(), ..assignment("once", &["hold"]) },
        AssignJobRequest { image: "alpine".into(), ..assignment("once", &["hold"]) },
    ] {
        let refused = within(client.assign_job(other)).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert!(refused.message().contains("wren-1"), "{refused}");
    }
    assert_eq!(node.ask(|machine| machine.facts().job_count()).await, 1);
}

#[tokio::test]
async fn one_id_many_times_at_once_is_one_job() {
    let node = Node::start().await;
    let client = node.client().await;
    let calls = (0..64).map(|number| {
        let mut client = client.clone();
        async move { within(client.assign_job(assignment(&format!("job-{}", number % 4), &["hold"]))).await }
    });
    for answer in futures::future::join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(node.ask(|machine| machine.facts().jobs().count()).await, 4);
}

#[tokio::test]
async fn a_wrong_field_is_named_with_what_is_expected() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let assigned = format!("{}-1-1.0-1.0", node.me.to_hex());
    let long = "x".repeat(129);
    for (request, field) in [
        (assignment("", &["hold"]), "job_id"),
        (assignment(" ", &["hold"]), "job_id"),
        (assignment("a\nb", &["hold"]), "job_id"),
        (assignment(&long, &["hold"]), "job_id"),
        (assignment(&assigned, &["hold"]), "job_id"),
        (assignment("a", &[]), "command"),
        (assignment("a", &[""]), "command"),
        (assignment("a", &["x\0"]), "command"),
        (assignment("a", &["x"; 1_025]), "command"),
        (AssignJobRequest { name: long.clone(), ..assignment("a", &["x"]) }, "name"),
        (AssignJobRequest { image: "i".repeat(513), ..assignment("a", &["x"]) }, "image"),
    ] {
        let refused = within(client.assign_job(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(&format!("{field}: expected")), "{refused}");
    }
    let huge = assignment("a", &[&"x".repeat(20_000)]);
    let refused = within(client.assign_job(huge)).await.unwrap_err();
    assert!(matches!(refused.code(), Code::ResourceExhausted | Code::InvalidArgument), "{refused}");
    let refused = within(client.cancel_job(CancelJobRequest { job_id: String::new() })).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(node.ask(|machine| machine.facts().job_count()).await, 0);
}

#[tokio::test]
async fn artifacts_are_refused_with_a_reason() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let refused = within(client.initiate_upload(Empty {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("no artifacts yet"), "{refused}");
}
