//! Tests of readings: what other programs and the kernel say, the spec's form, the past.
//!
//! Invariants: none. Does not: check the machine's own figures beyond their being there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use starling_core::event::{Value, WorkSpec};
use starling_core::ids::{Epoch, JobNo, NodeId};
use starling_core::namespace::monitor::{self, DISKS_MAX, GPUS_MAX, JOBS_MAX};
use starling_core::namespace::{Namespace as _, Registry};
use starling_core::time::{Hlc, Mono};
use starling_testnet::local::until;

use super::gpu::{self, Gpus};
use super::groups::{Groups, Used};
use super::pace::Pace;
use super::procfs::{self, Process, Traffic};
use super::{Disk, Gpu, History, JobKey, JobUse, NODES_MAX, RING_MAX, Reading, Sampler, TaskGroup};

const DEADLINE: Duration = Duration::from_secs(30);

fn job_key(no: u64) -> JobKey {
    JobKey { owner: 0x0102_0304_0506_0708, epoch: Epoch(3), no: JobNo(no) }
}

fn job_use(no: u64) -> JobUse {
    JobUse { job: job_key(no), tasks: 2, cpu_milli: 1_990, cpu_ms: 12_340, rss_bytes: 5 << 20 }
}

fn reading(read_unix_ms: u64) -> Reading {
    Reading {
        read_unix_ms,
        cpu_milli: 1_500,
        cpu_total_milli: 2_000,
        mem_used_bytes: 3 << 30,
        mem_total_bytes: 8 << 30,
        load_milli: 1_250,
        disk_free_bytes: 6 << 30,
        net_rx_bytes_per_s: 1_000,
        net_tx_bytes_per_s: 2_000,
        disks: vec![
            Disk { mount: "/".into(), used_bytes: 1 << 30, total_bytes: 9 << 30 },
            Disk { mount: "/mnt/my data".into(), used_bytes: 5, total_bytes: 10 },
        ],
        gpus: vec![Gpu {
            name: "NVIDIA A100-SXM4-40GB".into(),
            used_milli: 870,
            mem_used_bytes: 30 << 30,
            mem_total_bytes: 40 << 30,
        }],
        jobs: vec![job_use(1), job_use(2)],
    }
}

#[test]
fn a_reading_survives_its_spec() {
    let before = reading(1_795_692_621_304);
    let spec = before.to_spec();
    let registry = Registry::built_in();
    registry.namespace(monitor::NAME).unwrap().spec().validate(&spec).unwrap();
    assert_eq!(Reading::from_spec(&spec), before);
}

#[test]
fn a_full_reading_is_cut_to_the_bounds_and_stays_small() {
    let repeat = |count: usize| (1..=count as u64 + 5).map(job_use).collect::<Vec<_>>();
    let mut full = reading(1_795_692_621_304);
    full.disks = vec![Disk { mount: "/long".repeat(50), used_bytes: 1 << 40, total_bytes: 1 << 41 }; DISKS_MAX + 1];
    full.gpus = vec![full.gpus[0].clone(); GPUS_MAX + 1];
    full.jobs = repeat(JOBS_MAX);
    let spec = full.to_spec();
    monitor::Monitor::default().spec().validate(&spec).unwrap();
    let read = Reading::from_spec(&spec);
    assert_eq!((read.disks.len(), read.gpus.len(), read.jobs.len()), (DISKS_MAX, GPUS_MAX, JOBS_MAX));
    let size = |spec: &WorkSpec| monitor::hardware_stats(Hlc { wall_ms: 0, count: 0 }, spec.clone()).to_bytes().len();
    assert!(size(&spec) < 4 << 10, "{}", size(&spec));
    assert!(size(&reading(1).to_spec()) < 1 << 10, "{}", size(&reading(1).to_spec()));
}

#[test]
fn nonsense_from_elsewhere_is_left_out() {
    let texts = |all: &[&str]| Value::List(all.iter().map(|text| Value::text(*text)).collect());
    let spec = WorkSpec::new()
        .with("cpu_milli", Value::Int(-1))
        .with("load_milli", Value::text("high"))
        .with("disks", texts(&["", "1", "1 2", "x 2 /", "1 2 /ok"]))
        .with("gpus", texts(&["1 2 3", "99999999999999999999 2 3 big", "1 2 3 ok"]))
        .with("jobs", texts(&["1.2.3", "z.1.1 1 1 1 1", "1.1 1 1 1 1", "a.1.7 1 2 3", "a.1.7 1 2 3 4"]));
    let read = Reading::from_spec(&spec);
    assert_eq!((read.cpu_milli, read.load_milli), (0, 0));
    assert_eq!(read.disks, [Disk { mount: "/ok".into(), used_bytes: 1, total_bytes: 2 }]);
    assert_eq!(read.gpus.len(), 1);
    assert_eq!(read.jobs.iter().map(|job| (job.job.owner, job.rss_bytes)).collect::<Vec<_>>(), [(10, 4)]);
    assert_eq!(Reading::from_spec(&WorkSpec::new()), Reading::default());
}

