//! Starling's test networks: `sim`, thousands of Machines under virtual time and injected faults; `invariant`, the rules that they must keep; and
//! `local`, `chaos` and `bench`, real processes.

pub mod bench;
pub mod chaos;
pub mod invariant;
pub mod local;
pub mod sim;

/// The worker protocol as it was published: messages and a client made of that very file, as others make theirs.
#[expect(unused_qualifications, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod published {
    tonic::include_proto!("hwp");
}
