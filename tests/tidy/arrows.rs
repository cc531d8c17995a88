//! Arrows: which part of the code may use which (DESIGN section 2).
//!
//! Does not: follow `super::` paths out of a module; the rules are about `crate::` and other crates.

use crate::source::{Source, words};

/// "Files below `from` use none of `never`."
struct Rule {
    from: &'static str,
    never: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        from: "core/",
        never: &["starling_node", "starling_net", "starling_proto", "starling_testnet"],
        why: "core uses nothing of ours",
    },
    Rule {
        from: "proto/",
        never: &["starling_core", "starling_node", "starling_net", "starling_testnet"],
        why: "proto uses nothing of ours",
    },
    Rule {
        from: "core/src/schedule/",
        never: &["crate::sync", "crate::election", "crate::machine", "crate::log"],
        why: "schedule, election and sync never use each other; only `machine` joins them",
    },
    Rule {
        from: "core/src/sync/",
        never: &["crate::schedule", "crate::election", "crate::machine", "crate::facts"],
        why: "schedule, election and sync never use each other; only `machine` joins them",
    },
    Rule {
        from: "core/src/election/",
        never: &["crate::schedule", "crate::sync", "crate::machine", "crate::log"],
        why: "schedule, election and sync never use each other; only `machine` joins them",
    },
    Rule {
        from: "core/src/facts/",
        never: &["crate::schedule", "crate::election", "crate::sync", "crate::log", "crate::machine"],
        why: "Facts hold nothing that one node believes alone",
    },
    Rule {
        from: "core/src/lattice/",
        never: &["crate::event", "crate::facts", "crate::log", "crate::machine", "crate::namespace"],
        why: "lattices know no events",
    },
    Rule {
        from: "core/src/event/",
        never: &["crate::facts", "crate::log", "crate::machine", "crate::namespace"],
        why: "an event does not know what it means",
    },
    Rule {
        from: "node/net/",
        never: &["starling_node", "starling_proto", "starling_testnet"],
        why: "net, storage, exec and relay never use each other nor the driver; they speak in Inputs",
    },
    Rule {
        from: "node/src/storage/",
        never: &["crate::exec", "crate::driver", "crate::daemon", "crate::api", "crate::cli", "starling_net"],
        why: "net, storage, exec and relay never use each other nor the driver; they speak in Inputs",
    },
    Rule {
        from: "node/src/exec/",
        never: &["crate::storage", "crate::driver", "crate::daemon", "crate::api", "crate::cli", "starling_net"],
        why: "net, storage, exec and relay never use each other nor the driver; they speak in Inputs",
    },
    Rule {
        from: "node/src/supervise/",
        never: &[
            "crate::storage",
            "crate::driver",
            "crate::daemon",
            "crate::api",
            "crate::cli",
            "crate::relay",
            "starling_net",
            "starling_proto",
        ],
        why: "supervise hosts exec in processes of its own; it tells the daemon what happened and asks it nothing else",
    },
    Rule {
        from: "node/src/monitor/",
        never: &[
            "crate::storage",
            "crate::exec",
            "crate::driver",
            "crate::daemon",
            "crate::api",
            "crate::cli",
            "starling_net",
        ],
        why: "monitor reads the machine and keeps the past; `daemon::stats` joins it with the driver",
    },
    Rule {
        from: "node/src/relay/",
        never: &[
            "crate::storage",
            "crate::exec",
            "crate::daemon",
            "crate::api",
            "crate::cli",
            "starling_net",
            "starling_proto",
        ],
        why: "relay gives the driver Inputs and Commands, and knows nobody else",
    },
    Rule {
        from: "node/src/worker/",
        never: &[
            "crate::storage",
            "crate::driver",
            "crate::daemon",
            "crate::api",
            "crate::cli",
            "crate::config",
            "crate::relay",
            "crate::wire",
            "starling_core",
            "starling_net",
        ],
        why: "a worker serves any HWP server: it knows processes and the protocol, and nothing of a node",
    },
    Rule {
        from: "node/src/driver/",
        never: &["crate::api", "crate::cli", "crate::daemon"],
        why: "the driver knows its edges by their channels, and none of its clients",
    },
    Rule {
        from: "node/src/tunnel/",
        never: &["crate::storage", "crate::exec", "crate::driver", "crate::daemon", "crate::api", "crate::cli"],
        why: "tunnel uses the links that the daemon gives it, and knows nobody who uses tunnels",
    },
    Rule {
        from: "node/src/api/",
        never: &["crate::storage", "crate::exec", "crate::daemon", "crate::cli", "starling_net"],
        why: "api, hwp and web talk to `driver::Handle` only",
    },
    Rule {
        from: "node/src/hwp/",
        never: &["crate::storage", "crate::exec", "crate::daemon", "crate::api", "crate::cli", "starling_net"],
        why: "api, hwp and web talk to `driver::Handle` only",
    },
    Rule {
        from: "node/src/cli/",
        never: &["crate::driver", "crate::storage", "crate::exec", "starling_net"],
        why: "cli is a client like any other",
    },
    Rule {
        from: "testnet/src/sim/",
        never: &["starling_node", "starling_net", "starling_proto"],
        why: "the simulator runs core and nothing of the edges",
    },
];

/// "Files below `from` may use that all the same", and why.
struct Exception {
    from: &'static str,
    uses: &'static str,
    why: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        from: "core/src/sync/message.rs",
        uses: "crate::schedule::Offer",
        why: "a Message carries an Offer, which is the executor's own type",
    },
    Exception {
        from: "node/src/api/",
        uses: "crate::exec::output",
        why: "it names the files that hold a task's output, which whoever serves logs must find; it runs nothing",
    },
    Exception {
        from: "node/src/hwp/",
        uses: "crate::exec::output",
        why: "what workers write is kept in the files where any task's output lies; it runs nothing",
    },
];

