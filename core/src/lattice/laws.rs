//! The laws every lattice must obey, checked over all pairs and triples of samples.

use core::fmt::Debug;

use super::{Change, Lattice};

fn joined<L: Lattice + Clone>(left: &L, right: &L) -> (L, Change) {
    let mut result = left.clone();
    let change = result.join(right.clone());
    (result, change)
}

/// Panics unless `join` is idempotent, commutative, associative, has `default()` as its bottom, and reports change truthfully.
pub(crate) fn check_laws<L: Lattice + Clone + PartialEq + Debug>(samples: &[L]) {
    for a in samples {
        assert_eq!(joined(a, a), (a.clone(), Change::None), "idempotent");
        assert_eq!(joined(&L::default(), a).0, *a, "bottom on the left");
        assert_eq!(joined(a, &L::default()), (a.clone(), Change::None), "bottom on the right");
        for b in samples {
            let (ab, change) = joined(a, b);
            assert_eq!(ab, joined(b, a).0, "commutative");
            assert_eq!(change, Change::from(ab != *a), "truthful about change");
            for c in samples {
                assert_eq!(joined(&ab, c).0, joined(a, &joined(b, c).0).0, "associative");
            }
        }
    }
}
