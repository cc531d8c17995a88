//! The worker protocol as it was published, against the one that is served.
//!
//! Invariants: every published message, field and call is in ours with the same name, number, type and label; `tests/hwp/hwp.proto` is the published file, byte for
//! byte (compared wherever that file can be had).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What the wire and generated code depend on, as text by the path of what it is said of.
type Surface = BTreeMap<String, String>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All that `file` declares below `folder`.
fn surface(folder: &Path, file: &str) -> Surface {
    let set = protox::compile([file], [folder]).unwrap();
    let mut surface = Surface::new();
    for file in &set.file {
        let package = file.package();
        surface.insert("syntax".to_owned(), file.syntax().to_owned());
        surface.insert("package".to_owned(), package.to_owned());
        for message in &file.message_type {
            // What the published file does not use is not compared, so it must not come to be used unseen.
            assert!(
                message
                    .nested_type
                    .iter()
                    .all(|nested| nested.options.as_ref().is_some_and(|options| options.map_entry()))
            );
            assert!(message.enum_type.is_empty() && message.extension.is_empty());
            let name = message.name();
            surface.insert(format!("message {name}"), String::new());
            for field in &message.field {
                let oneof = field.oneof_index.and_then(|at| message.oneof_decl.get(usize::try_from(at).unwrap()));
                let what = format!(
                    "{} {:?} {:?} {} oneof {:?} optional {}",
                    field.number(),
                    field.r#type(),
                    field.label(),
                    field.type_name(),
                    oneof.map(|oneof| oneof.name()),
                    field.proto3_optional()
                );
                surface.insert(format!("field {name}.{}", field.name()), what);
            }
        }
        assert!(file.enum_type.is_empty());
        for service in &file.service {
            let name = service.name();
            surface.insert(format!("service {name}"), String::new());
            for call in &service.method {
                let (asks, answers) = (call.client_streaming(), call.server_streaming());
                let what =
                    format!("{} (stream {asks}) -> {} (stream {answers})", call.input_type(), call.output_type());
                surface.insert(format!("call {name}.{}", call.name()), what);
            }
        }
    }
    surface
}

/// What is published and not the same in ours.
fn missing(published: &Surface, ours: &Surface) -> Vec<String> {
    let differs = |(path, what): &(&String, &String)| ours.get(*path) != Some(*what);
    let said = |(path, what): (&String, &String)| format!("{path}: {what}, ours: {:?}", ours.get(path));
    published.iter().filter(differs).map(said).collect()
}

fn compiled(text: &str) -> Surface {
    // Written below the target directory's own temporary place, which the system provides for tests.
    let dir = std::env::temp_dir().join(format!("starling-proto-{}-{:x}", std::process::id(), text.len()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("x.proto"), text).unwrap();
    let surface = surface(&dir, "x.proto");
    std::fs::remove_dir_all(dir).unwrap();
    surface
}

#[test]
fn everything_published_is_served_as_it_was_published() {
    let published = surface(&root().join("tests/hwp"), "hwp.proto");
    let ours = surface(&root().join("proto"), "hwp/hwp.proto");
    assert!(published.contains_key("call WorkerService.StreamLogs") && published.len() > 20, "{published:?}");
    assert_eq!(missing(&published, &ours), [""; 0]);
}

#[test]
fn a_difference_is_found() {
    let text = std::fs::read_to_string(root().join("tests/hwp/hwp.proto")).unwrap();
    let published = compiled(&text);
    for (is, would_be) in [
        ("string job_id = 1;", "string job_id = 9;"),
        ("repeated string command", "string command"),
        ("int32 exit_code", "int64 exit_code"),
        ("rpc StreamLogs(stream LogEntry)", "rpc StreamLogs(LogEntry)"),
        ("rpc CancelJob(", "rpc CancelWork("),
        ("package hwp;", "package hwp.v2;"),
        ("string state", "string condition"),
    ] {
        let changed = text.replace(is, would_be);
        assert_ne!(changed, text, "{is} is in the published file");
        assert!(!missing(&published, &compiled(&changed)).is_empty(), "{is} -> {would_be}");
    }
    assert!(missing(&published, &compiled(&text)).is_empty());
}

#[test]
fn the_copy_is_the_published_file() {
    let original = root().join("../../shared/hwp/hwp.proto");
    let copy = std::fs::read(root().join("tests/hwp/hwp.proto")).unwrap();
    match std::fs::read(&original) {
        Ok(published) => assert_eq!(copy, published),
        // Past the harness's capture; without a stderr nobody reads it.
        Err(_absent) => drop(writeln!(std::io::stderr(), "SKIPPED: no {} to compare with", original.display())),
    }
}
