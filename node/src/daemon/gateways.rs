//! The gateway as the edge needs it: in this process, or through a tunnel to another node.
//!
//! Invariants: a tunnel is accepted, and each call in it served, only under the term under which this node is the gateway.
//! Does not: know workers (`hwp::gateway` does) or who is let in (`hwp::edge` does).
