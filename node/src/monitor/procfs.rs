//! What `/proc` says of processes and network interfaces.
//!
//! Invariants: text that does not look as expected yields nothing, never wrong numbers.
//! Does not: open files.

/// One process, from its `stat` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its process group.
    pub(super) group: u32,
    /// CPU time of it and of the children it waited for, clock ticks.
    pub(super) cpu_ticks: u64,
    /// Resident memory.
    pub(super) rss_pages: u64,
}

/// Reads `/proc/<pid>/stat` (see proc(5)).
pub(super) fn process(stat: &str) -> Option<Process> {
    // Field 2 may contain anything, and ends at the last parenthesis; field 3 comes next.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // Field 5.
    let group = fields.nth(2)?.parse().ok()?;
    // Fields 14 to 17: utime stime cutime cstime. Those of children may be negative for a moment.
    let ticks = |field: &str| field.parse::<i64>().ok().map(|ticks| u64::try_from(ticks).unwrap_or(0));
    let mut cpu_ticks = ticks(fields.nth(8)?)?;
    for _ in 0..3 {
        cpu_ticks += ticks(fields.next()?)?;
    }
    // Field 24.
    let rss_pages = fields.nth(6)?.parse().ok()?;
    Some(Process { group, cpu_ticks, rss_pages })
}

/// Bytes that went over interfaces since they came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Received.
    pub(super) rx_bytes: u64,
    /// Sent.
    pub(super) tx_bytes: u64,
}

/// Adds up `/proc/net/dev` over all interfaces but loopback.
pub(super) fn traffic(dev: &str) -> Traffic {
    let mut sum = Traffic::default();
    // Two header lines hold no colon before a name; they fail to parse.
    for line in dev.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let mut numbers = counters.split_ascii_whitespace().map_while(|number| number.parse::<u64>().ok());
        // Bytes are the first of eight counters each way.
        if let (Some(rx), Some(tx)) = (numbers.next(), numbers.nth(7)) {
            sum.rx_bytes = sum.rx_bytes.saturating_add(rx);
            sum.tx_bytes = sum.tx_bytes.saturating_add(tx);
        }
    }
    sum
}
