//! Network namespaces on a bridge: several hosts on one machine that can be parted and made to lose packets. Needs root and iproute2.
//!
//! A namespace of its own holds the bridge, so that nothing of this touches the machine's real interfaces.
//! Invariants: names carry the process id, so that test runs do not meet; all are removed on drop.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};

use super::filter::{PerMille, hardware_address, program};

/// Hosts 10.99.0.1 … on one bridge.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    count: usize,
}

/// Whether this process may make namespaces here. Tried once: two tries at the same time would be in each other's way.
#[must_use]
pub fn can_make_namespaces() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let name = format!("starling-probe-{}", std::process::id());
        let made = ip(&["netns", "add", &name]).is_ok();
        if made {
            // The probe is of no further use.
            let _left = ip(&["netns", "del", &name]);
        }
        made
    })
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("running {program} (iproute2)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}

impl Namespaces {
    /// Makes `count` hosts, all linked to one bridge.
    ///
    /// # Errors
    /// Without the right to, or without iproute2.
    pub fn make(label: &str, count: usize) -> anyhow::Result<Self> {
        ensure!((1..=200).contains(&count), "1 to 200 namespaces");
        let made = Self { prefix: format!("starling-{label}-{}", std::process::id()), count };
        let hub = made.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge0", "up"])?;
        for number in 1..=count {
            made.add_host(&hub, number)?;
        }
        Ok(made)
    }

    fn add_host(&self, hub: &str, number: usize) -> anyhow::Result<()> {
        let host = self.host(number);
        let port = format!("port{number}");
        let address = format!("10.99.0.{number}/24");
        let station = hardware_address(number);
        ip(&["netns", "add", &host])?;
        ip(&[
            "-n", hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "address", &station, "netns",
            &host,
        ])?;
        ip(&["-n", hub, "link", "set", &port, "master", "bridge0", "up"])?;
        ip(&["-n", &host, "link", "set", "lo", "up"])?;
        ip(&["-n", &host, "addr", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &host, "link", "set", "eth0", "up"])?;
        // Multicast needs a route; there is no other network to reach.
        ip(&["-n", &host, "route", "add", "default", "dev", "eth0"])
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn host(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// A command that runs `program` on host `number`.
    #[must_use]
    pub fn command(&self, number: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(number)]).arg(program);
        command
    }

    /// Cuts a host off from the bridge, or links it again.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn set_port(&self, number: usize, port: Port) -> anyhow::Result<()> {
        let state = match port {
            Port::Up => "up",
            Port::Down => "down",
        };
        ip(&["-n", &self.hub(), "link", "set", &format!("port{number}"), state])
    }

    /// Has host `number` lose so many of the packets that each of these hosts sends to it, and none of others.
    ///
    /// # Errors
    /// If `tc` fails: without classic BPF in the kernel, say.
    pub fn set_losses(&self, number: usize, losses: &BTreeMap<usize, PerMille>) -> anyhow::Result<()> {
        let host = self.host(number);
        let on = ["-n", &host, "qdisc", "replace", "dev", "eth0", "clsact"];
        run("tc", &on)?;
        let code = program(losses);
        let filter = ["filter", "replace", "dev", "eth0", "ingress", "prio", "1", "handle", "1"];
        run("tc", &[&["-n", &host], &filter[..], &["bpf", "da", "bytecode", &code]].concat())
    }
}

/// A host's place on the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Linked.
    Up,
    /// Cut off.
    Down,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for number in 1..=self.count {
            // Perhaps it was never made.
            let _absent = ip(&["netns", "del", &self.host(number)]);
        }
        let _absent = ip(&["netns", "del", &self.hub()]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::local::EVERYTHING;

    /// Datagrams that came in for a port that nobody listens at: the second number of the second line that begins so.
    fn strays(hosts: &Namespaces, number: usize) -> u64 {
        let output = hosts.command(number, Path::new("cat")).arg("/proc/net/snmp").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
        line.split(' ').nth(2).unwrap().parse().unwrap()
    }

    /// How many of 400 datagrams from host 1 reach host 2 while that loses so many of a thousand.
    fn arriving(hosts: &Namespaces, loss: PerMille) -> u64 {
        hosts.set_losses(2, &[(1, loss)].into()).unwrap();
        let before = strays(hosts, 2);
        let script = "for i in $(seq 400); do echo x >/dev/udp/10.99.0.2/9; done 2>/dev/null";
        hosts.command(1, Path::new("bash")).args(["-c", script]).status().unwrap();
        strays(hosts, 2) - before
    }

    #[test]
    fn a_host_loses_the_share_it_is_told() {
        if !can_make_namespaces() {
            // Without a stderr nobody reads it.
            let _lost =
                writeln!(std::io::stderr(), "SKIPPED: losses: no right to make network namespaces, or no iproute2");
            return;
        }
        let hosts = Namespaces::make("losses", 2).unwrap();
        // The first datagrams wait for the address to be resolved, and some of them are dropped then.
        arriving(&hosts, 0);
        assert_eq!(arriving(&hosts, 0), 400);
        // Ten standard deviations around the mean.
        let half = arriving(&hosts, 500);
        assert!((100..=300).contains(&half), "{half} of 400 arrived");
        assert_eq!(arriving(&hosts, EVERYTHING), 0);
        hosts.set_losses(2, &BTreeMap::new()).unwrap();
        assert_eq!(arriving(&hosts, 0), 400);
    }
}
