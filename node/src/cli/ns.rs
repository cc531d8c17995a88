//! `ns put`, `ns list`, `ns describe` and `ns get`.
//!
//! Invariants: what `ns get` prints `ns put` takes.
//! Does not: read declarations; the node does, and says where one is wrong.

use std::path::Path;

use starling_proto::v1::{
    GetNamespaceRequest, ListNamespacesRequest, NamespaceDetail, NamespaceField, NamespaceKind, NamespaceSummary,
    PutNamespaceRequest,
};

use super::args::{NsDescribeArgs, NsPutArgs, NsVerb};
use super::connect::call;
use super::error::{CliError, EXIT_OK};
use super::output::Format;
use super::table::{Block, Cell, Flush, Table, Tone};
use super::{Session, submit, units};

/// Digits of a declaration's hash that people see.
const ID_SHOWN: usize = 12;

/// Runs one of the verbs.
pub(crate) async fn ns(session: &Session<'_>, verb: NsVerb) -> Result<u8, CliError> {
    match verb {
        NsVerb::Put(args) => put(session, args).await,
        NsVerb::List => list(session).await,
        NsVerb::Describe(args) => describe(session, args).await,
        NsVerb::Get(args) => get(session, args).await,
    }
}

async fn put(session: &Session<'_>, args: NsPutArgs) -> Result<u8, CliError> {
    let out = session.out;
    let name = if args.file == Path::new("-") { "standard input".to_owned() } else { args.file.display().to_string() };
    let toml = String::from_utf8(submit::read_input(&args.file)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        CliError::Usage { message: format!("{name}: line {line} is not UTF-8"), hint: String::new() }
    })?;
    let mut client = session.open().await?;
    let reply = call(client.put_namespace(PutNamespaceRequest { toml })).await.map_err(|error| error.about(&name))?;
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&reply))?,
        Format::Human => {
            let word = if reply.fresh { "registered" } else { "already registered:" };
            out.line(&format!("{word} {} version {} ({})", reply.name, reply.version, short(&reply.id)))?;
        }
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

async fn list(session: &Session<'_>) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.list_namespaces(ListNamespacesRequest {})).await?;
    match out.format() {
        Format::Json => out.json(&reply.namespaces)?,
        Format::Human => out.table(&list_table(&reply.namespaces))?,
    }
    for namespace in reply.namespaces.iter().filter(|namespace| namespace.conflict) {
        out.warn(&conflict(namespace));
    }
    out.footer(reply.view.as_ref());
    Ok(EXIT_OK)
}

async fn describe(session: &Session<'_>, args: NsDescribeArgs) -> Result<u8, CliError> {
    let out = session.out;
    let detail = ask(session, args).await?;
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&detail))?,
        Format::Human => {
            out.block(&block(&detail))?;
            out.line("")?;
            out.table(&fields_table(&detail.fields))?;
            if !detail.kinds.is_empty() {
                out.line("")?;
                out.table(&kinds_table(&detail.kinds))?;
            }
            let with_fields: Vec<&NamespaceKind> = detail.kinds.iter().filter(|kind| !kind.fields.is_empty()).collect();
            for kind in with_fields {
                out.line(&format!("\n{}", out.paint(&kind.kind, Tone::Strong)))?;
                out.table(&fields_table(&kind.fields))?;
            }
        }
    }
    if let Some(summary) = detail.summary.as_ref().filter(|summary| summary.conflict) {
        out.warn(&conflict(summary));
    }
    out.footer(detail.view.as_ref());
    Ok(EXIT_OK)
}

async fn get(session: &Session<'_>, args: NsDescribeArgs) -> Result<u8, CliError> {
    let out = session.out;
    let detail = ask(session, args).await?;
    if detail.toml.is_empty() {
        let name = detail.summary.unwrap_or_default().name;
        return Err(CliError::Usage {
            message: format!("namespace {name} is built in: it has no TOML"),
            hint: format!("see what it takes with `starling ns describe {name}`"),
        });
    }
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&detail))?,
        Format::Human => out.text(&detail.toml)?,
    }
    Ok(EXIT_OK)
}

async fn ask(session: &Session<'_>, args: NsDescribeArgs) -> Result<NamespaceDetail, CliError> {
    let request = GetNamespaceRequest {
        name: args.name,
        version: args.version.unwrap_or_default(),
        id: args.id.unwrap_or_default(),
    };
    let mut client = session.open().await?;
    call(client.get_namespace(request)).await
}

fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).unwrap_or(id)
}

