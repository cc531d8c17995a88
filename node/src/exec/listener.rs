//! Who listens on a port of this machine.
//!
//! The kernel's own table is read, rather than a connection made: a server that serves one client would take the probe for
//! it. Only where there is no such table is a connection tried.
//! Invariants: what cannot be read is never held against a server.
//! Does not: wait.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Pid;

use super::group;

/// A connection within this machine is made or refused at once.
const CONNECT_MAX: Duration = Duration::from_millis(200);
/// `TCP_LISTEN` in the kernel's table.
const LISTEN: &str = "0A";

/// What is found on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nobody listens.
    Nobody,
    /// The process group does, or it cannot be told who does.
    Group,
    /// Somebody outside of the process group, in words.
    Stranger(String),
}

/// Who would serve a connection to `to`, seen from the process group `group`.
pub(super) fn find(to: SocketAddr, group: Pid) -> Found {
    let Ok(table) = table() else {
        return connect(to);
    };
    let inodes = serving(&table, to);
    if inodes.is_empty() {
        return Found::Nobody;
    }
    // The leader is mostly the one, and saves the search.
    if matches!(held_by([group], &inodes), Held::All) {
        return Found::Group;
    }
    match held_by(group::members(group), &inodes) {
        Held::All | Held::Unknown => Found::Group,
        Held::NotAll => Found::Stranger(stranger(&inodes, group)),
    }
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    inode: u64,
}

fn table() -> io::Result<Vec<Row>> {
    let mut rows = parse(&fs::read_to_string("/proc/net/tcp")?);
    match fs::read_to_string("/proc/net/tcp6") {
        Ok(text) => rows.extend(parse(&text)),
        // A machine without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(rows)
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`, after a line of headings.
fn parse(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = address(fields.next()?)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == LISTEN).then_some(Row { local, inode })
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// `0100007F:1F90`: words of 32 bits in the machine's own order, each holding its bytes as they travel.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = if ip.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    } else {
        let mut bytes = [0; 16];
        for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
            four.copy_from_slice(&word(at * 8)?);
        }
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    };
    Some(SocketAddr::new(ip, port))
}

/// The sockets that a connection to `to` may reach: the kernel prefers those with the closest address.
fn serving(table: &[Row], to: SocketAddr) -> BTreeSet<u64> {
    let distance = |local: IpAddr| {
        if local == to.ip() {
            Some(0)
        } else if !local.is_unspecified() {
            None
        } else if local.is_ipv4() == to.is_ipv4() {
            Some(1)
        } else {
            // `[::]` serves IPv4 too, unless told not to; `0.0.0.0` never serves IPv6.
            to.is_ipv4().then_some(2)
        }
    };
    let on_port = table.iter().filter(|row| row.local.port() == to.port());
    let near: Vec<_> = on_port.filter_map(|row| Some((distance(row.local.ip())?, row.inode))).collect();
    let least = near.iter().map(|(distance, _)| *distance).min();
    near.into_iter().filter(|(distance, _)| Some(*distance) == least).map(|(_, inode)| inode).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    All,
    NotAll,
    /// Not every process lets itself be looked at.
    Unknown,
}

fn held_by(pids: impl IntoIterator<Item = Pid>, inodes: &BTreeSet<u64>) -> Held {
    let (mut left, mut denied) = (inodes.clone(), false);
    for pid in pids {
        match sockets(pid) {
            Ok(held) => left.retain(|inode| !held.contains(inode)),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    match (left.is_empty(), denied) {
        (true, _) => Held::All,
        (false, true) => Held::Unknown,
        (false, false) => Held::NotAll,
    }
}

/// The sockets that a process has open.
fn sockets(pid: Pid) -> io::Result<BTreeSet<u64>> {
    let entries = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid()))?;
    let inode = |link: &str| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    // A descriptor may be closed between the two looks.
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(links.filter_map(|link| inode(link.to_str()?)).collect())
}

fn stranger(inodes: &BTreeSet<u64>, group: Pid) -> String {
    let own = group::members(group);
    let others = group::processes().filter(|pid| !own.contains(pid));
    let holds = |pid: &Pid| sockets(*pid).is_ok_and(|held| !held.is_disjoint(inodes));
    let Some(pid) = others.into_iter().find(holds) else {
        return "another process".to_owned();
    };
    let pid = pid.as_raw_pid();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} (process {pid})", name.trim_end())
}

fn connect(to: SocketAddr) -> Found {
    match TcpStream::connect_timeout(&to, CONNECT_MAX) {
        // Where nobody listens, a socket may come to be connected to itself.
        Ok(stream) if stream.local_addr().is_ok_and(|local| local == to) => Found::Nobody,
        Ok(_) => Found::Group,
        Err(_) => Found::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use rustix::process::{getpgrp, getpid};

    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1
   3: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1 0 100 0 0 10 0
   4: rubbish";
    const TABLE6: &str = "heading
   0: 00000000000000000000000000000000:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 15 1 0
   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 16 1 0
   2: 0000000000000000FFFF00000100007F:0052 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 17 1 0";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_socket_with_the_closest_address_serves() {
        let rows: Vec<_> = [TABLE, TABLE6].into_iter().flat_map(parse).collect();
        let inodes = |to: &str| serving(&rows, to.parse().unwrap()).into_iter().collect::<Vec<_>>();
        assert_eq!(inodes("127.0.0.1:8080"), [11]);
        assert_eq!(inodes("127.0.0.2:8080"), [12]);
        assert_eq!(inodes("127.0.0.1:80"), [14]);
        assert_eq!(inodes("[::1]:80"), [0_u64; 0]);
        assert_eq!(inodes("127.0.0.1:81"), [15]);
        assert_eq!(inodes("[::1]:81"), [16]);
        assert_eq!(inodes("127.0.0.1:82"), [17]);
        assert_eq!(inodes("127.0.0.1:9999"), [0_u64; 0]);
    }

    #[test]
    fn a_listener_of_this_process_is_found_as_its_groups_and_as_a_stranger_to_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        assert_eq!(find(to, getpgrp()), Found::Group);
        // No process has this group.
        let nobody = Pid::from_raw(i32::MAX).unwrap();
        let Found::Stranger(who) = find(to, nobody) else { panic!("{:?}", find(to, nobody)) };
        assert!(who.contains(&format!("(process {})", getpid().as_raw_pid())), "{who}");
        assert_eq!(connect(to), Found::Group);
        drop(listener);
        // A process that another test starts at this moment has it open until it runs its program.
        let begin = Instant::now();
        while find(to, getpgrp()) != Found::Nobody {
            assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", find(to, getpgrp()));
            std::thread::yield_now();
        }
        assert_eq!(connect(to), Found::Nobody);
    }
}
