//! Peer names: the 32 bytes of an ed25519 public key, and their libp2p form.
//!
//! Invariants: a `PeerKey` taken from a connection was authenticated by the transport.
//! Does not: know node ids of the log; they happen to be the same bytes.

use std::fmt;

use libp2p::PeerId;
use libp2p::identity::{self, Keypair, PublicKey};

/// A peer: its ed25519 public key, 32 bytes. Any bytes can be held; only keys that
/// are points of the curve can be dialled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// The key that belongs to an ed25519 seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = keypair(seed);
        Self::from_public(&pair.public()).expect("an ed25519 pair has an ed25519 public key")
    }

    /// `None` for identities that are not ed25519.
    pub(crate) fn from_peer_id(peer: &PeerId) -> Option<Self> {
        // An ed25519 id is an identity multihash of the protobuf-encoded key.
        let multihash = peer.as_ref();
        if multihash.code() != 0 {
            return None;
        }
        let public = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
        Self::from_public(&public)
    }

    /// `None` when the bytes are no public key.
    pub(crate) fn peer_id(self) -> Option<PeerId> {
        let public = identity::ed25519::PublicKey::try_from_bytes(&self.0).ok()?;
        Some(PublicKey::from(public).to_peer_id())
    }

    fn from_public(public: &PublicKey) -> Option<Self> {
        let ed25519 = public.clone().try_into_ed25519().ok()?;
        Some(Self(ed25519.to_bytes()))
    }
}

/// The libp2p key pair of a seed. Every 32 bytes are a valid seed.
pub(crate) fn keypair(mut seed: [u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(&mut seed[..]).expect("any 32 bytes are an ed25519 seed")
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::PeerKey;

    #[test]
    fn peer_id_and_key_convert_both_ways() {
        let key = PeerKey::from_seed([7; 32]);
        let peer = key.peer_id().unwrap();
        assert_eq!(PeerKey::from_peer_id(&peer), Some(key));
        assert_eq!(format!("{key:?}").len(), 8);
    }

    #[test]
    fn bytes_that_are_no_key_have_no_peer_id() {
        // y = 2 is not on the curve.
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert_eq!(PeerKey(bytes).peer_id(), None);
    }
}
