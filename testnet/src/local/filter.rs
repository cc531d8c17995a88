//! Packets that a host loses, as a program that the kernel runs on every packet that comes in: classic BPF in a `tc` filter.
//!
//! Invariants: every frame is judged by its sender's hardware address alone, so ARP, IPv6 and multicast are lost with the rest.
//! Does not: delay packets (needs netem, which many kernels lack), or look at ports.
//! Source: <https://www.kernel.org/doc/Documentation/networking/filter.txt>, "BPF engine and instruction set" and "extensions".

use std::collections::BTreeMap;

/// Of a thousand packets of one host, how many are lost.
pub type PerMille = u32;

/// All of them.
pub const EVERYTHING: PerMille = 1_000;

/// `A = a word of the packet`, here always the last four bytes of the sender's hardware address.
const LOAD_SENDER: &str = "32 0 0 8";
/// `A = a random word`: the extension `SKF_AD_RANDOM` (56) beside `SKF_AD_OFF` (-0x1000).
const LOAD_RANDOM: &str = "32 0 0 4294963256";
/// Opcodes of `if A == k` and `if A >= k`.
const IF_EQUAL: u32 = 21;
const IF_AT_LEAST: u32 = 53;
/// `return TC_ACT_OK` and `return TC_ACT_SHOT`.
const KEEP: &str = "6 0 0 0";
const LOSE: &str = "6 0 0 2";

/// The last four bytes of the hardware address of host `number`; the first two are 02:00, a local address.
pub(super) fn station(number: usize) -> u32 {
    0x0063_0000 | (u32::try_from(number).unwrap_or(u32::MAX) & 0xffff)
}

/// The hardware address of host `number`, as `ip` takes it.
pub(super) fn hardware_address(number: usize) -> String {
    let [a, b, c, d] = station(number).to_be_bytes();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The program for a host that loses so many of the packets of each of these hosts: instructions as `tc … bpf bytecode` takes them.
pub(super) fn program(losses: &BTreeMap<usize, PerMille>) -> String {
    let mut code = vec![LOAD_SENDER.to_owned()];
    for (from, loss) in losses.iter().filter(|(_, loss)| **loss > 0) {
        if *loss >= EVERYTHING {
            // Somebody else: over the next instruction.
            code.push(format!("{IF_EQUAL} 0 1 {}", station(*from)));
            code.push(LOSE.to_owned());
        } else {
            let kept = (u64::from(u32::MAX) * u64::from(EVERYTHING - loss)) / u64::from(EVERYTHING);
            code.push(format!("{IF_EQUAL} 0 4 {}", station(*from)));
            code.push(LOAD_RANDOM.to_owned());
            code.push(format!("{IF_AT_LEAST} 1 0 {kept}"));
            code.push(KEEP.to_owned());
            code.push(LOSE.to_owned());
        }
    }
    code.push(KEEP.to_owned());
    format!("{},{}", code.len(), code.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of a packet.
    fn run(program: &str, sender: u32, random: u32) -> &'static str {
        let code: Vec<Vec<u64>> = program
            .split(',')
            .skip(1)
            .map(|line| line.split(' ').map(|number| number.parse().unwrap()).collect())
            .collect();
        assert_eq!(program.split(',').next().unwrap().parse::<usize>().unwrap(), code.len());
        let (mut at, mut a) = (0, 0);
        loop {
            let [op, yes, no, k] = code[at][..] else { unreachable!("four numbers an instruction") };
            at += 1;
            match (op, k) {
                (32, 8) => a = u64::from(sender),
                (32, 4_294_963_256) => a = u64::from(random),
                (21, k) => at += usize::try_from(if a == k { yes } else { no }).unwrap(),
                (53, k) => at += usize::try_from(if a >= k { yes } else { no }).unwrap(),
                (6, 0) => return "kept",
                (6, 2) => return "lost",
                other => unreachable!("instruction {other:?}"),
            }
        }
    }

    #[test]
    fn each_sender_loses_its_own_share() {
        let program = program(&[(2, EVERYTHING), (3, 250), (4, 0)].into());
        for random in [0, u32::MAX / 2, u32::MAX] {
            assert_eq!(run(&program, station(2), random), "lost");
            assert_eq!(run(&program, station(1), random), "kept");
            assert_eq!(run(&program, station(4), random), "kept");
        }
        assert_eq!(run(&program, station(3), 0), "kept");
        assert_eq!(run(&program, station(3), u32::MAX / 10 * 7), "kept");
        assert_eq!(run(&program, station(3), u32::MAX / 10 * 8), "lost");
    }

    #[test]
    fn without_losses_everything_passes() {
        assert_eq!(program(&BTreeMap::new()), "2,32 0 0 8,6 0 0 0");
    }

    #[test]
    fn hardware_addresses_are_local_and_differ() {
        assert_eq!(hardware_address(1), "02:00:00:63:00:01");
        assert_eq!(hardware_address(200), "02:00:00:63:00:c8");
    }
}
