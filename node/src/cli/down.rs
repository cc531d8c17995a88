//! `down`: stop a node of this machine.
//!
//! Invariants: says what becomes of the tasks that run there.

use starling_proto::v1::DownRequest;

use super::Session;
use super::args::DownArgs;
use super::connect::call;
use super::error::{CliError, EXIT_OK};
use super::output::Format;

/// Asks the node to stop; it does so within seconds after the answer.
pub(crate) async fn down(session: &Session<'_>, args: DownArgs) -> Result<u8, CliError> {
    let out = session.out;
    let mut client = session.open().await?;
    let reply = call(client.down(DownRequest { kill_jobs: args.kill_jobs })).await?;
    match out.format() {
        Format::Json => out.json(std::slice::from_ref(&reply))?,
        Format::Human => {
            let name = reply.view.as_ref().map_or("the node", |view| view.seen_by.as_str());
            let tasks = |count: u32| if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") };
            out.note(&match (args.kill_jobs, reply.tasks, reply.left) {
                (_, 0, _) => format!("{name} stops; nothing runs there"),
                (false, running, _) => {
                    let running = tasks(running);
                    format!("{name} stops; what runs there goes on ({running}), and its next start takes it up")
                }
                (true, running, 0) => format!("{name} stops; {} killed, their owners grant them again", tasks(running)),
                (true, running, left) => {
                    format!("{name} stops; {} killed, {} of them have not ended yet", tasks(running), left)
                }
            });
        }
    }
    Ok(EXIT_OK)
}
