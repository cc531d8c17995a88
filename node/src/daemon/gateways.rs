//! The gateway as the edge needs it.
//!
//! Does not: anything of its own.

use starling_core::ids::{GatewayTerm, NodeId};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};

use crate::hwp::edge::{Gateways, Line};

/// No workers are served yet, here or elsewhere.
#[derive(Debug)]
pub(super) struct NoGateway;

impl Gateways for NoGateway {
    fn here(&self) -> Line {
        let refuse = |_request: Request<Body>| async {
            Ok::<Response<Body>, Status>(Status::unavailable("this node serves no workers yet").into_http())
        };
        Line::new(tower::service_fn(refuse))
    }

    fn there(&self, _node: NodeId, _term: GatewayTerm) -> Line {
        self.here()
    }
}
