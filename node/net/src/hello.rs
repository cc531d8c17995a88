//! What linked peers tell each other about addresses: their own at the start, their neighbours' soon after.
//!
//! With it one `--join` address is enough: a newcomer learns from its first neighbour whom else to dial.
//!
//! Invariants: decoding is total and bounded; whatever exceeds a bound is `None`.
//! Does not: trust what it reads beyond dialling it once (the challenge decides).

use std::net::{IpAddr, SocketAddr};

use crate::key::PeerKey;
use crate::limits;

/// A peer and where it may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) peer: PeerKey,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Addresses, at most `ADDRESSES_PER_PEER_MAX` of them; the rest is left out.
pub(crate) fn encode_addresses(addresses: &[SocketAddr], out: &mut Vec<u8>) {
    let addresses = &addresses[..addresses.len().min(limits::ADDRESSES_PER_PEER_MAX)];
    out.push(u8::try_from(addresses.len()).expect("a handful of addresses"));
    for addr in addresses {
        match addr.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend(ip.octets());
            }
        }
        out.extend(addr.port().to_be_bytes());
    }
}

/// Introductions, at most `INTRODUCED_MAX` of them; the rest is left out.
pub(crate) fn encode_introductions(introductions: &[Introduction]) -> Vec<u8> {
    let mut out = Vec::new();
    for introduction in introductions.iter().take(limits::INTRODUCED_MAX) {
        out.extend(introduction.peer.0);
        encode_addresses(&introduction.addresses, &mut out);
    }
    out
}

/// The inverse of `encode_addresses`; bytes after them are ignored, for later versions.
pub(crate) fn decode_addresses(mut bytes: &[u8]) -> Option<Vec<SocketAddr>> {
    take_addresses(&mut bytes)
}

/// The inverse of `encode_introductions`.
pub(crate) fn decode_introductions(mut bytes: &[u8]) -> Option<Vec<Introduction>> {
    let mut introductions = Vec::new();
    while !bytes.is_empty() {
        if introductions.len() == limits::INTRODUCED_MAX {
            return None;
        }
        let peer = PeerKey(take(&mut bytes)?);
        introductions.push(Introduction { peer, addresses: take_addresses(&mut bytes)? });
    }
    Some(introductions)
}

fn take_addresses(bytes: &mut &[u8]) -> Option<Vec<SocketAddr>> {
    let [count] = take(bytes)?;
    if usize::from(count) > limits::ADDRESSES_PER_PEER_MAX {
        return None;
    }
    (0..count)
        .map(|_| {
            let ip = match take(bytes)? {
                [4] => IpAddr::from(take::<4>(bytes)?),
                [6] => IpAddr::from(take::<16>(bytes)?),
                [_] => return None,
            };
            Some(SocketAddr::new(ip, u16::from_be_bytes(take(bytes)?)))
        })
        .collect()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::{Introduction, decode_addresses, decode_introductions, encode_addresses, encode_introductions};
    use crate::key::PeerKey;
    use crate::limits;

    #[test]
    fn introductions_survive_the_wire() {
        let addresses = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:65535".parse().unwrap()];
        let said: Vec<_> =
            (0..3).map(|n| Introduction { peer: PeerKey([n; 32]), addresses: addresses.clone() }).collect();
        let bytes = encode_introductions(&said);
        assert_eq!(decode_introductions(&bytes), Some(said));
        for cut in 1..bytes.len() {
            // No cut panics; those inside an entry are refused.
            let _ = decode_introductions(&bytes[..cut]);
        }
        assert_eq!(decode_introductions(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn too_much_is_left_out_and_refused() {
        let many = vec!["127.0.0.1:1".parse().unwrap(); 100];
        let mut bytes = Vec::new();
        encode_addresses(&many, &mut bytes);
        assert_eq!(decode_addresses(&bytes).unwrap().len(), limits::ADDRESSES_PER_PEER_MAX);
        bytes[0] = 200;
        assert_eq!(decode_addresses(&bytes), None);
        let crowd = [0; 33].repeat(limits::INTRODUCED_MAX + 1);
        assert_eq!(decode_introductions(&crowd), None);
    }
}
