//! Liveness: how often a node speaks, and after how much silence others go on without it.
//!
//! Invariants: a node is given several heartbeats before it is taken for dead.
//! Does not: judge who is alive (`core::schedule::Fleet` does).

use starling_core::config::Config as CoreConfig;

use super::{ConfigError, Set, Source, named, pick, variable};
use crate::cli::{LivenessArgs, Millis, units};

const HEARTBEAT_MS: u64 = 1_000;
const GRACE_MS: u64 = 6_000;
/// Faster than this a busy node would be late, slower than this nobody would notice a death.
const HEARTBEAT_MS_RANGE: std::ops::RangeInclusive<u64> = 100..=60_000;
/// Heartbeats of silence that a node is given at least.
const GRACE_BEATS: u64 = 4;

/// How often a node speaks, and how long it may be silent. All nodes of a cluster should have the same.
#[derive(Clone, Debug)]
pub struct Liveness {
    /// Time between two presences. Low: traffic grows with the square of the cluster. High: deaths and free slots are noticed late.
    pub heartbeat_ms: Set<u64>,
    /// Silence after which a node's tasks are granted again; after five thirds of it another node takes over its queue. Low: tasks run twice after a hiccup.
    /// High: they wait.
    pub grace_ms: Set<u64>,
}

impl Liveness {
    /// Resolves the flags against environment, file and defaults.
    pub(super) fn resolve(
        args: &LivenessArgs,
        heartbeat: Option<&str>,
        grace: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let file = |what, text: Option<&str>| text.map(|text| named(what, text, millis)).transpose();
        let flag = |value: Option<Millis>| value.map(|value| value.0);
        let resolved = Self {
            heartbeat_ms: pick(
                flag(args.heartbeat),
                variable("STARLING_HEARTBEAT", millis)?,
                file("heartbeat", heartbeat)?,
                HEARTBEAT_MS,
            ),
            grace_ms: pick(flag(args.grace), variable("STARLING_GRACE", millis)?, file("grace", grace)?, GRACE_MS),
        };
        resolved.check()
    }

    fn check(self) -> Result<Self, ConfigError> {
        let (heartbeat, grace) = (self.heartbeat_ms.value, self.grace_ms.value);
        let wrong = |what, ms, reason| Err(ConfigError::Value { what, value: units::duration(ms), reason });
        if !HEARTBEAT_MS_RANGE.contains(&heartbeat) {
            return wrong("heartbeat", heartbeat, "expected 100ms to 60s".to_owned());
        }
        if grace < heartbeat * GRACE_BEATS {
            let least = units::duration(heartbeat * GRACE_BEATS);
            return wrong("grace", grace, format!("expected at least {GRACE_BEATS} heartbeats, which is {least}"));
        }
        Ok(self)
    }

    /// Sets what follows from it.
    pub fn apply(&self, core: &mut CoreConfig) {
        let (heartbeat, grace) = (self.heartbeat_ms.value, self.grace_ms.value);
        core.presence_ms = heartbeat;
        core.suspect_ms = heartbeat * 3;
        core.gateway_gone_ms = heartbeat * 2;
        core.dead_ms = grace;
        core.adopt_ms = grace * 5 / 3;
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String, Source)> {
        let line = |name, ms: &Set<u64>| (name, units::duration(ms.value), ms.source);
        vec![line("heartbeat", &self.heartbeat_ms), line("grace", &self.grace_ms)]
    }
}

fn millis(text: &str) -> Result<u64, String> {
    text.parse::<Millis>().map(|ms| ms.0)
}

#[cfg(test)]
mod tests {
    use starling_core::resources::Resources;

    use super::*;

    fn at(heartbeat: Option<u64>, grace: Option<u64>) -> Result<Liveness, String> {
        let args = LivenessArgs { heartbeat: heartbeat.map(Millis), grace: grace.map(Millis) };
        Liveness::resolve(&args, None, None).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let mut core = CoreConfig::new("wren", Resources::default());
        at(None, None).unwrap().apply(&mut core);
        let seen = (core.presence_ms, core.suspect_ms, core.gateway_gone_ms, core.dead_ms, core.adopt_ms);
        let plain = CoreConfig::new("wren", Resources::default());
        let wanted = (plain.presence_ms, plain.suspect_ms, plain.gateway_gone_ms, plain.dead_ms, plain.adopt_ms);
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_grace_of_less_than_four_heartbeats_is_refused() {
        assert!(at(Some(2_000), Some(8_000)).is_ok());
        let error = at(Some(2_000), Some(7_999)).unwrap_err();
        assert!(error.contains("grace") && error.contains("at least 4 heartbeats"), "{error}");
        assert!(at(Some(50), None).unwrap_err().contains("expected 100ms to 60s"));
        assert!(Liveness::resolve(&LivenessArgs::default(), Some("soon"), None).is_err());
    }
}
