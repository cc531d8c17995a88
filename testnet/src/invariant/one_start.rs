//! 10: without faults, a task starts once, and again only after a failure of its own that it may retry (DESIGN section 1).

use starling_core::ids::JobId;

use super::Violation;

/// Looks at the starts of one task that nothing explains.
pub(crate) fn look(job: JobId, task: u32, extra: u32) -> Option<Violation> {
    (extra > 0).then(|| {
        Violation::new(10, format!("task {task} of {job:?} started {extra} times too often, without any fault"))
    })
}
