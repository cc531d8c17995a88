//! Tests of what needs no node: parsing, rendering, exit codes.
//!
//! Invariants: every example of the help texts parses.
//! Does not: open a socket; the end-to-end tests do.

mod gateway;
mod monitor;
mod sim;

use std::collections::BTreeMap;

use clap::{CommandFactory as _, Parser as _};
use prost::Message as _;
use starling_proto::v1::{
    Ending, ErrorDetail, FieldViolation, IndexRange, JobState, JobSummary, SubmitRequest, TaskCounts, View,
};
use tonic::{Code, Status};

use super::args::{Cli, Stream, SubmitArgs, Verb};
use super::connect::Target;
use super::error::{CliError, job_exit_code};
use super::table::{Block, Cell, Colour, Flush, Table, Tone};
use super::units::{ArraySpec, CpusMilli, MemBytes, Millis};
use super::{Parsed, jobs, output, parse, submit, units};

fn verb(line: &str) -> Verb {
    Cli::try_parse_from(line.split(' ')).unwrap().verb
}

fn usage_code(line: &str) -> i32 {
    Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code()
}

fn array(text: &str) -> Result<Vec<(u32, u32)>, String> {
    text.parse::<ArraySpec>().map(|spec| spec.0)
}

#[test]
fn command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn array_specs_merge_into_ascending_ranges() {
    assert_eq!(array("1-10"), Ok(vec![(1, 10)]));
    assert_eq!(array("0-9,20"), Ok(vec![(0, 9), (20, 20)]));
    assert_eq!(array("20, 5-9,0-5"), Ok(vec![(0, 9), (20, 20)]));
    assert_eq!(array("0-4,5-9"), Ok(vec![(0, 9)]));
    assert_eq!(array("0-100:50"), Ok(vec![(0, 0), (50, 50), (100, 100)]));
    assert_eq!(array("7"), Ok(vec![(7, 7)]));
    assert_eq!(array("0-4294967295"), Ok(vec![(0, u32::MAX)]));
    assert_eq!(array("4294967295,0-4294967295"), Ok(vec![(0, u32::MAX)]));
}

