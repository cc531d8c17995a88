//! Who was refused, told without flooding the log.
//!
//! Invariants: one telling per address in `REFUSAL_QUIET`; the memory for that is bounded.
//! Does not: refuse (`transport` does).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::challenge::{ChallengeError, Role};
use crate::event::RefusedReason;
use crate::limits;
use crate::transport::UpgradeError;

/// Somebody, as far as a repeated refusal can be recognised: dialled peers by address, callers
/// by host, because their port is new each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Dialled(SocketAddr),
    Caller(IpAddr),
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    told: BTreeMap<Who, Instant>,
}

impl Refusals {
    /// Whether this refusal should be told.
    pub(crate) fn is_news(&mut self, addr: SocketAddr, role: Role, now: Instant) -> bool {
        let who = match role {
            Role::Dialer => Who::Dialled(addr),
            Role::Listener => Who::Caller(addr.ip()),
        };
        self.told.retain(|_, at| now.saturating_duration_since(*at) < limits::REFUSAL_QUIET);
        if self.told.contains_key(&who) || self.told.len() == limits::REFUSALS_MAX {
            return false;
        }
        self.told.insert(who, now);
        true
    }
}

/// What a user should hear of a failed upgrade; `None` for strangers, garbage and broken connections.
pub(crate) fn reason(error: &UpgradeError) -> Option<RefusedReason> {
    match error {
        UpgradeError::Challenge(ChallengeError::WrongSecret) => Some(RefusedReason::WrongSecret),
        UpgradeError::Challenge(ChallengeError::Timeout) => Some(RefusedReason::NoProof),
        UpgradeError::Challenge(ChallengeError::Version(_)) => Some(RefusedReason::OtherVersion),
        UpgradeError::Twin => Some(RefusedReason::SameIdentity),
        UpgradeError::Challenge(ChallengeError::Io(_))
        | UpgradeError::Noise(_)
        | UpgradeError::Identity
        | UpgradeError::Myself
        | UpgradeError::OtherPeer { .. }
        | UpgradeError::Muxer(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::Refusals;
    use crate::challenge::Role;
    use crate::limits;

    #[test]
    fn refusal_is_told_once_in_a_while() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        assert!(refusals.is_news("10.0.0.1:1".parse().unwrap(), Role::Listener, now));
        assert!(!refusals.is_news("10.0.0.1:2".parse().unwrap(), Role::Listener, now));
        assert!(refusals.is_news("10.0.0.2:1".parse().unwrap(), Role::Listener, now));
        assert!(refusals.is_news("10.0.0.1:1".parse().unwrap(), Role::Dialer, now));
        let later = now + limits::REFUSAL_QUIET;
        assert!(refusals.is_news("10.0.0.1:3".parse().unwrap(), Role::Listener, later));
    }

    #[test]
    fn memory_is_bounded() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let told = (0..5_000u16).filter(|port| refusals.is_news(([10, 0, 0, 1], *port).into(), Role::Dialer, now));
        assert_eq!(told.count(), limits::REFUSALS_MAX);
    }
}
