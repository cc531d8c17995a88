//! Tests of what nodes' readings look like.
//!
//! Invariants: tables stay within 100 columns. Does not: open a socket.

use starling_proto::v1::{DiskUsage, GpuUsage, JobUsage, NodeDetail, NodeLine, NodeSample, NodeState, NodeUsage, View};

use super::{usage_code, verb};
use crate::cli::args::{NodeVerb, Verb};
use crate::cli::node::{self, Window};
use crate::cli::table::Colour;
use crate::cli::{nodes, top, units};

const WIDTH_MAX: usize = 100;

fn usage() -> NodeUsage {
    NodeUsage {
        read_unix_ms: 1_795_692_621_304,
        cpu_milli: 750,
        cpu_total_milli: 2_000,
        mem_used_bytes: 13 << 30,
        mem_total_bytes: 24 << 30,
        load_milli: 1_256,
        net_rx_bytes_per_s: 1_536,
        net_tx_bytes_per_s: 3 << 20,
        disks: vec![
            DiskUsage { mount: "/".into(), used_bytes: 8 << 30, total_bytes: 20 << 30 },
            DiskUsage { mount: "/data".into(), used_bytes: 1 << 40, total_bytes: 2 << 40 },
        ],
        gpus: Vec::new(),
    }
}

fn wren() -> NodeLine {
    NodeLine {
        name: "wren".into(),
        id: "ab".repeat(32),
        state: NodeState::Ready.into(),
        version: "0.1.0".into(),
        addresses: vec!["127.0.0.1:7400".into()],
        cpus_milli: 2_000,
        cpus_free_milli: 500,
        mem_bytes: 24 << 30,
        mem_free_bytes: 13 << 30,
        running: 2,
        answering: true,
        usage: Some(usage()),
        jobs: vec![JobUsage {
            job: "robin-12".into(),
            name: "sweep\u{1b}[2J".into(),
            tasks: 2,
            cpu_milli: 1_990,
            cpu_ms: 80_000,
            rss_bytes: 300 << 20,
        }],
        ..NodeLine::default()
    }
}

fn others() -> [NodeLine; 2] {
    let down = NodeLine {
        name: "robin".into(),
        state: NodeState::Down.into(),
        silent_ms: 12_000,
        answering: false,
        note: "silent".into(),
        ..wren()
    };
    let mute = NodeLine {
        name: "sandpiper-2".into(),
        state: NodeState::Suspect.into(),
        silent_ms: 3_400,
        answering: false,
        usage: None,
        jobs: Vec::new(),
        ..wren()
    };
    [down, mute]
}

fn assert_narrow(text: &str) {
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH_MAX), "{text}");
}

