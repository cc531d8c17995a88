//! gRPC: `starling.v1.Starling` over the API's functions.
//!
//! Invariants: every unary call goes through `Api::call`, every stream through `Api::stream`.
//! Does not: anything of its own.

use starling_proto::v1::starling_server::Starling;
use starling_proto::v1::{
    AddTokenReply, AddTokenRequest, CancelReply, CancelRequest, DoctorReply, DoctorRequest, DownReply, DownRequest,
    DrainNodeRequest, EventLine, EventsRequest, ExplainReply, ExportLogRequest, FactsPage, ForgetNodeRequest,
    GatewayReply, GetGatewayRequest, GetNamespaceRequest, GetNodeRequest, ImportLogReply, InfoReply, InfoRequest,
    JobDetail, JobRef, ListJobsReply, ListJobsRequest, ListNamespacesReply, ListNamespacesRequest, ListNodesRequest,
    ListRelaysRequest, ListTokensReply, ListTokensRequest, ListWorkersReply, ListWorkersRequest, LogChunk, LogPiece,
    LogsRequest, MemberReply, NamespaceDetail, NodeDetail, NodesReply, PullFactsRequest, PutNamespaceReply,
    PutNamespaceRequest, RelayHear, RelaySay, RelaysReply, RevokeTokenReply, RevokeTokenRequest, SubmitReply,
    SubmitRequest, WaitReply, WaitRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::context::Api;
use super::stream::Produced;
use super::{
    carry, doctor, down, events, facts, gateway, jobs, logs, members, namespaces, nodes, relays, submit, wait, workers,
};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Starling for Api {
    type WaitStream = Produced<WaitReply>;
    type LogsStream = Produced<LogChunk>;
    type EventsStream = Produced<EventLine>;
    type PullFactsStream = Produced<FactsPage>;
    type RelayStream = Produced<RelayHear>;
    type ExportLogStream = Produced<LogPiece>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Answer<SubmitReply> {
        let work = submit::submit(self, request.into_inner());
        self.call(work).await.map(Response::new)
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsReply> {
        let work = jobs::list(self, request.into_inner());
        self.call(work).await.map(Response::new)
    }

    async fn get_job(&self, request: Request<JobRef>) -> Answer<JobDetail> {
        let work = jobs::get(self, request.into_inner());
        self.call(work).await.map(Response::new)
    }

    async fn explain(&self, request: Request<JobRef>) -> Answer<ExplainReply> {
        let work = jobs::explain(self, request.into_inner());
        self.call(work).await.map(Response::new)
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answer<Self::WaitStream> {
        let stream = wait::wait(self, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Answer<CancelReply> {
        let work = jobs::cancel(self, request.into_inner());
        self.call(work).await.map(Response::new)
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        let stream = logs::logs(self, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Answer<NodesReply> {
        self.call(nodes::list(self, request.into_inner())).await.map(Response::new)
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Answer<NodeDetail> {
        self.call(nodes::get(self, request.into_inner())).await.map(Response::new)
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        let stream = events::events(self, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn pull_facts(&self, request: Request<PullFactsRequest>) -> Answer<Self::PullFactsStream> {
        let stream = facts::pull(self, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn export_log(&self, request: Request<ExportLogRequest>) -> Answer<Self::ExportLogStream> {
        let stream = carry::export(self, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn import_log(&self, request: Request<Streaming<LogPiece>>) -> Answer<ImportLogReply> {
        self.long_call(carry::import(self, request.into_inner())).await.map(Response::new)
    }

    async fn info(&self, _request: Request<InfoRequest>) -> Answer<InfoReply> {
        self.call(nodes::info(self)).await.map(Response::new)
    }

    async fn doctor(&self, _request: Request<DoctorRequest>) -> Answer<DoctorReply> {
        self.call(doctor::doctor(self)).await.map(Response::new)
    }
    async fn put_namespace(&self, request: Request<PutNamespaceRequest>) -> Answer<PutNamespaceReply> {
        let work = namespaces::put(self, request.into_inner());
        self.call(work).await.map(Response::new)
    }

    async fn list_namespaces(&self, _request: Request<ListNamespacesRequest>) -> Answer<ListNamespacesReply> {
        self.call(namespaces::list(self)).await.map(Response::new)
    }

    async fn get_namespace(&self, request: Request<GetNamespaceRequest>) -> Answer<NamespaceDetail> {
        let work = namespaces::get(self, request.into_inner());
        self.call(work).await.map(Response::new)
    }

    async fn relay(&self, request: Request<Streaming<RelaySay>>) -> Answer<Self::RelayStream> {
        let stream = relays::relay(self, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn list_relays(&self, _request: Request<ListRelaysRequest>) -> Answer<RelaysReply> {
        self.call(relays::list(self)).await.map(Response::new)
    }

    async fn get_gateway(&self, _request: Request<GetGatewayRequest>) -> Answer<GatewayReply> {
        self.call(gateway::status(self)).await.map(Response::new)
    }

    async fn list_workers(&self, _request: Request<ListWorkersRequest>) -> Answer<ListWorkersReply> {
        self.call(workers::list(self)).await.map(Response::new)
    }

    async fn add_token(&self, request: Request<AddTokenRequest>) -> Answer<AddTokenReply> {
        self.call(gateway::add_token(self, request.into_inner())).await.map(Response::new)
    }

    async fn list_tokens(&self, _request: Request<ListTokensRequest>) -> Answer<ListTokensReply> {
        self.call(gateway::list_tokens(self)).await.map(Response::new)
    }

    async fn forget_node(&self, request: Request<ForgetNodeRequest>) -> Answer<MemberReply> {
        self.call(members::forget(self, request.into_inner())).await.map(Response::new)
    }

    async fn drain_node(&self, request: Request<DrainNodeRequest>) -> Answer<MemberReply> {
        self.call(members::drain(self, request.into_inner())).await.map(Response::new)
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Answer<RevokeTokenReply> {
        self.call(gateway::revoke_token(self, request.into_inner())).await.map(Response::new)
    }

    async fn down(&self, request: Request<DownRequest>) -> Answer<DownReply> {
        self.call(down::down(self, request.into_inner())).await.map(Response::new)
    }
}
