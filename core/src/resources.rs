//! What tasks need and nodes have.

use minicbor::{Decode, Encode};

/// Processor and memory, reserved as counted, not enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Resources {
    /// Thousandths of a core.
    #[n(0)]
    pub cpu_milli: u64,
    /// Bytes of memory.
    #[n(1)]
    pub mem_bytes: u64,
}

impl Resources {
    /// Whether `self` holds at least `need` of everything.
    #[must_use]
    pub fn covers(&self, need: &Self) -> bool {
        self.cpu_milli >= need.cpu_milli && self.mem_bytes >= need.mem_bytes
    }

    /// How many times `need` fits. A need of nothing fits as often as there are cores, at least once on a node that has any.
    #[must_use]
    pub fn slots(&self, need: &Self) -> u32 {
        let by = |have: u64, need: u64| have.checked_div(need).unwrap_or(u64::MAX);
        let fits = by(self.cpu_milli, need.cpu_milli).min(by(self.mem_bytes, need.mem_bytes));
        let bound = (self.cpu_milli / 1_000).max(1).max(if need.cpu_milli > 0 { fits } else { 0 });
        u32::try_from(fits.min(bound)).unwrap_or(u32::MAX)
    }

    /// `self` and `times` times `other`, saturating.
    #[must_use]
    pub fn plus(&self, other: &Self, times: u64) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli.saturating_mul(times)),
            mem_bytes: self.mem_bytes.saturating_add(other.mem_bytes.saturating_mul(times)),
        }
    }

    /// `self` less `times` times `other`, at least nothing.
    #[must_use]
    pub fn minus(&self, other: &Self, times: u64) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli.saturating_mul(times)),
            mem_bytes: self.mem_bytes.saturating_sub(other.mem_bytes.saturating_mul(times)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_count_the_scarcer_resource() {
        let node = Resources { cpu_milli: 4_000, mem_bytes: 10 };
        assert_eq!(node.slots(&Resources { cpu_milli: 1_000, mem_bytes: 0 }), 4);
        assert_eq!(node.slots(&Resources { cpu_milli: 500, mem_bytes: 4 }), 2);
        assert_eq!(node.slots(&Resources { cpu_milli: 0, mem_bytes: 11 }), 0);
        assert_eq!(node.slots(&Resources::default()), 4);
    }
}
