//! From a sequence that fails to a small one that still does.

use super::Sequence;

/// Leaves operations out, in ever smaller runs and at last one by one, as long as what is left fails; `fails`
/// answers why. At most `budget` tries.
pub fn shrink(
    sequence: Sequence,
    why: String,
    mut budget: usize,
    mut fails: impl FnMut(&Sequence) -> Option<String>,
) -> (Sequence, String) {
    let (mut smallest, mut why) = (sequence, why);
    let mut run = smallest.operations.len().div_ceil(2).max(1);
    loop {
        let mut is_smaller = false;
        let mut at = 0;
        while at < smallest.operations.len() && budget > 0 {
            let mut candidate = smallest.clone();
            let end = (at + run).min(candidate.operations.len());
            candidate.operations.drain(at..end);
            budget -= 1;
            match fails(&candidate) {
                Some(reason) => {
                    (smallest, why) = (candidate, reason);
                    is_smaller = true;
                }
                None => at += run,
            }
        }
        if budget == 0 || (run == 1 && !is_smaller) {
            return (smallest, why);
        }
        run = (run / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Operation;

    fn sequence(names: &[&str]) -> Sequence {
        let operations = names.iter().map(|name| Operation::Remove(name.as_bytes().to_vec())).collect();
        Sequence { seed: 0, operations }
    }

    #[test]
    fn only_what_is_needed_stays() {
        let long: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let long = sequence(&long.iter().map(String::as_str).collect::<Vec<_>>());
        let needed = sequence(&["7", "31"]);
        let fails = |candidate: &Sequence| {
            let all = needed.operations.iter().all(|operation| candidate.operations.contains(operation));
            all.then(|| format!("{} left", candidate.operations.len()))
        };
        let (smallest, why) = shrink(long.clone(), "at first".into(), 500, fails);
        assert_eq!(smallest.operations, needed.operations);
        assert_eq!(why, "2 left");
        let (unchanged, why) = shrink(long.clone(), "at first".into(), 0, fails);
        assert_eq!((unchanged, why.as_str()), (long, "at first"));
    }
}
