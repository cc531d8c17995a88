//! Standard input, output and error; the cap; grandchildren that hold a pipe.
//!
//! Invariants: sizes are chosen above a pipe's 64 KiB, so a wrong order of reads and writes would deadlock.
//! Does not: check how tasks end, beyond exit 0.

use bytes::Bytes;

use super::*;

#[test]
fn a_megabyte_of_input_comes_back_through_cat() {
    let rig = Rig::new();
    let input: Vec<u8> = (0..1_u32 << 20).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut launch = rig.task(1, &["cat"]);
    launch.stdin = Some(Bytes::from(input.clone()));
    let ended = rig.run(launch);
    assert_eq!((ended.end, ended.lens), (End::Exit(0), (1 << 20, 0)));
    let (bytes, _) = output::read(&rig.prefix(1), Stream::Out, 0, usize::MAX).unwrap();
    assert!(bytes == input);
}

#[test]
fn input_that_nobody_reads_is_no_error_and_without_input_there_is_none() {
    let rig = Rig::new();
    let mut launch = rig.task(1, &["true"]);
    launch.stdin = Some(Bytes::from(vec![0; 1 << 20]));
    assert_eq!(rig.run(launch).end, End::Exit(0));
    assert_eq!(rig.run(rig.task(2, &["cat"])).end, End::Exit(0));
    let mut launch = rig.task(3, &["cat"]);
    launch.stdin = Some(Bytes::new());
    assert_eq!(rig.run(launch).end, End::Exit(0));
}

#[test]
fn both_streams_are_kept_apart_whatever_their_order_and_size() {
    let rig = Rig::new();
    let script =
        "for i in 1 2 3; do head -c 100000 /dev/zero | tr '\\0' e >&2; head -c 100000 /dev/zero | tr '\\0' o; done";
    let ended = rig.run(rig.sh(1, script));
    assert_eq!((ended.end, ended.lens, ended.dropped), (End::Exit(0), (300_000, 300_000), (0, 0)));
    assert_eq!(rig.text(1, Stream::Out), "o".repeat(300_000));
    assert_eq!(rig.text(1, Stream::Err), "e".repeat(300_000));
    rig.run(rig.sh(2, "echo out; echo err >&2; exit 7"));
    assert_eq!((rig.text(2, Stream::Out).as_str(), rig.text(2, Stream::Err).as_str()), ("out\n", "err\n"));
}

#[test]
fn silent_stream_has_no_file_and_reads_as_empty() {
    let rig = Rig::new();
    rig.run(rig.sh(1, "echo only-err >&2"));
    assert!(!exists(&output::path(&rig.prefix(1), Stream::Out)));
    assert_eq!(rig.text(1, Stream::Out), "");
    assert_eq!(rig.text(1, Stream::Err), "only-err\n");
}

#[test]
fn output_over_the_cap_keeps_the_beginning_and_says_what_is_missing() {
    let rig = Rig::new();
    let mut launch = rig.sh(1, "head -c 500000 /dev/zero | tr '\\0' x; printf 1234567890 >&2");
    launch.cap_bytes = 10;
    let ended = rig.run(launch);
    let text = "xxxxxxxxxx\n[starling: 499990 bytes dropped, cap is 10]\n";
    assert_eq!(rig.text(1, Stream::Out), text);
    assert_eq!(rig.text(1, Stream::Err), "1234567890");
    assert_eq!(ended.end, End::Exit(0));
    assert_eq!(ended.lens, (text.len() as u64, 10));
    assert_eq!(ended.dropped, (499_990, 0));
    let mut launch = rig.sh(2, "echo x");
    launch.cap_bytes = 0;
    rig.run(launch);
    assert_eq!(rig.text(2, Stream::Out), "[starling: 2 bytes dropped, cap is 0]\n");
}

#[test]
fn output_that_cannot_be_written_is_counted_and_the_task_goes_on() {
    let rig = Rig::new();
    let mut launch = rig.sh(1, "head -c 200000 /dev/zero; exit 3");
    launch.out = "/no/such/dir/prefix".into();
    let ended = rig.run(launch);
    assert_eq!((ended.end, ended.lens.0, ended.dropped.0), (End::Exit(3), 0, 200_000));
}

#[test]
fn output_is_readable_in_pieces_and_while_the_task_runs() {
    let rig = Rig::new();
    rig.executor.launch(rig.sh(1, "echo 0123456789; read line; echo end"));
    rig.started();
    rig.ended();
    let mut launch = rig.sh(2, "echo 0123456789; exec sleep 100");
    launch.stdin = Some(Bytes::new());
    rig.executor.launch(launch);
    rig.started();
    let prefix = rig.prefix(2);
    let read = |offset, max| output::read(&prefix, Stream::Out, offset, max).unwrap();
    rig.until("the first line", || read(0, 99).1 == 11);
    assert_eq!(read(3, 4), (Bytes::from_static(b"3456"), 11));
    assert_eq!(read(9, 99), (Bytes::from_static(b"9\n"), 11));
    assert_eq!(read(11, 99), (Bytes::new(), 11));
    assert_eq!(read(500, 99), (Bytes::new(), 11));
    rig.executor.kill(TaskKey { run: 2 }, Kill::Hard);
    assert_eq!(rig.ended().end, End::Signal(9));
}

#[test]
fn grandchild_that_holds_the_pipe_delays_the_end_by_a_moment_only() {
    let rig = Rig::new();
    let begin = Instant::now();
    let ended = rig.run(rig.sh(1, "sleep 100 & echo $!; exit 4"));
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(ended.end, End::Exit(4));
    let grandchild = rig.text(1, Stream::Out).trim().parse().unwrap();
    rig.until("the grandchild's death", || !lives(grandchild));
}

#[test]
fn what_a_grandchild_prints_right_after_the_exit_is_kept() {
    let rig = Rig::new();
    rig.run(rig.sh(1, "(sleep 0.01; echo late) & echo early"));
    assert_eq!(rig.text(1, Stream::Out), "early\nlate\n");
}

#[test]
fn grandchild_that_never_stops_printing_is_cut_off() {
    let rig = Rig::new();
    let mut launch = rig.sh(1, "yes & exit 0");
    launch.cap_bytes = 1000;
    let ended = rig.run(launch);
    assert_eq!(ended.end, End::Exit(0));
    assert!(rig.text(1, Stream::Out).starts_with("y\ny\n"));
}
