//! 16: bytes that were not signed as they are get refused, honest ones get in; panics end a run by themselves, and 4 and 6 see to equal frontiers (DESIGN L4).

use starling_core::event::BatchError;

use super::Violation;

/// Looks at what became of batch bytes of which the checker knows whether they are as signed.
pub(crate) fn look(refused: Option<&BatchError>, intact: bool) -> Option<Violation> {
    match (refused, intact) {
        (Some(error), true) => Some(Violation::new(16, format!("a well signed batch was refused: {error}"))),
        (None, false) => Some(Violation::new(16, "a damaged batch was accepted".into())),
        (Some(_), false) | (None, true) => None,
    }
}

/// Looks at what became of random bytes.
pub(crate) fn garbage(accepted: bool) -> Option<Violation> {
    accepted.then(|| Violation::new(16, "random bytes were accepted as a batch".into()))
}
