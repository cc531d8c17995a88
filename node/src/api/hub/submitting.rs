//! Turns: who submits under a name while another submission under it is on its way to the disk waits for that one.
//!
//! Invariants: a turn ends when its submission was answered, or, if its caller left before, once the job is known or `DOUBT` is over: by then the submission is
//! durable or never will be. At most `SUBMITTING_MAX` names are held.

use std::collections::BTreeMap;
use std::time::Duration;

use smol_str::SmolStr;
use starling_core::machine::Machine;
use starling_core::time::Now;
use tokio::time::Instant;

use crate::api::context::Api;
use crate::api::status::ApiError;
use crate::api::stream::News;

/// Names at once. More: submissions are refused as too many.
const SUBMITTING_MAX: usize = 16_384;
/// Longest doubt about a submission whose caller left.
const DOUBT: Duration = Duration::from_secs(10);
/// How often a waiting submission looks whether its turn has come although no news did.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Names under way, and since when.
#[derive(Debug, Default)]
pub(super) struct Submitting {
    names: BTreeMap<SmolStr, Instant>,
}

/// Whether a name is free now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Mine,
    Held,
    Full,
}

impl Submitting {
    fn enter(&mut self, name: &SmolStr, now: Instant) -> Place {
        if self.names.get(name).is_some_and(|since| now < *since + DOUBT) {
            return Place::Held;
        }
        if self.names.len() >= SUBMITTING_MAX {
            self.names.retain(|_, since| now < *since + DOUBT);
        }
        if self.names.len() >= SUBMITTING_MAX {
            return Place::Full;
        }
        self.names.insert(name.clone(), now);
        Place::Mine
    }

    fn leave(&mut self, name: &SmolStr) {
        self.names.remove(name);
    }
}

/// The right to submit under a name. Dropped without `finish`, it leaves the name in doubt.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    api: &'a Api,
    name: SmolStr,
}

impl<'a> Turn<'a> {
    /// Waits until nobody submits under `name` at this node.
    ///
    /// Cancel safety: cancel safe.
    ///
    /// # Errors
    /// If that takes too long, or too many names are under way.
    pub(super) async fn take(api: &'a Api, name: &SmolStr) -> Result<Self, ApiError> {
        let mut news = News::of(&api.ctx.handle);
        // Whoever is in doubt now is not for longer than this.
        let deadline = Instant::now() + DOUBT + DOUBT;
        loop {
            match api.hub.submitting().enter(name, Instant::now()) {
                Place::Mine => return Ok(Self { api, name: name.clone() }),
                Place::Full => return Err(ApiError::Overloaded),
                Place::Held => {}
            }
            if is_known(api, name).await? {
                api.hub.submitting().leave(name);
            } else if Instant::now() >= deadline {
                return Err(ApiError::BeingSubmitted(name.to_string()));
            } else {
                news.wait(LOOK_EVERY, |event| event.spec.text("alias") == Some(name)).await?;
            }
        }
    }

    /// The submission was answered.
    pub(super) fn finish(self) {
        self.api.hub.submitting().leave(&self.name);
    }
}

async fn is_known(api: &Api, name: &SmolStr) -> Result<bool, ApiError> {
    let name = name.clone();
    api.ask(move |machine: &mut Machine, _now: Now| machine.facts().job_called(&name).is_some()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_until_it_is_left_or_the_doubt_is_over() {
        let (mut table, name, start) = (Submitting::default(), SmolStr::new("batch-001"), Instant::now());
        assert_eq!(table.enter(&name, start), Place::Mine);
        assert_eq!(table.enter(&name, start), Place::Held);
        assert_eq!(table.enter(&"other".into(), start), Place::Mine);
        table.leave(&name);
        assert_eq!(table.enter(&name, start), Place::Mine);
        assert_eq!(table.enter(&name, start + DOUBT), Place::Mine);
    }

    #[test]
    fn doubts_that_are_over_make_room() {
        let (mut table, start) = (Submitting::default(), Instant::now());
        for number in 0..SUBMITTING_MAX {
            assert_eq!(table.enter(&format!("{number}").into(), start), Place::Mine);
        }
        assert_eq!(table.enter(&"one more".into(), start), Place::Full);
        assert_eq!(table.enter(&"one more".into(), start + DOUBT), Place::Mine);
    }
}
