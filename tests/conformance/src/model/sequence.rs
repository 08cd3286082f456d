//! Sequences of random operations.

use std::fmt;

use super::{Layer, Operation, What, Workspace};
use crate::random::Random;
use crate::tar::Time;

/// The most layers that a sequence makes.
pub const MAX_LAYERS: usize = 6;

/// Last components of names: few, so that operations meet; with bytes that sort on either side of `/`, that
/// are no UTF-8, and that control a terminal.
const LASTS: [&[u8]; 9] = [b"a", b"b", b"d", b"e", b"a.b", b"d.x", b"\xff", b"new\nline", b"e "];

/// Times: none, with and without nanoseconds in one second, before 1970, after 2038.
const TIMES: [Time; 6] = [
    Time { seconds: 0, nanoseconds: 0 },
    Time { seconds: 1_600_000_000, nanoseconds: 0 },
    Time { seconds: 1_600_000_000, nanoseconds: 1 },
    Time { seconds: 1_600_000_000, nanoseconds: 999_999_999 },
    Time { seconds: -5, nanoseconds: 250_000_000 },
    Time { seconds: 4_000_000_000, nanoseconds: 0 },
];

/// Operations, and the layers that they make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Where it comes from.
    pub seed: u64,
    /// What is done.
    pub operations: Vec<Operation>,
}

impl Sequence {
    /// The sequence of a seed.
    pub fn random(seed: u64) -> Sequence {
        let mut chooser = Chooser { random: Random::new(seed), workspace: Workspace::default() };
        let count = 6 + chooser.random.below(26);
        let mut commits = 1;
        let mut operations = Vec::with_capacity(count);
        for _ in 0..count {
            let operation = if commits < MAX_LAYERS && chooser.random.one_in(7) {
                commits += 1;
                Operation::Commit
            } else {
                chooser.operation()
            };
            chooser.workspace.apply(&operation);
            operations.push(operation);
        }
        Sequence { seed, operations }
    }

    /// The layers, lowest first: at least one.
    pub fn layers(&self) -> Vec<Layer> {
        let mut workspace = Workspace::default();
        self.operations.iter().for_each(|operation| workspace.apply(operation));
        workspace.finish()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, operation) in self.operations.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{operation}")?;
        }
        Ok(())
    }
}

/// What chooses operations that mostly make sense where they come.
struct Chooser {
    random: Random,
    /// What the operations so far have made.
    workspace: Workspace,
}

impl Chooser {
    fn operation(&mut self) -> Operation {
        match self.random.below(24) {
            0..=5 => {
                let length = [0, 1, 1, 7, 511, 512, 513, 3000][self.random.below(8)];
                let fill = b'a' + self.random.below(3) as u8;
                Operation::Write(self.mostly_new(), length, fill, self.time())
            }
            6..=9 => Operation::Mkdir(self.mostly_new(), self.time()),
            10 => Operation::Make(self.mostly_new(), self.what(), self.time()),
            11 | 12 => Operation::Link(self.mostly_old(), self.mostly_new()),
            13 => Operation::Move(self.mostly_old(), self.mostly_new()),
            14..=16 => Operation::Remove(self.mostly_old()),
            17 => Operation::Replace(self.directory(), self.time()),
            18 => match self.random.below(3) {
                0 => Operation::Opaque(self.directory()),
                _ => Operation::Hide(self.mostly_new()),
            },
            19 => {
                let mode = [0o644, 0o4755, 0o1777, 0][self.random.below(4)];
                Operation::Chmod(self.mostly_old(), mode)
            }
            20 => {
                let owner = [0, 1000, 3_000_000_000][self.random.below(3)];
                Operation::Chown(self.mostly_old(), owner, self.random.below(2) as u32)
            }
            21 => Operation::Touch(self.mostly_old(), self.time()),
            22 => {
                let value = [&b"v"[..], b"", b"\0\n="][self.random.below(3)].to_vec();
                Operation::Setxattr(self.mostly_old(), b"user.a".to_vec(), value)
            }
            // The root, which has no name that the others come upon.
            _ if self.random.one_in(2) => Operation::Chmod(Vec::new(), 0o711),
            _ => Operation::Touch(Vec::new(), self.time()),
        }
    }

