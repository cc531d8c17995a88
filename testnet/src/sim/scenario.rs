//! Scenarios: one run as a file, to be kept and replayed (`testnet/scenarios/*.toml`).
//!
//! Invariants: reading what was written gives the same run; a key that is unknown or missing is an error, so that an old file never quietly means something else.
//! Does not: touch files; `cli` and the tests do.

use toml::{Table, Value};

use super::options::{EveryMs, Faults, Keep, Options, PerMille, Sabotage, Spreading, Watch};

/// A run, and what is expected of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For people: what it is about.
    pub about: String,
    /// The rule that it breaks; none if it must hold.
    pub breaks: Option<u8>,
    /// The run.
    pub options: Options,
}

/// Why a text is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not TOML.
    #[error("not a TOML document")]
    Toml(#[from] toml::de::Error),
    /// A key is missing or has another type.
    #[error("key `{0}` is missing, or is not what it should be")]
    Key(String),
    /// A key that no scenario has.
    #[error("unknown key `{0}`")]
    Unknown(String),
}

/// A fault's strength.
#[derive(Debug)]
pub(super) enum Field<'a> {
    Chance(&'a mut PerMille),
    Every(&'a mut EveryMs),
    Ms(&'a mut u64),
}

/// All faults, by name.
pub(super) fn fields(faults: &mut Faults) -> Vec<(&'static str, Field<'_>)> {
    // Taken apart so that a new fault cannot be left out.
    let Faults {
        loss,
        duplicate,
        reorder,
        corrupt,
        crash,
        crash_at_write,
        daemon_crash,
        clean_stop,
        partition,
        pause,
        full_disk,
        disk_ms_max,
        clock_step,
        clock_drift,
        hostile,
        fork,
        gone,
        twin,
        rollback,
        rot,
        delay_ms_max,
        relay_loss,
        worker_loss,
        old_version,
    } = faults;
    vec![
        ("loss", Field::Chance(loss)),
        ("duplicate", Field::Chance(duplicate)),
        ("reorder", Field::Chance(reorder)),
        ("corrupt", Field::Chance(corrupt)),
        ("crash", Field::Every(crash)),
        ("crash_at_write", Field::Chance(crash_at_write)),
        ("daemon_crash", Field::Every(daemon_crash)),
        ("clean_stop", Field::Every(clean_stop)),
        ("partition", Field::Every(partition)),
        ("pause", Field::Every(pause)),
        ("full_disk", Field::Every(full_disk)),
        ("disk_ms_max", Field::Ms(disk_ms_max)),
        ("clock_step", Field::Every(clock_step)),
        ("clock_drift", Field::Chance(clock_drift)),
        ("hostile", Field::Every(hostile)),
        ("fork", Field::Chance(fork)),
        ("gone", Field::Every(gone)),
        ("twin", Field::Every(twin)),
        ("rollback", Field::Every(rollback)),
        ("rot", Field::Every(rot)),
        ("delay_ms_max", Field::Ms(delay_ms_max)),
        ("relay_loss", Field::Every(relay_loss)),
        ("worker_loss", Field::Every(worker_loss)),
        ("old_version", Field::Chance(old_version)),
    ]
}

/// What of `keep` is less than everything.
fn kept(keep: &Keep) -> Table {
    let Keep { retain_ms, retain_jobs, snapshot_bytes, snapshot_ms } = *keep;
    let limited = |value: u64| Some(value).filter(|value| *value != u64::MAX);
    let values = [
        ("retain_ms", retain_ms),
        ("retain_jobs", (retain_jobs != usize::MAX).then_some(retain_jobs as u64)),
        ("snapshot_bytes", limited(snapshot_bytes)),
        ("snapshot_ms", limited(snapshot_ms)),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), number(value?)))).collect()
}

