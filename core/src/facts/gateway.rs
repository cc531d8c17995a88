//! The gateway: who claims to serve workers from outside, and which tokens let them in.
//!
//! Invariants: a lattice in every part; of two claims the greater term counts, of one term the greater node, so that all nodes agree on one holder;
//! a revoked token stays revoked. Tokens are known by their hash only.
//! Does not: say whether the holder acts (`election` does, at the holder) or lives (`schedule::Fleet`).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use smol_str::SmolStr;

use super::Registration;
use crate::ids::{GatewayTerm, Hash, NodeId};
use crate::lattice::{Change, Lattice, Max, Min};
use crate::time::Hlc;

/// A node's claim to be the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Claim {
    /// Rises with every claim.
    #[n(0)]
    pub term: GatewayTerm,
    /// Who claims.
    #[n(1)]
    pub node: NodeId,
    /// When.
    #[n(2)]
    pub hlc: Hlc,
}

/// A token that lets workers and clients in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Token {
    /// For people.
    #[cbor(n(0), with = "crate::facts::text")]
    pub name: SmolStr,
    /// When, and at which node, it was added.
    #[n(1)]
    pub added: Min<Registration>,
    /// When, and at which node, it was revoked.
    #[n(2)]
    pub revoked: Min<Registration>,
}

impl Token {
    /// Whether it lets anybody in.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.added.0.is_some() && self.revoked.0.is_none()
    }
}

impl Lattice for Token {
    fn join(&mut self, other: Self) -> Change {
        let named = other.name > self.name;
        if named {
            self.name = other.name;
        }
        Change::from(named).or(self.added.join(other.added)).or(self.revoked.join(other.revoked))
    }
}

/// What the log says of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Gateway {
    /// The claim that counts.
    #[n(0)]
    pub claim: Max<Claim>,
    /// Tokens by the hash of their text.
    #[n(1)]
    pub tokens: BTreeMap<Hash, Token>,
}

impl Gateway {
    /// A claim.
    #[must_use]
    pub fn claimed(claim: Claim) -> Self {
        Self { claim: Max::new(claim), ..Self::default() }
    }

    /// A token was added.
    #[must_use]
    pub fn added(hash: Hash, name: SmolStr, at: Registration) -> Self {
        let token = Token { name, added: Min::new(at), revoked: Min::default() };
        Self { tokens: BTreeMap::from([(hash, token)]), ..Self::default() }
    }

    /// A token was revoked.
    #[must_use]
    pub fn revoked(hash: Hash, at: Registration) -> Self {
        let token = Token { revoked: Min::new(at), ..Token::default() };
        Self { tokens: BTreeMap::from([(hash, token)]), ..Self::default() }
    }

    /// The claim that counts, if anybody claimed.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        self.claim.0.as_ref()
    }

    /// Whether `node` is the holder under this very term. Whoever passes on what a gateway says asks this first: one that was superseded is not obeyed.
    #[must_use]
    pub fn is_held_by(&self, node: &NodeId, term: GatewayTerm) -> bool {
        self.claim().is_some_and(|claim| claim.node == *node && claim.term == term)
    }

    /// Tokens that let somebody in.
    pub fn valid_tokens(&self) -> impl Iterator<Item = (&Hash, &Token)> {
        self.tokens.iter().filter(|(_, token)| token.is_valid())
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claim.0.is_none() && self.tokens.is_empty()
    }
}

impl Lattice for Gateway {
    fn join(&mut self, other: Self) -> Change {
        self.claim.join(other.claim).or(self.tokens.join(other.tokens))
    }
}