    /// Any name in a directory that is there.
    fn mostly_new(&mut self) -> Vec<u8> {
        let directory = if self.random.one_in(8) { b"d/e".to_vec() } else { self.directory() };
        // Deeper trees tell nothing more.
        let directory =
            if directory.iter().filter(|&&byte| byte == b'/').count() < 3 { directory } else { Vec::new() };
        crate::tar::join(&directory, LASTS[self.random.below(LASTS.len())])
    }

    /// A name that something has.
    fn mostly_old(&mut self) -> Vec<u8> {
        let names: Vec<&Vec<u8>> = self.workspace.merged().names.keys().collect();
        let name = self.random.choose(&names).map(|name| name.to_vec());
        name.unwrap_or_else(|| LASTS[0].to_vec())
    }

    /// A directory that is there; the root in one case of four.
    fn directory(&mut self) -> Vec<u8> {
        if self.random.one_in(4) {
            return Vec::new();
        }
        let names = &self.workspace.merged().names;
        let names: Vec<&Vec<u8>> =
            names.iter().filter(|(_, node)| node.is_directory()).map(|(name, _)| name).collect();
        self.random.choose(&names).map(|name| name.to_vec()).unwrap_or_default()
    }

    fn time(&mut self) -> Time {
        TIMES[self.random.below(TIMES.len())]
    }

    fn what(&mut self) -> What {
        match self.random.below(6) {
            0 => What::Fifo,
            1 => What::Character(1, 3 + self.random.below(3) as u32),
            2 => What::Block(7, self.random.below(2) as u32),
            _ => {
                let targets = [&b"a"[..], b"/etc/passwd", b"../../x", &[b't'; 130]];
                What::Symlink(targets[self.random.below(targets.len())].to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tree;
    use crate::tar::{Kind, check_order};

    #[test]
    fn a_seed_gives_one_sequence() {
        assert_eq!(Sequence::random(7), Sequence::random(7));
        assert_ne!(Sequence::random(7).operations, Sequence::random(8).operations);
    }

    /// The two ways to a tree agree: through the layers' own maps, and through their archives.
    #[test]
    fn archives_of_layers_give_the_layers_again() {
        for seed in 0..3000 {
            let layers = Sequence::random(seed).layers();
            let again: Vec<Layer> = layers.iter().map(|layer| Layer::of(&layer.entries()).unwrap()).collect();
            for (layer, again) in layers.iter().zip(&again) {
                again.same_as(layer).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
                check_order(&layer.entries()).unwrap();
            }
            assert_eq!(Tree::of(&layers), Tree::of(&again), "seed {seed}");
        }
    }

    /// What the suite is for must come up often enough.
    #[test]
    fn sequences_are_rich() {
        let mut seen = [0; 6];
        for seed in 0..1000 {
            let layers = Sequence::random(seed).layers();
            seen[0] += usize::from(layers.len() >= 3);
            let entries: Vec<_> = layers.iter().flat_map(Layer::entries).collect();
            let last = |name: &[u8]| crate::tar::split(name).1.to_vec();
            seen[1] += usize::from(entries.iter().any(|entry| last(&entry.name) == crate::tar::OPAQUE));
            seen[2] += usize::from(entries.iter().any(|entry| {
                last(&entry.name).starts_with(crate::tar::WHITEOUT) && last(&entry.name) != crate::tar::OPAQUE
            }));
            seen[3] += usize::from(entries.iter().any(|entry| matches!(entry.kind, Kind::HardLink(_))));
            seen[4] += usize::from(entries.iter().any(|entry| !entry.xattrs.is_empty()));
            seen[5] += usize::from(entries.len() > 8);
        }
        let least = [400, 150, 150, 20, 100, 300];
        assert!(seen.iter().zip(&least).all(|(seen, least)| seen >= least), "{seen:?}");
    }
}
