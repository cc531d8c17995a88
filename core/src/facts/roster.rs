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
        Self { name: Max::new(Name { hlc, text }) }
    }

    /// The current name; empty if none is known.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.0.as_ref().map_or("", |name| name.text.as_str())
    }
}

impl Lattice for NodeInfo {
    fn join(&mut self, other: Self) -> Change {
        self.name.join(other.name)
    }
}
