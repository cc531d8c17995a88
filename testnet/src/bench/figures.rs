//! One measured figure and what it is compared with.

use anyhow::Context as _;

/// What a figure stands beside.
#[derive(Clone, Debug)]
pub enum Beside {
    /// A floor measured in the same run.
    Floor(&'static str, f64),
    /// A peer's figure, quoted.
    Peer(&'static str, f64),
    /// What the project aims at.
    Target(f64),
    /// What it must not exceed, which may be zero.
    Most(f64),
    /// Nothing: it is a floor itself.
    Nothing,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    beside: Beside,
}

impl Figure {
    /// A figure.
    #[must_use]
    pub fn new(name: &'static str, value: f64, unit: &'static str, beside: Beside) -> Self {
        Self { name, value, unit, beside }
    }

    fn other(&self) -> Option<(String, f64)> {
        match self.beside {
            Beside::Floor(what, value) => Some((format!("floor: {what}"), value)),
            Beside::Peer(who, value) => Some((format!("peer: {who}"), value)),
            Beside::Target(value) => Some(("target".to_owned(), value)),
            Beside::Most(value) => Some(("at most".to_owned(), value)),
            Beside::Nothing => None,
        }
    }

    /// The table's head.
    #[must_use]
    pub fn header() -> String {
        format!("{:<26} {:>12} {:<9} {:>12} {:>7}  {}", "NAME", "VALUE", "UNIT", "BESIDE", "RATIO", "WHICH")
    }

    /// A row of the table.
    #[must_use]
    pub fn row(&self) -> String {
        let (which, value, ratio) = match self.other() {
            Some((which, value)) => (which, format!("{value:.1}"), ratio(self.value, value, 2)),
            None => (String::new(), String::new(), String::new()),
        };
        format!("{:<26} {:>12.2} {:<9} {value:>12} {ratio:>7}  {which}", self.name, self.value, self.unit)
    }

    /// A line of JSON. Names and units hold nothing that would need escaping.
    #[must_use]
    pub fn json(&self) -> String {
        let beside = self.other().map_or_else(String::new, |(which, value)| {
            let ratio = match ratio(self.value, value, 3) {
                ratio if ratio.is_empty() => "null".to_owned(),
                ratio => ratio,
            };
            format!(",\"beside\":\"{which}\",\"beside_value\":{value:.3},\"ratio\":{ratio}")
        });
        let (name, value, unit) = (self.name, self.value, self.unit);
        format!("{{\"v\":1,\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"{beside}}}")
    }
}

/// Nothing beside zero.
fn ratio(value: f64, beside: f64, digits: usize) -> String {
    if beside == 0.0 { String::new() } else { format!("{:.digits$}", value / beside) }
}

/// How many of something, as the environment says.
pub(super) fn count(variable: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is no number")),
        Err(_) => Ok(default),
    }
}

/// The value below which `share` of the samples lie.
#[must_use]
pub(super) fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let wanted = samples.len() as f64 * share;
    // Found by counting, so that no float becomes an index.
    let place = (1..samples.len()).take_while(|below| (*below as f64) < wanted).count();
    samples.get(place).copied().unwrap_or(f64::NAN)
}