#[test]
fn nodes_table_shows_readings_of_those_who_speak() {
    let [down, mute] = others();
    let text = nodes::nodes_table(&[wren(), down, mute], nodes::Labels::Left).render(Colour::Off);
    expect_test::expect![[r#"
        NODE         STATE    CPUS(FREE)  MEM(FREE)  TASKS  CPU%  MEM%  LOAD  HEARD  ADDRESS(NOTE)
        wren         READY        2(0.5)   24G(13G)      2    38    54  1.25   here  127.0.0.1:7400
        robin        DOWN         2(0.5)   24G(13G)      2     -     -     -    12s  127.0.0.1:7400 (silent)
        sandpiper-2  SUSPECT      2(0.5)   24G(13G)      2     -     -     -   3.4s  127.0.0.1:7400
    "#]]
    .assert_eq(&text);
    assert_narrow(&text);
}

#[test]
fn wide_nodes_table_has_labels_and_the_gateway_is_marked() {
    let labels = vec!["docker".into(), "gpu=2".into()];
    let robin = NodeLine { name: "robin".into(), gateway: true, labels, ..wren() };
    let text = nodes::nodes_table(&[robin, wren()], nodes::Labels::Shown).render(Colour::Off);
    expect_test::expect![[r#"
        NODE   STATE  CPUS(FREE)  MEM(FREE)  TASKS  CPU%  MEM%  LOAD  HEARD  ADDRESS(NOTE)             LABELS
        robin  READY      2(0.5)   24G(13G)      2    38    54  1.25   here  127.0.0.1:7400 (gateway)  docker,gpu=2
        wren   READY      2(0.5)   24G(13G)      2    38    54  1.25   here  127.0.0.1:7400            -
    "#]]
    .assert_eq(&text);
}

#[test]
fn top_page_has_bars_and_jobs_of_nodes_that_speak() {
    let [down, mute] = others();
    let mut full = NodeLine { name: "magpie".into(), answering: false, jobs: Vec::new(), ..wren() };
    full.usage = Some(NodeUsage {
        cpu_milli: 1_999,
        gpus: vec![
            GpuUsage { name: "A100".into(), used_milli: 900, mem_used_bytes: 1 << 30, mem_total_bytes: 40 << 30 },
            GpuUsage { used_milli: 300, ..GpuUsage::default() },
        ],
        ..usage()
    });
    let text = top::text(&[full, down, mute, wren()], Colour::Off);
    expect_test::expect![[r#"
        2 of 4 nodes  cpu 69% of 4  mem 54% of 48G  tasks 6

        NODE         STATE    CPU              MEM              LOAD  IN/S  OUT/S  TASKS  GPU
        magpie       READY    [########] 100%  [####----]  54%  1.25  1.5K     3M      2  [#####---]  60%
        robin        DOWN     -                -                   -     -      -      2  -
        sandpiper-2  SUSPECT  -                -                   -     -      -      2  -
        wren         READY    [###-----]  38%  [####----]  54%  1.25  1.5K     3M      2  -

        NODE  JOBID     NAME       TASKS  CPUS  CPUTIME   RSS
        wren  robin-12  sweep?[2J      2  1.99    1m20s  300M
    "#]]
    .assert_eq(&text);
    assert_narrow(&text);
    let idle = NodeLine { jobs: Vec::new(), ..wren() };
    assert!(top::text(&[idle], Colour::Off).ends_with("\nnothing is running\n"));
    assert!(top::text(&[], Colour::Off).starts_with("0 of 0 nodes  cpu - of 0  mem - of 0  tasks 0\n"));
}

#[test]
fn node_page_shows_everything_and_the_past() {
    let sample = |number: u32| NodeSample {
        at_unix_ms: 1_000_000 + u64::from(number) * 5_000,
        cpu_milli: number * 200,
        load_milli: number * 100,
        mem_used_bytes: 12 << 30,
        disk_used_bytes: 8 << 30,
        net_rx_bytes_per_s: u64::from(number % 2) << 10,
        net_tx_bytes_per_s: 0,
        gpu_milli: 0,
    };
    let view = View { as_of_unix_ms: 1_060_000, ..View::default() };
    let detail = NodeDetail { node: Some(wren()), history: (2..=10).map(sample).collect(), view: Some(view.clone()) };
    let text = node::text(&detail, 60_000, Colour::Off);
    expect_test::expect![[r#"
        node:       wren
        id:         abababababababababababababababababababababababababababababababab
        state:      READY
        heard:      here
        version:    0.1.0
        addresses:  127.0.0.1:7400
        gateway:    never
        cpus:       2 offered, 0.5 free
        mem:        24G offered, 13G free
        tasks:      2
        read:       2026-11-26T11:30:21.304Z
        cpu:        38% of 2 cpus
        load:       1.25
        memory:     54%, 13G of 24G
        network:    1.5K/s in, 3M/s out
        disk:       / 40%, 8G of 20G
        disk:       /data 50%, 1T of 2T

        JOBID     NAME       TASKS  CPUS  CPUTIME   RSS
        robin-12  sweep?[2J      2  1.99    1m20s  300M

        last 1m00s, 9 readings
        cpu:        ▂▃▄▅▅▆▇██   20% to 100%
        load:       ▂▃▄▅▅▆▇██   0.20 to 1.00
        memory:     ▅▅▅▅▅▅▅▅▅   12G to 12G
        net in:     ▁█▁█▁█▁█▁   0/s to 1K/s
        net out:    ▁▁▁▁▁▁▁▁▁   0/s to 0/s
        disk:       ▄▄▄▄▄▄▄▄▄   8G to 8G
    "#]]
    .assert_eq(&text);
    assert_narrow(&text);
    let [down, _] = others();
    let detail = NodeDetail { node: Some(down), history: Vec::new(), view: Some(view) };
    let text = node::text(&detail, 0, Colour::Off);
    assert!(text.contains("no reading of it") && !text.contains("last "), "{text}");
}

#[test]
fn curve_leaves_gaps_and_is_as_wide_as_its_time() {
    let window = Window { until_unix_ms: 100_000, since_ms: 50_000 };
    let curve = |values: &[(u64, u64)], full| window.curve(values, full);
    assert_eq!(curve(&[(50_000, 0), (55_000, 50), (60_000, 100), (99_999, 100)], 100), "▁▅█      █");
    assert_eq!(curve(&[(51_000, 0), (52_000, 100)], 100), "▅         ");
    assert_eq!(curve(&[(0, 100), (200_000, u64::MAX)], 0), "█        █");
    assert_eq!(Window { until_unix_ms: 0, since_ms: 3_600_000 }.curve(&[], 1).chars().count(), 60);
    assert_eq!(Window { until_unix_ms: 0, since_ms: 1 }.curve(&[(0, 1)], 1), "█");
}

#[test]
fn monitoring_verbs_parse() {
    let Verb::Node(NodeVerb::Info(args)) = verb("starling node info wren --since 1h --watch") else {
        panic!("not node info");
    };
    assert_eq!((args.node.as_deref(), args.since.0, args.watch), (Some("wren"), 3_600_000, true));
    let Verb::Node(NodeVerb::Info(args)) = verb("starling node info") else { panic!("not node info") };
    assert_eq!((args.node, args.since.0), (None, 600_000));
    assert!(matches!(verb("starling top --once"), Verb::Top(args) if args.once));
    for line in ["starling node info --since 2h", "starling node info --since soon", "starling node"] {
        assert_eq!(usage_code(line), 2, "{line}");
    }
    assert_eq!([0, 1_256, 10_000].map(units::hundredths).join(" "), "0.00 1.25 10.00");
    assert_eq!((units::percent(1, 0), units::percent(2, 3), units::percent(u64::MAX, 1)), (None, Some(67), None));
}
