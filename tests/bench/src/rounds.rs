//! One piece of work on one input: everybody in turn, round after round, so that whatever else the machine
//! does falls on all of them.

use anyhow::Result;
use layerbox_tests::scratch::Place;

use crate::inputs::Input;
use crate::measure::{Sample, least, measured, median, system_calls};
use crate::programs::{Field, Who, Work};

/// What came of it for one of them: medians, the largest peak, and the system calls for each entry where they
/// were counted.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) work: Work,
    pub(crate) input: &'static str,
    pub(crate) who: Who,
    pub(crate) sample: Sample,
    pub(crate) calls: Option<f64>,
}

/// Runs everybody `runs` times.
pub(crate) fn measure(
    work: Work,
    input: &Input,
    runs: usize,
    strace: bool,
    place: &Place,
) -> Result<Vec<Figure>> {
    let reads = matches!(work, Work::Diff | Work::Changes);
    let mut field = Field::new(place, input, reads)?;
    let all = Who::able(work, input.name);
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); all.len()];
    for round in 0..runs {
        for turn in 0..all.len() {
            // Nobody is always first.
            let index = (turn + round) % all.len();
            let target = field.prepare(work, all[index])?;
            let command = field.command(work, all[index], &target)?;
            samples[index].push(measured(&command, &field.output(), &field.report())?);
            field.clean(work, all[index], &target)?;
        }
    }
    let mut figures = Vec::new();
    for (who, samples) in all.into_iter().zip(samples) {
        let calls = if strace && work != Work::ApplySynced {
            let target = field.prepare(work, who)?;
            let command = field.command(work, who, &target)?;
            let calls = system_calls(&command, &field.output(), &field.report())?;
            field.clean(work, who, &target)?;
            Some(calls as f64 / input.entries as f64)
        } else {
            None
        };
        // What writes one large file depends on how soon the machine finds memory for it, on a virtual one by
        // several times: there the best run is nearest to the work.
        let writes_large = work == Work::Diff || input.name == "big";
        let typical = if writes_large { least } else { median };
        let sample = Sample {
            wall: typical(samples.iter().map(|sample| sample.wall).collect()),
            cpu: typical(samples.iter().map(|sample| sample.cpu).collect()),
            peak: samples.iter().map(|sample| sample.peak).max().unwrap_or(0),
        };
        figures.push(Figure { work, input: input.name, who, sample, calls });
    }
    Ok(figures)
}
