//! The election by itself: views in, steps out.
//!
//! Invariants: none. Does not: test presence or the log (`machine::tests` does).