#[test]
fn wrong_array_specs_say_what_is_wrong() {
    for (text, part) in [
        ("", "expected indices"),
        ("a", "expected indices"),
        ("1-", "expected indices"),
        ("-5", "expected indices"),
        ("1,,2", "expected indices"),
        ("9-1", "ends before it starts"),
        ("0-9:0", "is 0"),
        ("4294967296", "expected indices"),
        ("0-4000000000:2", "more than 1000"),
    ] {
        let error = array(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn quantities_parse_with_their_units() {
    let mem = |text: &str| text.parse::<MemBytes>().ok().map(|mem| mem.0);
    assert_eq!(mem("2G"), Some(2 << 30));
    assert_eq!(mem("1.5g"), Some(3 << 29));
    assert_eq!(mem("512MiB"), Some(512 << 20));
    assert_eq!(mem("100B"), Some(100));
    assert_eq!(mem("0"), Some(0));
    for text in ["512", "", "G", "2X", "-1G", "2 G", "99999999999T", "1e3M"] {
        assert_eq!(mem(text), None, "{text}");
    }
    let cpus = |text: &str| text.parse::<CpusMilli>().ok().map(|cpus| cpus.0);
    assert_eq!(cpus("1"), Some(1_000));
    assert_eq!(cpus("0.5"), Some(500));
    assert_eq!(cpus(".25"), Some(250));
    for text in ["", ".", "0.0001", "-1", "1/2", "5000000"] {
        assert_eq!(cpus(text), None, "{text}");
    }
    let time = |text: &str| text.parse::<Millis>().ok().map(|time| time.0);
    assert_eq!(time("90"), Some(90_000));
    assert_eq!(time("500ms"), Some(500));
    assert_eq!(time("1h30m"), Some(5_400_000));
    assert_eq!(time("1.5s"), Some(1_500));
    assert_eq!(time("2d"), Some(172_800_000));
    for text in ["", "s", "5x", "-5s", "1:30", "99999999999999999d"] {
        assert_eq!(time(text), None, "{text}");
    }
}

#[test]
fn env_takes_a_value_or_the_callers() {
    let entry = units::parse_env("A=b=c").unwrap();
    assert_eq!((entry.key.as_str(), entry.value.as_str()), ("A", "b=c"));
    assert_eq!(units::parse_env("EMPTY=").unwrap().value, "");
    assert_eq!(units::parse_env("PATH").unwrap().value, std::env::var("PATH").unwrap());
    assert!(units::parse_env("=x").is_err());
    assert!(units::parse_env("STARLING_SURELY_UNSET").unwrap_err().contains("KEY=VALUE"));
}

#[test]
fn quantities_render_without_spaces() {
    let durations = [0, 4, 1_400, 12_000, 80_000, 7_500_000, 273_600_000].map(units::duration);
    assert_eq!(durations.join(" "), "0s 4ms 1.4s 12s 1m20s 2h05m 3d04h");
    let sizes = [0, 900, 1_536, 512 << 20, 64 << 30, u64::MAX].map(units::size);
    assert_eq!(sizes.join(" "), "0 900B 1.5K 512M 64G 15E");
    assert_eq!([1_000, 500, 2_250].map(units::cpus).join(" "), "1 0.5 2.25");
    assert_eq!(units::count(1_234_567), "1,234,567");
    assert_eq!(units::time(0), "-");
    assert_eq!(units::time(951_782_400_123), "2000-02-29T00:00:00.123Z");
    assert_eq!(units::time(1_795_692_621_304), "2026-11-26T11:30:21.304Z");
    let ranges: Vec<IndexRange> = (0..8).map(|n| IndexRange { start: n * 5, end: n * 5 }).collect();
    assert_eq!(units::tasks(&ranges), "0,5,10,15,20,25,…");
}

#[test]
fn unknown_flag_verb_or_value_is_a_usage_error() {
    for line in [
        "starling submit --bogus true",
        "starling submit",
        "starling bogus",
        "starling jobs --state nosuch",
        "starling submit -a 1-2 --each-line f true",
        "starling submit -m 512 true",
        "starling wait",
        "starling run --each-line f true",
        "starling up --listen nonsense",
        "starling submit --ns render -f command=x -- true",
        "starling submit --ns render -f command",
        "starling submit --ns render -C /tmp",
        "starling submit -f command=x true",
        "starling ns put",
        "starling ns get render --version 0",
    ] {
        assert_eq!(usage_code(line), 2, "{line}");
    }
    assert_eq!(usage_code("starling --help"), 0);
    assert_eq!(usage_code("starling --version"), 0);
}

#[test]
fn each_stream_of_a_simulation_can_be_asked_for() {
    for (word, stream) in
        [("out", Stream::Out), ("err", Stream::Err), ("env-out", Stream::EnvOut), ("env_err", Stream::EnvErr)]
    {
        let Verb::Logs(args) = verb(&format!("starling logs wren-1 --stream {word}")) else { panic!("{word}") };
        assert_eq!(args.stream, Some(stream));
    }
    assert_eq!(usage_code("starling logs wren-1 --stream env"), 2);
}

#[test]
fn flags_after_the_program_belong_to_it() {
    let Verb::Submit(args) = verb("starling submit --wait -n nap sleep -n 5 --json") else {
        panic!("not a submit");
    };
    assert!(args.many.wait);
    assert_eq!(args.task.demand.name.as_deref(), Some("nap"));
    assert_eq!(args.task.command, ["sleep", "-n", "5", "--json"]);
    let Verb::Run(args) = verb("starling run -- --strange x") else { panic!("not a run") };
    assert_eq!(args.task.command, ["--strange", "x"]);
}

#[test]
fn local_verbs_are_handed_back() {
    let parsed = |line: &str| parse(line.split(' ')).unwrap();
    let Parsed::Up(up) = parsed("starling up --name wren --join a:1 --join b:2 --cpus 2") else {
        panic!("not up");
    };
    assert_eq!((up.name.as_deref(), up.join.len(), up.cpus), (Some("wren"), 2, Some(CpusMilli(2_000))));
    assert!(matches!(parsed("starling cluster init --force"), Parsed::ClusterInit(init) if init.force));
    assert!(matches!(parsed("starling config show --no-mdns"), Parsed::ConfigShow(up) if up.no_mdns));
    assert!(matches!(parsed("starling jobs -s running,done"), Parsed::Client(_)));
}

fn request_of(args: SubmitArgs) -> Result<SubmitRequest, CliError> {
    submit::multiply(submit::request_of(args.task, &args.many)?, args.many)
}

#[test]
fn submit_becomes_a_request() {
    let Verb::Submit(args) = verb(
        "starling submit -a 1-3,9 -c 0.5 -m 1G -e A=b -C /tmp --priority -5 --retries 2 \
         --timeout 5m --node wren --ack local -- echo hi",
    ) else {
        panic!("not a submit");
    };
    let request = request_of(args).unwrap();
    assert_eq!(request.command, ["echo", "hi"]);
    assert_eq!(request.array, [IndexRange { start: 1, end: 3 }, IndexRange { start: 9, end: 9 }]);
    assert_eq!((request.cpus_milli, request.mem_bytes), (Some(500), 1 << 30));
    assert_eq!(request.env, BTreeMap::from([("A".to_owned(), "b".to_owned())]));
    assert_eq!((request.cwd.as_str(), request.priority, request.retries), ("/tmp", -5, 2));
    assert_eq!((request.timeout_ms, request.node.as_str()), (300_000, "wren"));
    assert_eq!(request.request_id.len(), 16);
}

#[test]
fn a_namespaces_fields_stand_in_for_a_command() {
    let line = "starling submit --ns render -f frames=3 -f look.sky=a=b --alias film-1 -n film -a 0-9";
    let Verb::Submit(args) = verb(line) else { panic!("not a submit") };
    let request = request_of(args).unwrap();
    assert_eq!(request.fields, ["frames=3", "look.sky=a=b"]);
    assert_eq!((request.ns.as_str(), request.alias.as_str(), request.name.as_str()), ("render", "film-1", "film"));
    assert!(request.command.is_empty() && request.cwd.is_empty());
    assert_eq!(request.array, [IndexRange { start: 0, end: 9 }]);
    let Verb::Run(args) = verb("starling run --ns render -f frames=3") else { panic!("not a run") };
    assert_eq!(submit::task_request(args.task).unwrap().fields, ["frames=3"]);
}

#[test]
fn lines_are_for_commands() {
    let Verb::Submit(args) = verb("starling submit --ns render --each-line f") else { panic!("not a submit") };
    let error = request_of(args).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error:?}");
}

#[test]
fn lines_of_a_file_become_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let entries = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let line = format!("starling submit --each-line {} true", path.display());
        let Verb::Submit(args) = verb(&line) else { panic!("not a submit") };
        request_of(args).map(|request| request.each_line).map_err(|error| error.to_string())
    };
    assert_eq!(entries(b"a b\n\nc").unwrap(), ["a b", "", "c"]);
    assert_eq!(entries(b"a\n").unwrap(), ["a"]);
    assert!(entries(b"a\n\xff\n").unwrap_err().contains("line 2"));
    assert!(entries(b"").unwrap_err().contains("holds no line"));
    let Verb::Submit(args) = verb("starling submit --ns probe --each-line f") else { panic!("not a submit") };
    assert_eq!(request_of(args).unwrap_err().exit_code(), 2);
}

