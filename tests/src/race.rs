//! Two ways to do the same, timed in turn, and whether one keeps to its share of the other's time.
//!
//! The machines that tests run on do other things as well, and what those take falls on either side. What is
//! slow stays slow however often it is done, so more rounds are run until it can be told: a share is kept
//! that is kept by the shortest times of both, which are those when nothing else was done on the machine, or,
//! after enough of them, in a third of the rounds, in each of which both were timed one after the other.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

/// From how many rounds on a third of them tells.
const ENOUGH: usize = 6;

/// The times of both sides, a pair a round.
#[derive(Debug)]
pub struct Race {
    names: [&'static str; 2],
    share: f64,
    slack: Duration,
    rounds: Vec<[Duration; 2]>,
}

impl Race {
    /// Between these two, of which the second may take the share of the time of the first.
    pub fn new(names: [&'static str; 2], share: f64) -> Race {
        Race { names, share, slack: Duration::ZERO, rounds: Vec::new() }
    }

    /// With what the clock and the scheduler make of the shortest times in spite of all care.
    #[must_use]
    pub fn slack(mut self, slack: Duration) -> Race {
        self.slack = slack;
        self
    }

    /// Times both, each of them first every second time.
    ///
    /// # Errors
    ///
    /// Those of what is timed.
    pub fn round(&mut self, mut timed: impl FnMut(usize) -> Result<Duration>) -> Result<()> {
        let mut times = [Duration::ZERO; 2];
        for turn in 0..2 {
            let index = (self.rounds.len() + turn) % 2;
            times[index] = timed(index)?;
        }
        self.rounds.push(times);
        Ok(())
    }

    /// Rounds until the share is kept: at least and at most so many.
    ///
    /// # Errors
    ///
    /// Those of what is timed.
    pub fn run(
        &mut self,
        [least, most]: [usize; 2],
        mut timed: impl FnMut(usize) -> Result<Duration>,
    ) -> Result<()> {
        while self.rounds.len() < least || !self.is_kept() && self.rounds.len() < most {
            self.round(&mut timed)?;
        }
        Ok(())
    }

    /// How many rounds there were.
    pub fn count(&self) -> usize {
        self.rounds.len()
    }

    /// The shortest time of each.
    pub fn best(&self) -> [Duration; 2] {
        [0, 1].map(|index| self.rounds.iter().map(|times| times[index]).min().unwrap_or_default())
    }

    /// The share that the shortest times make.
    pub fn ratio(&self) -> f64 {
        let [first, second] = self.best();
        second.as_secs_f64() / first.as_secs_f64()
    }

    /// Whether the second keeps to its share.
    pub fn is_kept(&self) -> bool {
        let kept = |[first, second]: [Duration; 2]| second <= first.mul_f64(self.share) + self.slack;
        let all = self.rounds.len();
        let third = || self.rounds.iter().filter(|times| kept(**times)).count() * 3 >= all;
        kept(self.best()) || all >= ENOUGH && third()
    }

    /// Holds the second to its share.
    ///
    /// # Errors
    ///
    /// It does not keep to it; with all times.
    pub fn require(&self) -> Result<()> {
        let pairs =
            self.rounds.iter().map(|[first, second]| format!("{}/{}", first.as_millis(), second.as_millis()));
        ensure!(
            self.is_kept(),
            "{self}, not {}; all, in ms: {}",
            self.share,
            pairs.collect::<Vec<_>>().join(" ")
        );
        Ok(())
    }
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([first, second], [a, b]) = (self.best().map(|time| time.as_millis()), self.names);
        write!(f, "{a} {first} ms, {b} {second} ms: {:.2} ({} rounds)", self.ratio(), self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A race with these times, in milliseconds.
    fn race(share: f64, rounds: &[[u64; 2]]) -> Race {
        let mut race = Race::new(["tar", "layerbox"], share);
        for times in rounds {
            race.round(|index| Ok(Duration::from_millis(times[index]))).unwrap();
        }
        race
    }

    #[test]
    fn a_share_is_kept_at_the_best_or_in_a_third_of_enough_rounds() {
        for (times, kept) in [
            (&[[100, 100]][..], true),
            (&[[100, 200], [100, 200], [100, 109]], true),
            (&[[100, 112], [100, 200], [100, 111]], false),
            (&[[100, 120]; 10], false),
            // The best of the first is of a round in which the second was slow.
            (&[[100, 120], [150, 120], [150, 180]], false),
            (&[[100, 120], [150, 120], [150, 120], [100, 120], [100, 120], [100, 120]], true),
            (&[[100, 120], [150, 120], [150, 180], [100, 120], [100, 120], [100, 120]], false),
        ] {
            assert_eq!(race(1.1, times).is_kept(), kept, "{times:?}");
        }
        let slow = race(1.1, &[[100, 120], [100, 130]]).require().unwrap_err().to_string();
        assert!(slow.ends_with("1.20 (2 rounds), not 1.1; all, in ms: 100/120 100/130"), "{slow}");
    }

    #[test]
    fn rounds_go_on_until_it_is_kept() {
        let mut race = Race::new(["tar", "layerbox"], 1.0);
        let mut calls = 0;
        race.run([2, 9], |index| {
            calls += 1;
            Ok(Duration::from_millis(if index == 0 || calls > 6 { 10 } else { 20 }))
        })
        .unwrap();
        assert_eq!(race.count(), 4);
        let mut never = Race::new(["tar", "layerbox"], 1.0);
        never.run([2, 9], |index| Ok(Duration::from_millis([10, 20][index]))).unwrap();
        assert_eq!(never.count(), 9);
        assert_eq!(never.to_string(), "tar 10 ms, layerbox 20 ms: 2.00 (9 rounds)");
    }
}
