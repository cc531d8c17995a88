//! The labels under which a worker registers.
//!
//! Invariants: those given come first; no label is there twice.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The given ones, and what this worker and its machine are.
pub(super) fn all(given: Vec<String>, slots: usize) -> Vec<String> {
    let mut labels = Vec::new();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut found = vec![
        std::env::consts::OS.to_owned(),
        std::env::consts::ARCH.to_owned(),
        format!("slots={slots}"),
        "starling".to_owned(),
        // Who asks for more slots than there are cores means that each takes a task of one core.
        format!("cpu={}", cpus.max(slots)),
    ];
    found.extend(memory_bytes().map(|bytes| format!("memory={bytes}")));
    for label in given.into_iter().chain(found) {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels
}

/// All memory of the machine; `None` if the system does not say.
fn memory_bytes() -> Option<u64> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    System::new_with_specifics(kind).ok().map(|system| system.total_memory()).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_what_the_machine_is_and_stand_there_once() {
        let labels = all(vec!["gpu=2".to_owned(), "linux".to_owned()], 3);
        assert_eq!(labels[..2], ["gpu=2", "linux"]);
        assert_eq!(labels.iter().filter(|label| *label == "linux").count(), 1);
        let crowded = all(Vec::new(), 5_000);
        assert!(crowded.contains(&"cpu=5000".to_owned()), "{crowded:?}");
        for start in ["slots=3", "starling", "cpu=", "memory="] {
            assert!(labels.iter().any(|label| label.starts_with(start)), "{start}: {labels:?}");
        }
    }
}