/// The reverse of `kept`.
fn take_keep(table: &mut Table) -> Result<Keep, ScenarioError> {
    let mut keep = Keep::ALL;
    let Some(Value::Table(mut given)) = table.remove("keep") else {
        return Ok(keep);
    };
    if given.contains_key("retain_ms") {
        keep.retain_ms = Some(take(&mut given, "retain_ms")?);
    }
    if given.contains_key("retain_jobs") {
        keep.retain_jobs = take(&mut given, "retain_jobs")?;
    }
    for (name, value) in [("snapshot_bytes", &mut keep.snapshot_bytes), ("snapshot_ms", &mut keep.snapshot_ms)] {
        if given.contains_key(name) {
            *value = take(&mut given, name)?;
        }
    }
    given.keys().next().map_or(Ok(keep), |key| Err(ScenarioError::Unknown(key.clone())))
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The variants of a sabotage by name: what `Debug` says.
fn sabotage(name: &str) -> Option<Sabotage> {
    Sabotage::ALL.iter().copied().find(|one| format!("{one:?}") == name)
}

impl Scenario {
    /// As TOML. Faults that are off are left out.
    #[must_use]
    pub fn to_text(&self) -> String {
        let options = &self.options;
        let mut table = Table::new();
        let mut put = |key: &str, value: Value| drop(table.insert(key.into(), value));
        put("about", Value::String(self.about.clone()));
        if let Some(rule) = self.breaks {
            put("breaks", number(rule.into()));
        }
        // As text: a seed may be larger than what TOML calls an integer.
        put("seed", Value::String(options.seed.to_string()));
        put("nodes", number(options.nodes as u64));
        put("safety_ms", number(options.safety_ms));
        put("submit_every_ms", number(options.submit_every_ms));
        put("workers", number(options.workers as u64));
        put("tasks_max", number(options.tasks_max.into()));
        put("as_bytes", number(options.as_bytes.0.into()));
        if options.sabotage != Sabotage::None {
            put("sabotage", Value::String(format!("{:?}", options.sabotage)));
        }
        let mut faults = Table::new();
        for (name, field) in fields(&mut options.faults.clone()) {
            let value = match field {
                Field::Chance(chance) => Some(u64::from(chance.0)).filter(|chance| *chance > 0),
                Field::Every(every) => *every,
                Field::Ms(ms) => Some(*ms),
            };
            if let Some(value) = value {
                faults.insert(name.into(), number(value));
            }
        }
        put("faults", Value::Table(faults));
        let keep = kept(&options.keep);
        if !keep.is_empty() {
            table.insert("keep".into(), Value::Table(keep));
        }
        table.to_string()
    }

    /// From TOML.
    ///
    /// # Errors
    /// If it is anything else than what `to_text` writes.
    pub fn from_text(text: &str) -> Result<Self, ScenarioError> {
        let mut table: Table = text.parse()?;
        let about = take_text(&mut table, "about")?;
        let seed = take_text(&mut table, "seed")?;
        let named = table.remove("sabotage").map(|value| value.as_str().and_then(sabotage));
        let breaks = table.remove("breaks").map(|value| value.as_integer().and_then(|rule| u8::try_from(rule).ok()));
        let mut options = Options {
            seed: seed.parse().map_err(|_error: std::num::ParseIntError| ScenarioError::Key("seed".into()))?,
            nodes: take(&mut table, "nodes")?,
            safety_ms: take(&mut table, "safety_ms")?,
            submit_every_ms: take(&mut table, "submit_every_ms")?,
            workers: take(&mut table, "workers")?,
            tasks_max: take(&mut table, "tasks_max")?,
            faults: Faults::NONE,
            keep: take_keep(&mut table)?,
            as_bytes: PerMille(take(&mut table, "as_bytes")?),
            sabotage: named
                .map_or(Ok(Sabotage::None), |one| one.ok_or_else(|| ScenarioError::Key("sabotage".into())))?,
            spread: Spreading::Direct,
            watch: Watch::Close,
            lines: 0,
        };
        let Some(Value::Table(mut faults)) = table.remove("faults") else {
            return Err(ScenarioError::Key("faults".into()));
        };
        for (name, field) in
            fields(&mut options.faults).into_iter().filter(|(name, _)| faults.contains_key(*name)).collect::<Vec<_>>()
        {
            match field {
                Field::Chance(chance) => *chance = PerMille(take(&mut faults, name)?),
                Field::Every(every) => *every = Some(take(&mut faults, name)?),
                Field::Ms(ms) => *ms = take(&mut faults, name)?,
            }
        }
        if let Some(key) = table.keys().chain(faults.keys()).next() {
            return Err(ScenarioError::Unknown(key.clone()));
        }
        let breaks = breaks.map(|rule| rule.ok_or_else(|| ScenarioError::Key("breaks".into()))).transpose()?;
        Ok(Self { about, breaks, options })
    }
}

fn take_text(table: &mut Table, key: &str) -> Result<String, ScenarioError> {
    match table.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) | None => Err(ScenarioError::Key(key.into())),
    }
}

fn take<N: TryFrom<i64>>(table: &mut Table, key: &str) -> Result<N, ScenarioError> {
    let found = table.remove(key).and_then(|value| value.as_integer());
    found.and_then(|value| N::try_from(value).ok()).ok_or_else(|| ScenarioError::Key(key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_to_the_same_run() {
        for seed in (0..40).chain([u64::MAX]) {
            let sabotage = Sabotage::ALL[usize::try_from(seed % Sabotage::ALL.len() as u64).unwrap()];
            let options = Options { sabotage, ..Options::draw(seed) };
            let scenario = Scenario { about: "a test".into(), breaks: Some(9), options };
            let text = scenario.to_text();
            let again = Scenario::from_text(&text).unwrap();
            assert_eq!(format!("{again:?}"), format!("{scenario:?}"), "{text}");
        }
    }

    #[test]
    fn keys_that_are_unknown_missing_or_wrong_are_named() {
        let text = Scenario { about: String::new(), breaks: None, options: Options::draw(3) }.to_text();
        let error = |text: &str| Scenario::from_text(text).unwrap_err().to_string();
        assert!(error(&text.replace("nodes", "birds")).contains("`nodes`"));
        assert!(error(&format!("wings = 2\n{text}")).contains("`wings`"));
        assert!(error(&text.replace("about", "sabotage = \"Theft\"\nabout")).contains("`sabotage`"));
        assert!(error("seed = ").contains("not a TOML"));
    }
}
