//! `facts`: what changed since a cursor, as JSON lines.
//!
//! Invariants: jobs go to stdout, one a line; the cursor to go on from goes to stderr, once all of them are out.

use starling_proto::v1::PullFactsRequest;

use super::Session;
use super::args::{At, FactsArgs};
use super::error::{CliError, EXIT_OK};

/// Runs the verb.
pub(crate) async fn facts(session: &Session<'_>, args: FactsArgs) -> Result<u8, CliError> {
    let out = session.out;
    let request = PullFactsRequest {
        namespace: args.namespace.unwrap_or_default(),
        cursor: args.since.unwrap_or_default(),
        limit: args.limit.unwrap_or(0),
        at_unix_ms: match &args.at {
            Some(At::Time(moment)) => moment.0.max(1),
            Some(At::Cursor(_)) | None => 0,
        },
        at_cursor: match args.at {
            Some(At::Cursor(text)) => text,
            Some(At::Time(_)) | None => String::new(),
        },
    };
    let mut client = session.open().await?;
    let mut stream = client.pull_facts(request).await?.into_inner();
    while let Some(page) = stream.message().await? {
        out.json(&page.jobs)?;
        if !page.cursor.is_empty() {
            let more = if page.more { " (there is more)" } else { "" };
            out.note(&format!("cursor {}{more}", page.cursor));
        }
    }
    Ok(EXIT_OK)
}
