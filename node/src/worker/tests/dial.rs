//! Calls both ways.