#[test]
fn via_selects_by_number_name_path_or_address() {
    let target = |via| Target::parse(Some(via));
    assert_eq!(Target::parse(None), Target::AnyLocal);
    assert_eq!(target(""), Target::AnyLocal);
    assert_eq!(target("2"), Target::Number(2));
    assert_eq!(target("wren"), Target::Name("wren".into()));
    assert_eq!(target("./api.sock"), Target::Socket("./api.sock".into()));
    assert_eq!(target("[::1]:7401"), Target::Tcp("[::1]:7401".into()));
    assert_eq!(target("http://10.0.0.1:7401/"), Target::Tcp("10.0.0.1:7401".into()));
}

fn job(state: JobState, ending: Ending, exit: Option<i32>) -> JobSummary {
    JobSummary { state: state.into(), ending: ending.into(), exit, ..JobSummary::default() }
}

#[test]
fn exit_code_follows_the_jobs_end() {
    for (state, ending, exit, code) in [
        (JobState::Done, Ending::Exited, Some(0), 0),
        (JobState::Failed, Ending::Exited, Some(7), 7),
        (JobState::Failed, Ending::Signalled, Some(137), 137),
        (JobState::Failed, Ending::NotStarted, Some(127), 127),
        (JobState::Failed, Ending::Exited, None, 1),
        (JobState::Failed, Ending::Exited, Some(0), 1),
        (JobState::Failed, Ending::Exited, Some(-1), 255),
        (JobState::Failed, Ending::TimedOut, Some(143), 124),
        (JobState::Cancelled, Ending::Cancelled, Some(143), 125),
        (JobState::Lost, Ending::Lost, None, 75),
        (JobState::Failed, Ending::Lost, None, 75),
    ] {
        assert_eq!(job_exit_code(&job(state, ending, exit)), code, "{state:?} {ending:?} {exit:?}");
    }
}

