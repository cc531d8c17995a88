//! Tidy: what a compiler cannot check and a reviewer should not have to.
//!
//! Reads every source file of the workspace as text and checks headers, arrows between modules, banned words and lengths.
//! Invariants: every check has a test that shows it a bad snippet; every message says what is wrong and what to do.
//! Does not: parse Rust. Comments and literals are blanked, and words are compared.

mod arrows;
mod shape;
mod source;
mod words;

use source::{Source, workspace};

fn assert_clean(findings: &[String]) {
    assert!(findings.is_empty(), "{} finding(s):\n{}", findings.len(), findings.join("\n"));
}

/// Findings in one made-up file.
fn findings_in(path: &str, text: &str, check: fn(&[Source]) -> Vec<String>) -> Vec<String> {
    check(&[Source::new(path, text)])
}

#[test]
fn the_workspace_was_found() {
    let sources = workspace();
    for known in ["core/src/lib.rs", "node/src/main.rs", "testnet/src/lib.rs", "tests/tidy/main.rs"] {
        assert!(sources.iter().any(|source| source.path == known), "{known} is missing");
    }
}

#[test]
fn every_file_opens_with_its_header() {
    assert_clean(&shape::headers(&workspace()));
}

#[test]
fn files_stay_short() {
    assert_clean(&shape::lengths(&workspace()));
}

#[test]
fn modules_use_only_what_they_may() {
    assert_clean(&arrows::check(&workspace()));
}

#[test]
fn core_is_pure() {
    assert_clean(&words::purity(&workspace()));
}

#[test]
fn no_unfinished_work_is_merged() {
    assert_clean(&words::unfinished(&workspace()));
}

#[test]
fn tests_wait_for_conditions() {
    assert_clean(&words::sleeps(&workspace()));
}
