//! Names for nodes: birds, because people remember them.

/// Short, easily told apart.
const BIRDS: [&str; 64] = [
    "auk",
    "avocet",
    "bittern",
    "brambling",
    "bunting",
    "bustard",
    "chough",
    "coot",
    "crake",
    "crane",
    "crow",
    "curlew",
    "dipper",
    "dove",
    "dunlin",
    "dunnock",
    "egret",
    "eider",
    "falcon",
    "finch",
    "fulmar",
    "gannet",
    "godwit",
    "goshawk",
    "grebe",
    "grouse",
    "gull",
    "harrier",
    "heron",
    "hobby",
    "hoopoe",
    "ibis",
    "jackdaw",
    "jay",
    "kestrel",
    "kite",
    "knot",
    "lapwing",
    "lark",
    "linnet",
    "magpie",
    "martin",
    "merlin",
    "nuthatch",
    "oriole",
    "osprey",
    "ouzel",
    "owl",
    "petrel",
    "pipit",
    "plover",
    "puffin",
    "quail",
    "rail",
    "raven",
    "redstart",
    "robin",
    "rook",
    "shrike",
    "siskin",
    "swift",
    "teal",
    "tern",
    "wren",
];

/// Letters that form no words, nor digits that look like a job's number.
const LETTERS: &[u8; 20] = b"bcdfghjklmnpqrstvwxz";

/// How far away the nodes may be that must not have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All are on this host, where names can be claimed: a bird will do.
    Host,
    /// Some choose elsewhere at the same moment: three letters more make a clash unlikely (one in 500,000 for each pair; of 64 birds alone,
    /// ten hosts would share one in half of all clusters).
    Network,
}

/// Names to try in this order: each bird once, then birds with numbers. `seed` decides the order.
pub fn candidates(seed: u64, reach: Reach) -> impl Iterator<Item = String> {
    let count = BIRDS.len() as u64;
    let (start, rest) = (usize::try_from(seed % count).unwrap_or(0), seed / count);
    let letters: String = match reach {
        Reach::Host => String::new(),
        Reach::Network => {
            let letter = |power: u32| {
                let digit = usize::try_from(rest / 20_u64.pow(power) % 20).unwrap_or(0);
                char::from(LETTERS[digit])
            };
            format!("-{}{}{}", letter(0), letter(1), letter(2))
        }
    };
    let birds = BIRDS.iter().cycle().skip(start);
    birds.enumerate().map(move |(tried, bird)| match tried / BIRDS.len() {
        0 => format!("{bird}{letters}"),
        round => format!("{bird}{}{letters}", round + 1),
    })
}

/// Whether a name can stand in a job id and a file name: letters, digits, dots and dashes; at most 32; not ending in a number after a dash.
pub fn is_valid(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_');
    plain && !name.is_empty() && name.len() <= 32 && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_valid_and_never_repeat() {
        for reach in [Reach::Host, Reach::Network] {
            let names: Vec<String> = candidates(12, reach).take(200).collect();
            assert!(names.iter().all(|name| is_valid(name)), "{names:?}");
            let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
        }
        assert_eq!(candidates(12, Reach::Host).next().as_deref(), Some("dipper"));
        assert_ne!(candidates(12, Reach::Network).next(), candidates(12 + 64, Reach::Network).next());
    }
}
