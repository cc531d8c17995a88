//! Socket addresses and multiaddresses.
//!
//! Invariants: only addresses of the configured transport are understood; anything else is `None`, never a guess.
//! Does not: resolve names.

use std::net::{IpAddr, SocketAddr};

use libp2p::multiaddr::{Multiaddr, Protocol};

use crate::config::Transport;
use crate::key::PeerKey;

/// `/ip4/…/tcp/…`, or `/ip4/…/udp/…/quic-v1`.
pub(crate) fn to_multiaddr(addr: SocketAddr, over: Transport) -> Multiaddr {
    let ip = Multiaddr::from(addr.ip());
    match over {
        Transport::Tcp => ip.with(Protocol::Tcp(addr.port())),
        #[cfg(feature = "quic")]
        Transport::Quic => ip.with(Protocol::Udp(addr.port())).with(Protocol::QuicV1),
    }
}

/// The socket address at the front of a multiaddress, if it is of that transport.
pub(crate) fn to_socket(addr: &Multiaddr, over: Transport) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match (over, parts.next()?) {
        (Transport::Tcp, Protocol::Tcp(port)) => Some(SocketAddr::new(ip, port)),
        #[cfg(feature = "quic")]
        (Transport::Quic, Protocol::Udp(port)) if parts.next() == Some(Protocol::QuicV1) => {
            Some(SocketAddr::new(ip, port))
        }
        _ => None,
    }
}

/// The peer that a multiaddress ends with, if it names one.
pub(crate) fn expected_peer(addr: &Multiaddr) -> Option<PeerKey> {
    addr.iter().find_map(|part| match part {
        Protocol::P2p(peer) => PeerKey::from_peer_id(&peer),
        _ => None,
    })
}

/// Whether a peer that we reach at `via` could be dialled at `addr` too: never at an unspecified
/// address or at a link-local one (it needs the name of an interface, which differs), and at a loopback address only
/// by somebody on the same host.
pub(crate) fn is_usable(addr: &SocketAddr, via: IpAddr) -> bool {
    let ip = addr.ip();
    addr.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
        && (!ip.is_loopback() || via.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{expected_peer, is_usable, to_multiaddr, to_socket};
    use crate::config::Transport;
    use crate::key::PeerKey;
    use libp2p::multiaddr::{Multiaddr, Protocol};

    #[test]
    fn addresses_convert_both_ways() {
        for text in ["127.0.0.1:80", "[::1]:8080"] {
            let addr = text.parse().unwrap();
            assert_eq!(to_socket(&to_multiaddr(addr, Transport::Tcp), Transport::Tcp), Some(addr));
        }
        let quic: Multiaddr = "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap();
        assert_eq!(to_socket(&quic, Transport::Tcp), None);
        #[cfg(feature = "quic")]
        assert_eq!(to_socket(&quic, Transport::Quic), Some("127.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn expected_peer_is_read_from_the_end() {
        let key = PeerKey::from_seed([1; 32]);
        let addr =
            to_multiaddr("127.0.0.1:80".parse().unwrap(), Transport::Tcp).with(Protocol::P2p(key.peer_id().unwrap()));
        assert_eq!(expected_peer(&addr), Some(key));
    }

    #[test]
    fn loopback_is_for_the_same_host_only() {
        let addr = "127.0.0.1:80".parse().unwrap();
        assert!(is_usable(&addr, "127.0.0.1".parse().unwrap()));
        assert!(!is_usable(&addr, "10.0.0.1".parse().unwrap()));
        assert!(!is_usable(&"0.0.0.0:80".parse().unwrap(), "127.0.0.1".parse().unwrap()));
    }
}