#[test]
fn a_stat_line_gives_group_time_and_memory() {
    let line = "4242 (a b) (c) S 1 4200 4200 0 -1 4194560 500 900 0 0 150 50 7 -3 20 0 4 0 8899 123456 2500 \
                18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0";
    assert_eq!(procfs::process(line), Some(Process { group: 4_200, cpu_ticks: 207, rss_pages: 2_500 }));
    for short in ["", "4242 (sh", "4242 (sh) S 1", "4242 (sh) S 1 x 4200 0 -1 0 0 0 0 0 1 1 1 1 20 0 4 0 8 1 2"] {
        assert_eq!(procfs::process(short), None, "{short}");
    }
}

#[test]
fn traffic_adds_up_all_interfaces_but_loopback() {
    let dev = "Inter-|   Receive                                                |  Transmit\n \
               face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
               lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n  \
               eth0: 1000 10 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n\
               wlan0:77 1 0 0 0 0 0 0 3 1 0 0 0 0 0 0\n broken: 5 6\n";
    assert_eq!(procfs::traffic(dev), Traffic { rx_bytes: 1_077, tx_bytes: 203 });
    assert_eq!(procfs::traffic(""), Traffic::default());
}

#[test]
fn gpu_lines_are_read_from_the_right() {
    let output = "NVIDIA A100-SXM4-40GB, 87, 30720, 40960\nOdd, Name, [N/A], 100, 200\n\nNo devices were found\n";
    let gpus = gpu::parse(output);
    assert_eq!(gpus.len(), 2);
    assert_eq!(gpus[0], reading(0).gpus[0]);
    assert_eq!((gpus[1].name.as_str(), gpus[1].used_milli, gpus[1].mem_total_bytes), ("Odd, Name", 0, 200 << 20));
    assert_eq!(gpu::parse(&"A, 1, 2, 3\n".repeat(40)).len(), GPUS_MAX);
}

