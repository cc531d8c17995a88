//! Clusters whose nodes cannot meet: logs carried by file, what is refused of them, and the past.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use starling_node::moment;
use starling_testnet::local::{Cluster, Options};

use crate::catch_up::api_of;
use crate::support::{BINARY, Done, Flock, LONG, client, scratch, within};

/// A node alone in its home, of the cluster that shares a secret.
fn alone(name: &str, secret: &Path) -> Flock {
    let home = scratch();
    let secret = secret.to_str().unwrap();
    let flags = ["--cpus", "1", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--no-gateway"];
    let flags = [flags.as_slice(), &["--name", name, "--secret-file", secret]].concat();
    let options = Options::uniform(Path::new(BINARY), home.path(), 1, &flags);
    Flock::with(home, Cluster::start(options).unwrap())
}

/// A cluster's secret in a file.
fn secret(home: &Path, name: &str) -> PathBuf {
    let path = home.join(name);
    client(home, &["cluster", "init", "--secret-file", path.to_str().unwrap()]).exits(0);
    path
}

/// Runs a job to its end.
fn work(flock: &Flock) -> String {
    let job = flock.submit(1, &["--", "true"]);
    flock.at(1, &["wait", &job]).exits(0);
    job
}

/// Where the log and the Facts stand.
fn stands(flock: &Flock) -> (String, String) {
    let info = flock.one(1, &["cluster", "info"]);
    (info["events"].to_string(), info["facts_root"].to_string())
}

fn export(flock: &Flock, to: &Path) {
    flock.at(1, &["log", "export", "-o", to.to_str().unwrap()]).exits(0).says("wrote");
    assert!(!to.with_extension("starlog.part").exists());
}

/// A moment that is past, and after all that was done before.
fn a_moment() -> String {
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let start = now();
    within(LONG, "the next millisecond", || now() > start + 1);
    moment::to_text(start + 1)
}

#[test]
fn two_nodes_that_never_meet_are_merged_by_file() {
    let shelf = scratch();
    let ours = secret(shelf.path(), "ours.secret");
    let [wren, lark] = ["wren", "lark"].map(|name| alone(name, &ours));
    let first = work(&wren);
    let then = a_moment();
    let (second, third) = (work(&wren), work(&lark));
    let file = |name: &str| shelf.path().join(name);
    let (of_wren, of_lark) = (file("wren.starlog"), file("lark.starlog"));
    export(&wren, &of_wren);
    export(&lark, &of_lark);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let run = |args: &[&str]| client(shelf.path(), args);

    // What is on the disk is what was exported, whether the node runs or not.
    run(&["log", "verify", &path(&of_wren)]).exits(0);
    let summary = run(&["log", "verify", "--data-dir", &path(&wren.cluster.dir(1))]).exits(0);
    assert!(summary.line().ends_with("sound"), "{}", summary.out);
    run(&["log", "diff", &path(&of_wren), &path(&wren.cluster.dir(1))]).exits(0);
    run(&["log", "diff", &path(&of_wren), &api_of(&wren, 1)]).exits(0);
    let differ = run(&["log", "diff", &path(&of_wren), &path(&of_lark)]).exits(1);
    assert!(differ.out.contains("2 of 2 logs differ"), "{}", differ.out);
    run(&["log", "diff", &path(&of_wren), &path(&file("nothing"))]).exits(2);
    run(&["log", "export", "-o", "-", "--data-dir", &path(&wren.cluster.dir(1))]).exits(1).says("a node runs in");

    // Crosswise, and once more.
    let told = wren.at(1, &["log", "import", &path(&of_lark)]).exits(0);
    assert!(told.out.contains("0 were known, 0 were refused"), "{}", told.out);
    lark.at(1, &["log", "import", &path(&of_wren)]).exits(0);
    assert_eq!(stands(&wren), stands(&lark));
    let again = lark.one(1, &["log", "import", &path(&of_wren)]);
    assert_eq!((&again["new_batches"], &again["refused_batches"]), (&0.into(), &0.into()));
    run(&["log", "diff", &path(&wren.cluster.dir(1)), &path(&lark.cluster.dir(1))]).exits(0);
    for job in [&first, &second, &third] {
        assert_eq!((wren.state(1, job), lark.state(1, job)), ("done".to_owned(), "done".to_owned()));
    }

    // How things were.
    let jobs_at = |at: &str| -> Vec<String> {
        let jobs = lark.json(1, &["jobs", "--at", at]);
        jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(jobs_at(&then), std::slice::from_ref(&first));
    assert_eq!(jobs_at("1d"), [""; 0]);
    assert_eq!(lark.json(1, &["facts", "--at", &then]).len(), 1);
    lark.at(1, &["jobs", "--at", "yesterday"]).exits(2).says("such as 90s, 2h or 1d, or a moment such as");
    assert_eq!(stands(&wren), stands(&lark), "nobody took over from a node that it never met");
}

#[test]
fn a_job_of_a_site_that_was_never_heard_waits_for_the_operators_word() {
    let shelf = scratch();
    let ours = secret(shelf.path(), "ours.secret");
    let [wren, lark] = ["wren", "lark"].map(|name| alone(name, &ours));
    let job = wren.submit(1, &["--node", "lark", "--", "true"]);
    let file = shelf.path().join("wren.starlog");
    export(&wren, &file);
    lark.at(1, &["log", "import", file.to_str().unwrap()]).exits(0);
    within(LONG, "what to do", || lark.at(1, &["job", "explain", &job]).out.contains("was never heard here"));
    lark.at(1, &["cluster", "forget", "wren"]).exits(0);
    within(LONG, "the job to be taken over and done", || lark.state(1, &job) == "done");
}

#[test]
fn what_is_not_a_whole_export_of_this_cluster_is_refused_and_the_node_goes_on() {
    let shelf = scratch();
    let (ours, theirs) = (secret(shelf.path(), "ours.secret"), secret(shelf.path(), "theirs.secret"));
    let (wren, owl) = (alone("wren", &ours), alone("owl", &theirs));
    work(&wren);
    work(&owl);
    let file = shelf.path().join("owl.starlog");
    export(&owl, &file);
    let before = stands(&wren);
    let import = |path: &Path| -> Done { wren.at(1, &["log", "import", path.to_str().unwrap()]) };
    import(&file).exits(1).says("nothing was imported").says("this is the log of cluster");
    // Cut, doctored, of another version, and no export at all.
    let bytes = fs::read(&file).unwrap();
    let wrong = |name: &str, bytes: &[u8]| {
        let path = shelf.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut doctored = bytes.clone();
    doctored[bytes.len() / 2] ^= 1;
    let mut newer = bytes.clone();
    newer[8] = 2;
    for (path, says) in [
        (wrong("cut.starlog", &bytes[..bytes.len() - 40]), "it is cut off at byte"),
        (wrong("doctored.starlog", &doctored), "is not what its author signed"),
        (wrong("newer.starlog", &newer), "it has export format 2, this program reads format 1"),
        (wrong("text.starlog", b"hello"), "it is not an export of a log"),
    ] {
        import(&path).exits(1).says(says).says("nothing was imported");
        client(shelf.path(), &["log", "verify", path.to_str().unwrap()]).exits(1).says(says);
        client(shelf.path(), &["log", "diff", path.to_str().unwrap(), file.to_str().unwrap()]).exits(2).says(says);
    }
    import(&shelf.path().join("nothing")).exits(2).says("nothing");
    assert_eq!(stands(&wren), before);
    work(&wren);
}

#[test]
fn a_stopped_nodes_directory_is_exported_and_damage_to_it_is_told() {
    let shelf = scratch();
    let ours = secret(shelf.path(), "ours.secret");
    let mut wren = alone("wren", &ours);
    let job = work(&wren);
    let dir = wren.cluster.dir(1);
    wren.cluster.kill(1).unwrap();
    let (dir_text, file) = (dir.to_str().unwrap(), shelf.path().join("wren.starlog"));
    let run = |args: &[&str]| client(shelf.path(), args);
    run(&["log", "export", "-o", file.to_str().unwrap(), "--data-dir", dir_text, "--log", "wren"]).exits(0);
    run(&["log", "export", "-o", "-", "--data-dir", dir_text, "--log", "owl"]).exits(2).says("no node called owl");
    let lark = alone("lark", &ours);
    lark.at(1, &["log", "import", file.to_str().unwrap()]).exits(0);
    assert_eq!(lark.state(1, &job), "done");
    let segment = dir.join("log/00000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[60] ^= 1;
    fs::write(&segment, bytes).unwrap();
    run(&["log", "verify", dir_text]).exits(1).says("00000001.log is damaged at byte 24");
    run(&["log", "export", "-o", file.to_str().unwrap(), "--data-dir", dir_text]).exits(1).says("is damaged at byte");
    // The earlier export stays.
    run(&["log", "verify", file.to_str().unwrap()]).exits(0);
}