#[test]
fn refusals_name_the_field_and_what_to_do() {
    let detail = ErrorDetail {
        hint: "ask for less".into(),
        violations: vec![FieldViolation {
            field: "mem_bytes".into(),
            expected: "at most 1T".into(),
            got: "9T".into(),
            ..FieldViolation::default()
        }],
    };
    let status = Status::with_details(Code::InvalidArgument, "bad request", detail.encode_to_vec().into());
    let error = CliError::from(status);
    assert_eq!(error.to_string(), "bad request\n  mem_bytes: expected at most 1T, got 9T");
    assert_eq!((error.hint().as_str(), error.exit_code()), ("ask for less", 2));
    assert_eq!(CliError::from(Status::not_found("no job x")).exit_code(), 1);
    assert!(CliError::from(Status::not_found("no job x")).hint().contains("starling jobs"));
    assert_eq!(CliError::from(Status::unavailable("starting")).exit_code(), 69);
    assert!(CliError::from(Status::unavailable("starting")).is_link_loss());
    assert!(!CliError::from(Status::internal("bug")).is_link_loss());
}

#[test]
fn footer_says_by_whom_and_how_fresh() {
    let mut view =
        View { seen_by: "wren".into(), as_of_unix_ms: 1_000, live_nodes: 3, roster_nodes: 3, lag_note: String::new() };
    assert_eq!(output::footer_text(&view, 1_210), "as seen by wren, 3 of 3 nodes live, 0.2 s ago");
    view.live_nodes = 1;
    view.lag_note = "cut off".into();
    assert_eq!(output::footer_text(&view, 91_000), "as seen by wren, 1 of 3 nodes live, 1m30s ago; cut off");
}

#[test]
fn jobs_table_reads_like_slurms() {
    let running = JobSummary {
        id: "wren-12".into(),
        name: "sweep".into(),
        tasks: 10,
        counts: Some(TaskCounts { done: 3, running: 7, ..TaskCounts::default() }),
        nodes: ["wren", "robin", "magpie", "finch"].map(String::from).to_vec(),
        elapsed_ms: 80_000,
        ..job(JobState::Running, Ending::Exited, Some(0))
    };
    let pending = JobSummary {
        id: "robin-3".into(),
        name: "big\u{1b}[2J".into(),
        tasks: 1,
        reason: "no node has 64G".into(),
        ..job(JobState::Pending, Ending::None, None)
    };
    expect_test::expect![[r#"
        JOBID    NAME     STATE    TASKS  EXIT  ELAPSED  NODES(REASON)
        wren-12  sweep    RUNNING   3/10     0    1m20s  wren,robin,magpie+1
        robin-3  big?[2J  PENDING    0/1     -       0s  (no node has 64G)
    "#]]
    .assert_eq(&jobs::jobs_table(&[running, pending]).render(Colour::Off));
}

#[test]
fn colour_surrounds_text_and_never_padding() {
    let mut table = Table::new(&[("A", Flush::Right), ("B", Flush::Left)]);
    table.push(vec![Cell::new("é", Tone::Good), Cell::plain("")]);
    table.push(vec![Cell::plain("long"), Cell::new("x", Tone::Bad)]);
    assert_eq!(table.render(Colour::Off), "   A  B\n   é  -\nlong  x\n");
    assert_eq!(
        table.render(Colour::On),
        "   \u{1b}[1mA\u{1b}[0m  \u{1b}[1mB\u{1b}[0m\n   \u{1b}[32mé\u{1b}[0m  -\n\
         long  \u{1b}[31mx\u{1b}[0m\n"
    );
    let mut block = Block::default();
    block.add("job", "wren-1").add("reason", "").add("name", "a\nb");
    assert_eq!(block.render(Colour::Off), "job:   wren-1\nname:  a?b\n");
}
