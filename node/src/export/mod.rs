//! Logs as people carry and check them: the export file, a node's directory read from outside, what is wrong with either, and how two differ.
//!
//! Read in this order: `form` (the file), `dir` (the directory), `check` (is it sound?), `diff` (are they equal?).
//! Invariants: nothing here changes a file but the export that is written; memory is bounded whatever a file says; what is wrong is told with the file, the
//! place and what to do.
//! Does not: talk to a node (`cli` does) or print.

pub mod check;
pub mod diff;
pub mod dir;
pub mod form;
#[cfg(test)]
mod tests;

pub use check::{Fault, LogLine, Verdict};
