//! Down: a user of this machine wants the node to stop.
//!
//! Invariants: only callers on the Unix socket may; the answer comes before the node goes; what runs here goes on, unless it is asked to be killed, and then its
//! ends are in the log before the answer comes, or the answer says how many are not.
//! Does not: stop anything itself (`daemon::node` does).

use std::time::Duration;

use starling_core::machine::{Input, Machine};
use starling_core::time::Now;
use starling_proto::v1::{DownReply, DownRequest};
use tokio::time::Instant;

use super::context::{Api, Reach};
use super::convert::seen;
use super::status::ApiError;
use crate::driver::{Handle, Stopped};

/// How long killed tasks may take to end: more than the grace between their SIGTERM and their SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(9);
const KILLED_POLL: Duration = Duration::from_millis(20);

/// Stops the node.
///
/// Cancel safety: dropped while tasks are being killed, the node takes no work and does not stop.
pub(super) async fn down(api: &Api, request: DownRequest) -> Result<DownReply, ApiError> {
    if api.reach != Reach::Here {
        return Err(ApiError::NotHere);
    }
    let look = |machine: &mut Machine, now: Now| (count(machine), seen(machine, now));
    let (tasks, view) = api.ask(look).await?;
    let mut left = tasks;
    if request.kill_jobs {
        left = give_up(&api.ctx.handle).await?;
    }
    api.ctx.stop.notify_one();
    Ok(DownReply { tasks, left, view: Some(view) })
}

/// Has everything that runs here killed and told; how many are not after a while.
///
/// Cancel safety: as `down`.
pub(crate) async fn give_up(handle: &Handle) -> Result<u32, Stopped> {
    if !handle.try_input(Input::GiveUp) {
        return Err(Stopped::Busy);
    }
    let until = Instant::now() + KILLED_WITHIN;
    loop {
        let (left, is_told) = handle.ask(|machine, _| (count(machine), machine.has_told_all())).await?;
        if (left == 0 && is_told) || Instant::now() >= until {
            return Ok(left);
        }
        tokio::time::sleep(KILLED_POLL).await;
    }
}

fn count(machine: &Machine) -> u32 {
    u32::try_from(machine.executor().running()).unwrap_or(u32::MAX)
}
