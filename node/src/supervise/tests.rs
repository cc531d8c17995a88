//! Keepers and supervisors, the latter as threads.
