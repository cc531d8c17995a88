//! Names for nodes: birds, because people remember them.

/// Short, easily told apart.
const BIRDS: [&str; 64] = [
    "auk", "avocet", "bittern", "brambling", "bunting", "bustard", "chough", "coot", "crake", "crane", "crow", "curlew",
    "dipper", "dove", "dunlin", "dunnock", "egret", "eider", "falcon", "finch", "fulmar", "gannet", "godwit", "goshawk",
    "grebe", "grouse", "gull", "harrier", "heron", "hobby", "hoopoe", "ibis", "jackdaw", "jay", "kestrel", "kite",
    "knot", "lapwing", "lark", "linnet", "magpie", "martin", "merlin", "nuthatch", "oriole", "osprey", "ouzel", "owl",
    "petrel", "pipit", "plover", "puffin", "quail", "rail", "raven", "redstart", "robin", "rook", "shrike", "siskin",
    "swift", "teal", "tern", "wren",
];

/// A bird that nobody in `taken` is called; a bird with a number once the birds have run out. `seed` decides which.
pub fn choose(seed: u64, taken: &[String]) -> String {
    let start = usize::try_from(seed % BIRDS.len() as u64).unwrap_or(0);
    let free = |name: &str| taken.iter().all(|other| other != name);
    let birds = BIRDS.iter().cycle().skip(start).take(BIRDS.len());
    if let Some(bird) = birds.clone().find(|bird| free(bird)) {
        return (*bird).to_owned();
    }
    let bird = BIRDS[start];
    let numbered = (2..).map(|number: u32| format!("{bird}{number}"));
    numbered.into_iter().find(|name| free(name)).unwrap_or_else(|| bird.to_owned())
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
    fn birds_run_out_into_numbers() {
        let mut taken: Vec<String> = Vec::new();
        for _ in 0..70 {
            let name = choose(12, &taken);
            assert!(is_valid(&name) && !taken.contains(&name));
            taken.push(name);
        }
        assert!(taken.last().is_some_and(|name| name.ends_with(char::is_numeric)));
    }
}