/// Which of the declarations of one version counts.
fn conflict(namespace: &NamespaceSummary) -> String {
    let twice = namespace.versions.windows(2).filter(|pair| pair[0].version == pair[1].version);
    let told = twice.map(|pair| {
        let (kept, other) = (&pair[0], &pair[1]);
        format!(
            "{} version {} was registered at {} ({}) and, otherwise, at {} ({}), while they did not hear each other; the former counts",
            namespace.name, kept.version, kept.by, short(&kept.id), other.by, short(&other.id)
        )
    });
    told.collect::<Vec<_>>().join("; ") + "; register a higher version to end this"
}

fn list_table(namespaces: &[NamespaceSummary]) -> Table {
    let mut table = Table::new(&[
        ("NAME", Flush::Left),
        ("VERSION", Flush::Right),
        ("VERSIONS", Flush::Left),
        ("HANDLER", Flush::Left),
        ("DURABILITY", Flush::Left),
        ("JOBS", Flush::Right),
        ("REGISTERED", Flush::Left),
        ("AT", Flush::Left),
    ]);
    for namespace in namespaces {
        let current = namespace.versions.first().cloned().unwrap_or_default();
        let mut versions: Vec<String> = namespace.versions.iter().map(|version| version.version.to_string()).collect();
        versions.dedup();
        let version = if namespace.built_in { "built in".to_owned() } else { namespace.version.to_string() };
        let tone = if namespace.conflict { Tone::Bad } else { Tone::Plain };
        table.push(vec![
            Cell::new(&namespace.name, Tone::Strong),
            Cell::plain(version),
            Cell::new(versions.join(",") + if namespace.conflict { " (conflict)" } else { "" }, tone),
            Cell::plain(&namespace.handler),
            Cell::plain(&namespace.durability),
            Cell::plain(units::count(namespace.jobs.into())),
            Cell::plain(units::time(current.at_unix_ms)),
            Cell::plain(&current.by),
        ]);
    }
    table
}

fn block(detail: &NamespaceDetail) -> Block {
    let summary = detail.summary.clone().unwrap_or_default();
    let own = summary.versions.iter().find(|version| version.id == detail.id).cloned().unwrap_or_default();
    let versions: Vec<String> = summary
        .versions
        .iter()
        .map(|version| {
            let mark = if version.current { ", current" } else { "" };
            format!("{} ({}{mark})", version.version, short(&version.id))
        })
        .collect();
    let version = match (summary.built_in, own.current) {
        (true, _) => "built in".to_owned(),
        (false, true) => detail.version.to_string(),
        (false, false) => format!("{} (not the current one)", detail.version),
    };
    let mut block = Block::default();
    block
        .add_toned("name", &summary.name, Tone::Strong)
        .add("version", version)
        .add("versions", versions.join(", "))
        .add("registered", if summary.built_in { String::new() } else { units::time(own.at_unix_ms) })
        .add("at", &own.by)
        .add("handler", &summary.handler)
        .add("durability", &summary.durability)
        .add("preemptible", if detail.preemptible { "yes" } else { "" })
        .add("phases", detail.phases.join(" -> "))
        .add("submit", &detail.submit)
        .add("jobs", units::count(summary.jobs.into()));
    block
}

fn fields_table(fields: &[NamespaceField]) -> Table {
    let mut table = Table::new(&[
        ("NAME", Flush::Left),
        ("TYPE", Flush::Left),
        ("REQUIRED", Flush::Left),
        ("DEFAULT", Flush::Left),
        ("BOUNDS", Flush::Left),
    ]);
    for field in fields {
        table.push(vec![
            Cell::plain(&field.name),
            Cell::plain(&field.r#type),
            Cell::plain(if field.required { "yes" } else { "no" }),
            Cell::plain(&field.default_value),
            Cell::plain(&field.bounds),
        ]);
    }
    table
}

fn kinds_table(kinds: &[NamespaceKind]) -> Table {
    let mut table = Table::new(&[
        ("KIND", Flush::Left),
        ("BY", Flush::Left),
        ("PHASE", Flush::Left),
        ("OUTCOME", Flush::Left),
        ("REGISTERS", Flush::Left),
        ("LABELS", Flush::Left),
    ]);
    for kind in kinds {
        let registers = kind.registers.iter().map(|rule| format!("{}={}({})", rule.register, rule.merge, rule.field));
        let labels = kind.labels.iter().map(|(key, value)| format!("{key}={value}"));
        table.push(vec![
            Cell::new(&kind.kind, Tone::Strong),
            Cell::plain(&kind.by),
            Cell::plain(&kind.phase),
            Cell::plain(&kind.outcome),
            Cell::plain(registers.collect::<Vec<_>>().join(" ")),
            Cell::plain(labels.collect::<Vec<_>>().join(" ")),
        ]);
    }
    table
}
