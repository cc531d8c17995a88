//! Pages that refresh: asked for again every second, drawn in place, until Ctrl-C.
//!
//! Invariants: one page at least is shown unless the first answer is an error; when the node goes away the page is asked of another one.
//! Does not: know what is on a page.

use std::time::Duration;

use tokio::signal::ctrl_c;
use tokio::time::sleep;

use super::connect::Client;
use super::error::{CliError, EXIT_OK};
use super::output::Format;
use super::{Patience, Session};

/// Time between two pages.
const REFRESH: Duration = Duration::from_secs(1);

/// How often a page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Once, with a footer on stderr.
    Once,
    /// Again and again.
    Live,
}

/// One answer, as it is shown.
pub(crate) trait Page {
    /// As objects, one a line.
    fn json(&self, session: &Session<'_>) -> Result<(), CliError>;
    /// As text that ends in a newline.
    fn text(&self, session: &Session<'_>, shown: Shown) -> String;
    /// What is said beside it.
    fn footer(&self, session: &Session<'_>);
}

/// Asks and shows.
pub(crate) async fn show<P: Page>(
    session: &Session<'_>,
    shown: Shown,
    mut ask: impl AsyncFnMut(&mut Client) -> Result<P, CliError>,
) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let first = ask(&mut client).await?;
    if shown == Shown::Once {
        match out.format() {
            Format::Json => first.json(session)?,
            Format::Human => out.text(&first.text(session, shown))?,
        }
        first.footer(session);
        return Ok(EXIT_OK);
    }
    let pages = async {
        let mut patience = Patience::default();
        let mut page = first;
        loop {
            match out.format() {
                Format::Json => page.json(session)?,
                Format::Human => out.frame(&page.text(session, shown))?,
            }
            sleep(REFRESH).await;
            page = loop {
                match ask(&mut client).await {
                    Ok(page) => break page,
                    Err(error) => client = session.reopen(error, &mut patience).await?,
                }
            };
            patience.renew();
        }
    };
    tokio::select! {
        biased;
        // Without the signal's handler the process just dies of it, which is as good.
        _interrupted = ctrl_c() => Ok(EXIT_OK),
        ended = pages => ended,
    }
}
