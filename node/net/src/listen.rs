//! Finds out whether an address is free, which the TCP transport alone would not.
//!
//! libp2p sets `SO_REUSEPORT`, so two nodes of one user would both "bind" a port and share its connections at
//! random. A plain bind beforehand finds other programs; a name in the abstract Unix namespace, which is per
//! network namespace like the ports and dies with the process, settles the race between two nodes that start at
//! the same moment.
//!
//! Invariants: while a `Claim` lives no other node of this host gets the same address.
//! Does not: guard port 0, which the system never gives twice.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Transport;

/// Holds an address against other nodes.
#[derive(Debug)]
pub(crate) struct Claim {
    #[cfg(target_os = "linux")]
    _name: Option<std::os::unix::net::UnixListener>,
}

/// Claims `addr`, or fails like `bind`.
pub(crate) fn claim(addr: SocketAddr, over: Transport) -> io::Result<Claim> {
    #[cfg(target_os = "linux")]
    let name = match addr.port() {
        0 => None,
        _ => Some(reserve(addr, over)?),
    };
    // Without SO_REUSEPORT this fails while anybody listens. Closed at once.
    match over {
        Transport::Tcp => drop(TcpListener::bind(addr)?),
        #[cfg(feature = "quic")]
        Transport::Quic => drop(std::net::UdpSocket::bind(addr)?),
    }
    Ok(Claim {
        #[cfg(target_os = "linux")]
        _name: name,
    })
}

#[cfg(target_os = "linux")]
fn reserve(addr: SocketAddr, over: Transport) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net;

    let name = format!("starling-net/{over:?}/{addr}");
    net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(name)?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use crate::config::Transport;

    fn claim(addr: std::net::SocketAddr) -> std::io::Result<super::Claim> {
        super::claim(addr, Transport::Tcp)
    }

    #[test]
    fn used_address_cannot_be_claimed() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = other.local_addr().unwrap();
        assert_eq!(claim(addr).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(other);
        let first = claim(addr).unwrap();
        assert_eq!(claim(addr).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        claim(addr).unwrap();
    }
}
