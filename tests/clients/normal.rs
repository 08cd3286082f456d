//! What two runs of one script cannot have in common, taken out of what they print: ids and times, and
//! nothing else.

use std::collections::HashMap;

/// The ids that were seen so far. An id becomes its number in the order of appearance, so that two runs are
/// equal only if they name the same things.
#[derive(Debug, Default)]
pub struct Normal {
    ids: HashMap<String, usize>,
}

/// The digits of a short id.
const SHORT: usize = 12;

impl Normal {
    /// The lines of a text, without what differs from run to run.
    pub fn lines(&mut self, text: &str) -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(|line| self.line(line)).collect();
        // What prune prints in no order: the ids and tags of what it deleted.
        sort_blocks(&mut lines);
        lines
    }

    fn line(&mut self, line: &str) -> String {
        // Tables are as wide as their widest cell, and ids and times are cells: any run of blanks is one.
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut kept: Vec<String> = Vec::new();
        let mut index = 0;
        while index < words.len() {
            let taken = duration(&words[index..]);
            if taken > 0 {
                kept.push("<duration>".to_owned());
                index += taken;
            } else {
                kept.push(self.word(words[index]));
                index += 1;
            }
        }
        kept.join(" ")
    }

    /// Ids of layers, images and containers are 64 hexadecimal digits, or the first 12 of them.
    fn word(&mut self, word: &str) -> String {
        let mut out = String::new();
        let mut rest = word;
        while !rest.is_empty() {
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            let digits = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if digits && (part.len() == SHORT || part.len() == 64) {
                let next = self.ids.len() + 1;
                let number = *self.ids.entry(part[..SHORT].to_owned()).or_insert(next);
                out.push_str(&format!("<id {number}>"));
            } else {
                out.push_str(part);
            }
            let mut letters = after.chars();
            if let Some(letter) = letters.next() {
                out.push(letter);
            }
            rest = letters.as_str();
        }
        out
    }
}

/// How many words say how long something took or lasts: `Less than a second`, `About a minute`, `2 seconds`,
/// with `ago` or without (go-units, HumanDuration).
fn duration(words: &[&str]) -> usize {
    const UNITS: [&str; 6] = ["second", "seconds", "minute", "minutes", "hour", "hours"];
    let count = match words {
        ["Less", "than", "a", "second", ..] => 4,
        ["About", "a" | "an", unit, ..] if UNITS.contains(unit) => 3,
        [number, unit, ..] if number.parse::<u32>().is_ok() && UNITS.contains(unit) => 2,
        _ => return 0,
    };
    if words.get(count) == Some(&"ago") { count + 1 } else { count }
}

/// Sorts the lines of a list that the engine takes from a map: what prune deleted.
fn sort_blocks(lines: &mut [String]) {
    let mut start = 0;
    while let Some(found) =
        lines[start..].iter().position(|line| line.starts_with("Deleted ") && line.ends_with(':'))
    {
        let first = start + found + 1;
        let end =
            lines[first..].iter().position(String::is_empty).map_or(lines.len(), |length| first + length);
        lines[first..end].sort();
        start = end;
    }
}
