//! How fast layerbox is, beside what else unpacks layers, and beside a floor that makes only the system calls
//! that the work needs.
//!
//! `bench [--json] [--no-strace] [WORD…]`: words choose works (`apply`, `synced`, `diff`, `changes`, `calls`,
//! `scale`) and inputs (`base`, `many`, `links`, `whiteouts`, `big`, `deep`); none choose all but `scale`.
//! `RUNS` says how many rounds (7), of which the middle one counts, and the best where a large file is
//! written. Everything happens on one ext4 with a journal, in an image that is mounted in a namespace of its
//! own. The exit status is 1 where a bound is missed.

mod bounds;
mod calls;
mod inputs;
mod measure;
mod programs;
mod report;
mod rounds;
mod scale;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use layerbox_tests::command::binary;
use layerbox_tests::harness::has_tool;
use layerbox_tests::scratch::Ground;

use programs::Work;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, report, program @ ..] = &arguments[..]
        && flag == measure::FLAG
    {
        return measure::run_and_report(report, program);
    }
    match bench(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Which of these were named; all where none was.
fn chosen<'a>(all: &[&'a str], words: &[&str]) -> Vec<&'a str> {
    let named: Vec<&str> = all.iter().copied().filter(|name| words.contains(name)).collect();
    if named.is_empty() { all.to_vec() } else { named }
}

/// Measures and prints; whether all bounds hold.
fn bench(arguments: &[String]) -> Result<bool> {
    let (options, words): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|word| word.starts_with("--"));
    let json = options.contains(&"--json");
    let runs: usize = std::env::var("RUNS").ok().map_or(Ok(7), |text| text.parse())?;
    let strace = has_tool("strace") && !options.contains(&"--no-strace");
    ensure!(binary().exists(), "{} is not there: run make, or set LAYERBOX_BIN", binary().display());

    // `scale` and `calls` stand for themselves: with nothing else named, nothing else is measured.
    let works = Work::ALL.map(Work::name);
    let apart = words.iter().all(|word| ["calls", "scale"].contains(word)) && !words.is_empty();
    let works = if apart { Vec::new() } else { chosen(&works, &words) };
    let names = chosen(&inputs::ALL, &words);
    let ground = Ground::new()?;
    let mut figures = Vec::new();
    for name in names {
        let input = inputs::input(name)?;
        for work in Work::ALL.into_iter().filter(|work| works.contains(&work.name()) && work.is_for(name)) {
            let place = ground.place().directory_for(name)?;
            let found = rounds::measure(work, &input, runs, strace, &place)?;
            // At once, so that nothing is lost of what takes long.
            let table = report::table(&input, &found);
            if json {
                eprint!("{table}");
            } else {
                print!("{table}");
            }
            figures.extend(found);
        }
    }
    let mut verdicts = bounds::verdicts(&figures);
    if words.is_empty() || words.contains(&"calls") {
        verdicts.extend(calls::measure(&ground.place().directory_for("calls")?)?);
    }
    if words.contains(&"scale") {
        verdicts.extend(scale::measure(&ground.place().directory_for("scale")?)?);
    }
    if json {
        println!("{}", report::json(&figures, &verdicts));
    } else {
        report::verdicts(&verdicts);
    }
    Ok(verdicts.iter().all(bounds::Verdict::holds))
}
