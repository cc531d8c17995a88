//! Starling's test networks: `sim`, thousands of Machines under virtual time and injected faults; and `invariant`, the rules that they must keep.

pub mod bench;
pub mod invariant;
pub mod local;
pub mod sim;

/// The worker protocol as it was published: messages and a client made of that very file, as others make theirs.
#[expect(unused_qualifications, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod published {
    tonic::include_proto!("hwp");
}
