//! `facts`: what changed since a cursor, as JSON lines.
//!
//! Invariants: jobs go to stdout, one a line; the cursor to go on from goes to stderr, once all of them are out.

use starling_proto::v1::PullFactsRequest;

use super::Session;
use super::args::FactsArgs;
use super::error::{CliError, EXIT_OK};

/// Runs the verb.
pub(crate) async fn facts(session: &Session<'_>, args: FactsArgs) -> Result<u8, CliError> {
    let out = session.out;
    let request = PullFactsRequest {
        namespace: args.namespace.unwrap_or_default(),
        cursor: args.since.unwrap_or_default(),
        limit: args.limit.unwrap_or(0),
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
