//! Makes faults happen to real nodes, and ends them.
//!
//! Invariants: after `heal` no fault is left; what a host loses is always the sum of the faults that are on.
//! Does not: decide what goes wrong or when (`plan`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::field::Field;
use super::plan::{Kind, Way};
use crate::local::{EVERYTHING, Pace, PerMille, Port};

/// A flapping link is down for so long, then up for so long.
const FLAP: Duration = Duration::from_millis(700);

/// Of each host: what it loses of each other one's packets.
type Losses = BTreeMap<usize, BTreeMap<usize, PerMille>>;

/// Faults that are on.
#[derive(Debug, Default)]
pub(super) struct Injector {
    on: Vec<Kind>,
    /// What the hosts were last told to lose.
    laid: Losses,
    /// Flapping links, and when each last changed.
    flaps: BTreeMap<usize, (Port, Instant)>,
}

impl Injector {
    /// Begins a fault.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn begin(&mut self, field: &mut Field, kind: &Kind) -> anyhow::Result<()> {
        self.on.push(kind.clone());
        match kind {
            Kind::Partition { .. } | Kind::Loss { .. } => self.lay(field),
            Kind::Flap { node } => self.set_port(field, *node, Port::Down),
            Kind::Kill { node } | Kind::Gone { node } => field.cluster.kill(*node),
            Kind::Pause { node } => field.cluster.set_pace(*node, Pace::Standing),
            Kind::FullDisk { node } => field.fill_disk(*node),
            Kind::Clock { node, by_s } => field.set_clock(*node, *by_s),
        }
        .with_context(|| format!("beginning a fault: {kind}"))
    }

    /// Ends it.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn end(&mut self, field: &mut Field, kind: &Kind) -> anyhow::Result<()> {
        self.on.retain(|other| other != kind);
        match kind {
            Kind::Partition { .. } | Kind::Loss { .. } => self.lay(field),
            Kind::Flap { node } => {
                self.set_port(field, *node, Port::Up)?;
                self.flaps.remove(node);
                Ok(())
            }
            Kind::Kill { node } => field.cluster.boot(*node),
            Kind::Pause { node } => field.cluster.set_pace(*node, Pace::Running),
            Kind::FullDisk { node } => field.free_disk(*node),
            Kind::Clock { node, .. } => field.set_clock(*node, 0),
            Kind::Gone { .. } => Ok(()),
        }
        .with_context(|| format!("ending a fault: {kind}"))
    }

    /// Moves the links that flap.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn tick(&mut self, field: &Field) -> anyhow::Result<()> {
        let due: Vec<(usize, Port)> = self
            .flaps
            .iter()
            .filter(|(_, (_, at))| at.elapsed() >= FLAP)
            .map(|(node, (port, _))| (*node, *port))
            .collect();
        for (node, port) in due {
            let other = match port {
                Port::Up => Port::Down,
                Port::Down => Port::Up,
            };
            self.set_port(field, node, other)?;
        }
        Ok(())
    }

    fn set_port(&mut self, field: &Field, node: usize, port: Port) -> anyhow::Result<()> {
        field.cluster.namespaces().context("nodes on loopback have no links")?.set_port(node, port)?;
        self.flaps.insert(node, (port, Instant::now()));
        Ok(())
    }

    /// Tells each host whose losses have changed.
    fn lay(&mut self, field: &Field) -> anyhow::Result<()> {
        let hosts = field.cluster.namespaces().context("nodes on loopback have no network of their own")?;
        let wanted = losses(&self.on, field.cluster.len());
        for (node, losses) in &wanted {
            if self.laid.get(node) != Some(losses) {
                hosts.set_losses(*node, losses)?;
            }
        }
        self.laid = wanted;
        Ok(())
    }
}

/// What each of `count` hosts loses while these faults are on: of two that meet, the greater loss.
fn losses(on: &[Kind], count: usize) -> Losses {
    let mut all: Losses = (1..=count).map(|node| (node, BTreeMap::new())).collect();
    let mut lose = |at: usize, from: usize, loss: PerMille| {
        if let Some(losses) = all.get_mut(&at).filter(|_| at != from) {
            let most = losses.entry(from).or_insert(0);
            *most = loss.max(*most);
        }
    };
    for kind in on {
        match kind {
            Kind::Partition { side, way } => {
                for inside in side {
                    for outside in (1..=count).filter(|node| !side.contains(node)) {
                        if matches!(way, Way::Both | Way::Out) {
                            lose(outside, *inside, EVERYTHING);
                        }
                        if matches!(way, Way::Both | Way::In) {
                            lose(*inside, outside, EVERYTHING);
                        }
                    }
                }
            }
            Kind::Loss { node, loss } => {
                for other in 1..=count {
                    lose(*node, other, *loss);
                    lose(other, *node, *loss);
                }
            }
            Kind::Flap { .. }
            | Kind::Kill { .. }
            | Kind::Pause { .. }
            | Kind::FullDisk { .. }
            | Kind::Clock { .. }
            | Kind::Gone { .. } => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `at<from loss` of all that lose anything.
    fn lost(on: &[Kind]) -> String {
        let all = losses(on, 3);
        let each =
            all.iter().flat_map(|(at, losses)| losses.iter().map(move |(from, loss)| format!("{at}<{from} {loss}")));
        each.collect::<Vec<_>>().join(", ")
    }

    fn cut(way: Way) -> Kind {
        Kind::Partition { side: [1].into(), way }
    }

    #[test]
    fn partitions_cut_the_ways_they_say() {
        assert_eq!(lost(&[cut(Way::Both)]), "1<2 1000, 1<3 1000, 2<1 1000, 3<1 1000");
        assert_eq!(lost(&[cut(Way::Out)]), "2<1 1000, 3<1 1000");
        assert_eq!(lost(&[cut(Way::In)]), "1<2 1000, 1<3 1000");
    }

    #[test]
    fn of_faults_that_meet_the_greater_loss_counts() {
        let loss = Kind::Loss { node: 2, loss: 300 };
        assert_eq!(lost(std::slice::from_ref(&loss)), "1<2 300, 2<1 300, 2<3 300, 3<2 300");
        let both = "1<2 300, 2<1 1000, 2<3 300, 3<1 1000, 3<2 300";
        assert_eq!(lost(&[loss.clone(), cut(Way::Out)]), both);
        assert_eq!(lost(&[cut(Way::Out), loss]), both);
        assert_eq!(lost(&[]), "");
    }
}