/// Every use that no arrow allows.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for rule in RULES.iter().filter(|rule| source.path.starts_with(rule.from)) {
            for (module, at) in uses(&source.production) {
                let forbidden = rule.never.iter().any(|never| lies_in(&module, never));
                if !forbidden || is_excepted(&source.path, &module) {
                    continue;
                }
                let place = source.place(&source.production, at);
                findings.push(format!(
                    "{place}: `{module}` used in `{}`: {}; pass what is needed through an interface, or write an ADR and an exception in tests/tidy/arrows.rs",
                    rule.from, rule.why
                ));
            }
        }
    }
    findings
}

fn is_excepted(path: &str, module: &str) -> bool {
    EXCEPTIONS.iter().any(|exception| path.starts_with(exception.from) && lies_in(module, exception.uses))
}

/// Whether `path` is `module` or inside it.
fn lies_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `crate::module::item` for each path of this crate that the code names, and other crates of ours, with their places.
fn uses(code: &str) -> Vec<(String, usize)> {
    const ROOT: &str = "crate::";
    let mut found = Vec::new();
    for at in words(code, ROOT) {
        for path in paths(&code[at + ROOT.len()..]) {
            found.push((format!("{ROOT}{path}"), at));
        }
    }
    let ours = ["starling_core", "starling_net", "starling_node", "starling_proto", "starling_testnet"];
    for other in ours {
        found.extend(words(code, other).map(|at| (other.to_owned(), at)));
    }
    found
}

/// The paths that `a::b`, or the group `{a, b::{c, d}}`, stands for.
fn paths(text: &str) -> Vec<String> {
    let text = text.trim_start();
    let Some(group) = text.strip_prefix('{') else {
        let name = identifier(text);
        let Some(rest) = text[name.len()..].strip_prefix("::") else {
            return vec![name.to_owned()];
        };
        let below = paths(rest);
        return below.iter().map(|path| format!("{name}::{path}")).collect();
    };
    let mut found = paths(group);
    let mut depth = 0_usize;
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => found.extend(paths(&group[at + 1..])),
            _ => {}
        }
    }
    found.retain(|path| !path.is_empty());
    found
}

fn identifier(text: &str) -> &str {
    let end = text.find(|each: char| !each.is_alphanumeric() && each != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings_in;

    #[test]
    fn a_forbidden_arrow_is_found() {
        for (path, text) in [
            ("core/src/log/x.rs", "use starling_proto::v1;"),
            ("core/src/schedule/x.rs", "use crate::sync::Message;"),
            ("core/src/sync/x.rs", "fn f(owner: &crate::schedule::Owner) {}"),
            ("core/src/facts/x.rs", "use crate::{ids::NodeId, machine::Input};"),
            ("node/net/src/x.rs", "use starling_node::driver;"),
            ("node/src/storage/x.rs", "use crate::exec::Pool;"),
            ("node/src/exec/x.rs", "use crate::{\n    driver::{Handle, x},\n};"),
            ("node/src/relay/x.rs", "use crate::api::Context;"),
            ("node/src/worker/x.rs", "use crate::driver::Handle;"),
            ("node/src/worker/x.rs", "use starling_core::ids::JobId;"),
            ("node/src/api/x.rs", "crate::storage::open()"),
            ("node/src/cli/x.rs", "use crate::driver::Handle;"),
            ("node/src/monitor/x.rs", "use crate::exec::Executor;"),
            ("node/src/tunnel/x.rs", "use crate::driver::Handle;"),
            ("node/src/api/x.rs", "use crate::exec::{output::Stream, Pool};"),
            ("core/src/sync/message.rs", "use crate::schedule::Owner;"),
        ] {
            let findings = findings_in(path, text, check);
            assert!(!findings.is_empty(), "{path}: {text}");
        }
    }

    #[test]
    fn allowed_arrows_words_and_tests_are_left() {
        for (path, text) in [
            ("core/src/machine/x.rs", "use crate::{schedule::Owner, sync::Message};"),
            ("core/src/schedule/x.rs", "// crate::sync\nuse crate::synchrony;"),
            ("core/src/schedule/tests.rs", "use crate::sync::Message;"),
            ("node/src/api/x.rs", "use crate::driver::Handle;"),
            ("node/src/worker/x.rs", "use crate::{exec::Executor, monitor::Sampler};\nuse starling_proto::hwp;"),
            ("core/src/sync/message.rs", "use crate::schedule::Offer;"),
            ("node/src/api/x.rs", "use crate::exec::output::{Stream, path};"),
            ("node/src/tunnel/x.rs", "use starling_net::Tunnel;"),
        ] {
            assert!(findings_in(path, text, check).is_empty(), "{path}: {text}");
        }
    }

    #[test]
    fn groups_of_paths_are_spelled_out() {
        let found = uses("use crate::{a, b::{c, d::e}, f::*};");
        let found: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(found, ["crate::a", "crate::b::c", "crate::b::d::e", "crate::f::"]);
    }

    #[test]
    fn every_exception_is_needed_and_says_why() {
        let sources = crate::source::workspace();
        for exception in EXCEPTIONS {
            let below = sources.iter().filter(|source| source.path.starts_with(exception.from));
            let needed =
                below.flat_map(|source| uses(&source.production)).any(|(module, _)| lies_in(&module, exception.uses));
            assert!(needed, "{} no longer uses {}: drop the exception", exception.from, exception.uses);
            assert!(!exception.why.is_empty());
        }
    }
}
