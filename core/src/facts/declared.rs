//! Declared namespaces as the log has them: every declaration that was ever registered, by its hash.
//!
//! Invariants: a declaration is named by its content, so two that were registered under one name and version on two sides of a partition stay apart: jobs
//! keep the one they were submitted under. Which one a new submission gets is a query: the highest version, of several the earliest registered.
//! Does not: check declarations (`Declaration::check` does, before they are registered).

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

use crate::ids::{Hash, NodeId};
use crate::lattice::{Change, Lattice, Min};
use crate::namespace::Declaration;
use crate::time::Hlc;

/// Who registered a declaration, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Registration {
    /// When.
    #[n(0)]
    pub hlc: Hlc,
    /// At which node.
    #[n(1)]
    pub by: NodeId,
}

/// One declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The document.
    pub declaration: Arc<Declaration>,
    /// Its earliest registration.
    pub first: Min<Registration>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    by_hash: BTreeMap<Hash, Declared>,
}

impl Declarations {
    /// What one registration says.
    #[must_use]
    pub fn one(declaration: Declaration, registration: Registration) -> Self {
        let hash = declaration.id();
        let declared = Declared { declaration: Arc::new(declaration), first: Min::new(registration) };
        Self { by_hash: BTreeMap::from([(hash, declared)]) }
    }

    /// The declaration with this hash.
    #[must_use]
    pub fn by_hash(&self, hash: &Hash) -> Option<&Arc<Declaration>> {
        self.by_hash.get(hash).map(|declared| &declared.declaration)
    }

    /// Every declaration of a name: versions descending, of one version the earliest registered first.
    #[must_use]
    pub fn called(&self, name: &str) -> Vec<(Hash, &Declared)> {
        let mut found: Vec<(Hash, &Declared)> =
            self.iter().filter(|(_, one)| one.declaration.spec.name == name).collect();
        found.sort_by_key(|(hash, one)| (core::cmp::Reverse(one.declaration.version), one.first, *hash));
        found
    }

    /// The declaration that a new submission to this name gets.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<(Hash, &Arc<Declaration>)> {
        self.called(name).first().map(|(hash, one)| (*hash, &one.declaration))
    }

    /// All, by hash.
    pub fn iter(&self) -> impl Iterator<Item = (Hash, &Declared)> {
        self.by_hash.iter().map(|(hash, one)| (*hash, one))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

impl Lattice for Declarations {
    fn join(&mut self, other: Self) -> Change {
        let mut change = Change::None;
        for (hash, theirs) in other.by_hash {
            match self.by_hash.entry(hash) {
                btree_map::Entry::Vacant(entry) => {
                    entry.insert(theirs);
                    change = Change::Grew;
                }
                btree_map::Entry::Occupied(mut entry) => change = change.or(entry.get_mut().first.join(theirs.first)),
            }
        }
        change
    }
}

/// Wire form: a map from hash to `[bytes, registration]`.
impl<C> Encode<C> for Declarations {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.map(self.by_hash.len() as u64)?;
        for (hash, one) in &self.by_hash {
            hash.encode(e, ctx)?;
            e.array(2)?.bytes(&one.declaration.to_bytes())?;
            one.first.encode(e, ctx)?;
        }
        Ok(())
    }
}
