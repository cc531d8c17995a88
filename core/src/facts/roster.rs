//! The roster: every node that ever proved membership.

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

use crate::lattice::{Change, Lattice, Max};
use crate::time::Hlc;

/// What the log says of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NodeInfo {
    /// The name it gave itself last.
    #[n(0)]
    pub name: Max<Name>,
    /// When it was said last that it is gone for good.
    #[n(1)]
    pub forgotten: Option<Hlc>,
    /// The last word on whether it takes work.
    #[n(2)]
    pub drain: Option<Drain>,
}

/// Whether a node takes work, as an operator said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Drain {
    /// When it was said.
    #[n(0)]
    pub hlc: Hlc,
    /// It takes none.
    #[n(1)]
    pub on: bool,
    /// Why, for people.
    #[cbor(n(2), with = "crate::facts::text")]
    pub reason: SmolStr,
}

/// A name and when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Name {
    /// When.
    #[n(0)]
    pub hlc: Hlc,
    /// The name.
    #[cbor(n(1), with = "crate::facts::text")]
    pub text: SmolStr,
}

impl NodeInfo {
    /// A node called `text` since `hlc`.
    #[must_use]
    pub fn named(hlc: Hlc, text: SmolStr) -> Self {
        Self { name: Max::new(Name { hlc, text }), ..Self::default() }
    }

    /// A node that was said to be gone for good at `hlc`.
    #[must_use]
    pub fn forgotten(hlc: Hlc) -> Self {
        Self { forgotten: Some(hlc), ..Self::default() }
    }

    /// An operator said whether a node takes work.
    #[must_use]
    pub fn drained(drain: Drain) -> Self {
        Self { drain: Some(drain), ..Self::default() }
    }

    /// Why it takes no work, if an operator said that it should take none.
    #[must_use]
    pub fn drain(&self) -> Option<&Drain> {
        self.drain.as_ref().filter(|drain| drain.on)
    }

    /// Whether it is gone for good: it opened no log since that was said.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten > self.name.0.as_ref().map(|name| name.hlc)
    }

    /// The current name; empty if none is known.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.0.as_ref().map_or("", |name| name.text.as_str())
    }
}

impl Lattice for NodeInfo {
    fn join(&mut self, other: Self) -> Change {
        let forgotten = other.forgotten > self.forgotten;
        if forgotten {
            self.forgotten = other.forgotten;
        }
        let drain = other.drain > self.drain;
        if drain {
            self.drain = other.drain;
        }
        self.name.join(other.name).or(Change::from(forgotten || drain))
    }
}