/// A program in place of nvidia-smi.
fn program(dir: &tempfile::TempDir, script: &str) -> PathBuf {
    let path = dir.path().join("nvidia-smi");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn gpus_are_asked_with_a_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let answering = program(&dir, r#"[ "$2" = "--format=csv,noheader,nounits" ] && echo "A100, 50, 1, 2""#);
    let gpus = Gpus::asking(Some(&answering), DEADLINE).look();
    assert_eq!(gpus.iter().map(|gpu| gpu.used_milli).collect::<Vec<_>>(), [500]);
    let failing = program(&dir, "echo 'A100, 50, 1, 2'; exit 9");
    assert_eq!(Gpus::asking(Some(&failing), DEADLINE).look(), []);
    let hanging = program(&dir, "exec sleep 600");
    let begin = Instant::now();
    assert_eq!(Gpus::asking(Some(&hanging), Duration::from_millis(50)).look(), []);
    let mute = program(&dir, "exec >&-; exec sleep 600");
    assert_eq!(Gpus::asking(Some(&mute), Duration::from_millis(50)).look(), []);
    assert!(begin.elapsed() < DEADLINE);
    assert_eq!(Gpus::asking(Some(&dir.path().join("none")), DEADLINE).look(), []);
    assert_eq!(Gpus::asking(None, DEADLINE).look(), []);
}

#[test]
fn what_costs_much_is_looked_at_less_often() {
    let begin = Instant::now();
    let mut pace = Pace::default();
    assert!(pace.is_due(begin));
    let end = begin + Duration::from_millis(50);
    pace.took(begin, end);
    assert!(!pace.is_due(end + Duration::from_millis(9_900)));
    assert!(pace.is_due(end + Duration::from_secs(10)));
    pace.took(begin, begin + Duration::from_secs(2));
    assert!(pace.is_due(begin + Duration::from_secs(62)));
}

fn group(job: u64, run: u64, group: u32) -> TaskGroup {
    TaskGroup { job: job_key(job), run, group }
}

#[test]
fn tasks_of_one_job_are_added_up_and_the_largest_come_first() {
    let used = |cpu_ticks: u64, mib: u64| Used { cpu_ticks, rss_bytes: mib << 20 };
    // The last two are a pair.
    let running = [group(1, 1, 10), group(2, 2, 20), group(2, 3, 21), group(2, 3, 22)];
    let mut groups = Groups::default();
    let start = Instant::now();
    groups.fold(
        start,
        &running,
        &BTreeMap::from([(10, used(100, 1)), (20, used(200, 2)), (21, used(200, 2)), (22, used(100, 1))]),
    );
    let later = BTreeMap::from([(10, used(150, 1)), (20, used(700, 2)), (21, used(500, 3)), (22, used(300, 1))]);
    let uses = groups.fold(start + Duration::from_secs(5), &running, &later);
    let seen: Vec<_> = uses
        .iter()
        .map(|used| (used.job.no.0, used.tasks, used.cpu_milli, used.cpu_ms, used.rss_bytes >> 20))
        .collect();
    assert_eq!(seen, [(2, 2, 2_000, 15_000, 6), (1, 1, 100, 1_500, 1)]);
    // One task ended, and a new one has used two seconds since.
    let running = [group(2, 3, 21), group(3, 4, 30)];
    let uses = groups.fold(start + Duration::from_secs(10), &running, &BTreeMap::from([(30, used(200, 0))]));
    let seen: Vec<_> = uses.iter().map(|used| (used.job.no.0, used.tasks, used.cpu_milli)).collect();
    assert_eq!(seen, [(3, 1, 400), (2, 1, 0)]);
    let many: Vec<_> = (0..100).map(|no| group(no, no, u32::try_from(no).unwrap())).collect();
    assert_eq!(groups.fold(start + Duration::from_secs(15), &many, &BTreeMap::new()).len(), JOBS_MAX);
}

/// A process group that ends with the test.
struct Group(Child);

impl Group {
    fn burning() -> Self {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new("sh");
        // The child burns, so only the group as a whole shows it.
        command.args(["-c", "(while :; do :; done) & wait"]).stdin(Stdio::null()).process_group(0);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_group_that_burns_is_seen_with_its_children() {
    let burning = Group::burning();
    let running = [group(1, 1, burning.0.id())];
    let mut groups = Groups::default();
    assert_eq!(groups.look(&[]), []);
    let seen = || groups.look(&running).first().is_some_and(|used| used.cpu_ms > 0 && used.cpu_milli > 0);
    assert!(until(DEADLINE, seen));
    let uses = groups.look(&running);
    assert!(uses[0].rss_bytes > 0 && uses[0].tasks == 1, "{uses:?}");
    assert_eq!(groups.look(&[]), []);
}

#[test]
fn this_machine_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut sampler = Sampler::start(dir.path()).unwrap();
    let read = sampler.read(&[]);
    assert!(read.cpu_total_milli >= 1_000 && read.cpu_milli <= read.cpu_total_milli, "{read:?}");
    assert!(read.mem_used_bytes > 0 && read.mem_used_bytes <= read.mem_total_bytes, "{read:?}");
    assert!(read.disks[0].total_bytes >= read.disks[0].used_bytes && !read.disks[0].mount.is_empty(), "{read:?}");
    let mut mounts: Vec<_> = read.disks.iter().map(|disk| disk.mount.clone()).collect();
    mounts.sort();
    mounts.dedup();
    assert_eq!(mounts.len(), read.disks.len(), "{read:?}");
}

fn node(number: usize) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    NodeId(id)
}

#[test]
fn the_past_keeps_each_reading_once_and_an_hour_of_them() {
    let past = History::default();
    for second in 0..4_000_u64 {
        // Presence repeats each reading five times.
        let mut read = reading(second / 5);
        read.cpu_milli = second / 5;
        past.put(node(1), Mono(second * 1_000), &read);
    }
    let all = past.samples(&node(1), Mono(0));
    assert_eq!(all.len(), RING_MAX);
    assert_eq!((all[0].cpu_milli, all[RING_MAX - 1].cpu_milli), (80, 799));
    let last = past.samples(&node(1), Mono(3_990_000));
    assert_eq!(last.iter().map(|sample| sample.at).collect::<Vec<_>>(), [Mono(3_990_000), Mono(3_995_000)]);
    assert_eq!((last[0].gpu_milli, last[0].disk_used_bytes, last[0].mem_used_bytes), (870, 1 << 30, 3 << 30));
    assert_eq!(past.samples(&node(2), Mono(0)), []);
}

#[test]
fn the_node_silent_longest_makes_room() {
    let past = History::default();
    for number in 0..NODES_MAX {
        past.put(node(number), Mono(1_000 + number as u64), &reading(1));
    }
    past.put(node(0), Mono(5_000), &reading(2));
    past.put(node(NODES_MAX), Mono(5_001), &reading(1));
    let kept = |number: usize| past.samples(&node(number), Mono(0)).len();
    assert_eq!((kept(0), kept(1), kept(2), kept(NODES_MAX)), (2, 0, 1, 1));
}
