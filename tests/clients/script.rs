//! The script that an engine runs over each driver, and its transcript.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use layerbox_tests::command::{repository, run};

use crate::engine::Engine;
use crate::normal::Normal;

/// Defined for every step: the second engine, the two programs that print what an archive holds, and one
/// stream for all that is printed.
const PRELUDE: &str = "
    exec 2>&1
    empty() { DOCKER_HOST=$EMPTY_HOST \"$@\"; }
    list() { python3 \"$SCRIPT/list.py\" \"$@\"; }
    saved() { python3 \"$SCRIPT/saved.py\" \"$@\"; }
";

/// Runs the steps of a file in `tests/clients/script`, in a directory of their own, and gives what they
/// print, ids and times aside. `archive` is the root file system that they import, under its own name.
///
/// # Errors
///
/// A step cannot be started. One that fails is part of the transcript.
pub fn transcript(
    steps: &str,
    directory: &Path,
    archive: &Path,
    engine: &Engine,
    empty: &Engine,
) -> Result<Vec<String>> {
    fs::create_dir_all(directory)?;
    let script = repository().join("tests/clients/script");
    build_context(&directory.join("build"), &script)?;
    fs::write(directory.join("single"), "single\n")?;
    let name = archive.file_name().context("an archive has a name")?;
    std::os::unix::fs::symlink(archive, directory.join(name))?;
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().to_string();

    let mut normal = Normal::default();
    let mut lines = Vec::new();
    let text = fs::read_to_string(script.join(steps)).with_context(|| steps.to_owned())?;
    for step in text.split("\n\n").map(str::trim).filter(|step| !step.is_empty() && !step.starts_with("# ")) {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{PRELUDE}\n{step}")).current_dir(directory);
        engine.environment(&mut command);
        command
            .env("EMPTY_HOST", empty.host())
            .env("SCRIPT", &script)
            .env("START", &start)
            // What is printed in the order of the locale, and which zone times are in, must not depend on the
            // user.
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        let output = run(&mut command, b"")?;
        lines.push(format!("$ {step}"));
        lines.extend(normal.lines(&output.text()));
        lines.push(format!("= {}", output.code));
    }
    Ok(lines)
}

/// What the Dockerfiles copy. The times are fixed: they are in the layer.
fn build_context(directory: &Path, script: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("files/d/e"))?;
    for name in ["Dockerfile", "Dockerfile.small"] {
        fs::copy(script.join(name), directory.join(name))?;
    }
    for (name, mode, content) in [
        ("a", 0o644, "a\n"),
        ("b with space", 0o600, ""),
        ("d/c", 0o755, "#!/bin/sh\n"),
        ("d/e/f", 0o444, "f"),
    ] {
        let path = directory.join("files").join(name);
        let file = fs::File::create(&path)?;
        fs::write(&path, content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000))?;
    }
    for name in ["files/d/e", "files/d", "files"] {
        fs::File::open(directory.join(name))?
            .set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_001))?;
    }
    Ok(())
}

/// Runs a script over both drivers at the same time, and holds the two transcripts to say the same. Each
/// comes with the driver's name, what is right first.
///
/// # Errors
///
/// One of them fails, or they differ.
pub fn side_by_side(
    (right_name, right): (&str, impl FnOnce() -> Result<Vec<String>> + Send),
    (our_name, ours): (&str, impl FnOnce() -> Result<Vec<String>>),
) -> Result<()> {
    let (right, ours) = std::thread::scope(|scope| {
        let right = scope.spawn(right);
        let ours = ours();
        (right.join(), ours)
    });
    let right =
        right.map_err(|_| anyhow!("a thread panicked"))?.with_context(|| format!("over {right_name}"))?;
    let ours = ours.with_context(|| format!("over {our_name}"))?;
    let difference = difference(&right, &ours);
    ensure!(difference.is_empty(), "{right_name} (-) and {our_name} (+) differ:\n{difference}");
    Ok(())
}

/// Whether two lines say the same. Sizes may differ by the lengths of symbolic links' targets: Docker adds
/// them up as if they were content, and a layer here is as large as its regular files.
fn same(left: &str, right: &str) -> bool {
    let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
    left.len() == right.len()
        && left.iter().zip(&right).all(|(left, right)| {
            left == right
                || matches!((size(left), size(right)), (Some((left, unit)), Some((right, _)))
                    if (left - right).abs() <= unit + if left < 1e6 { SCRIPT_TARGETS } else { ROOT_TARGETS })
        })
}

/// The most bytes of targets that the links of the script have, and those of a Debian root.
const SCRIPT_TARGETS: f64 = 30.0;
const ROOT_TARGETS: f64 = 20_000.0;

/// Reads a size as the engine prints it (go-units, HumanSize: `0B`, `48.17kB`, `(virtual`, `167MB)`), in
/// bytes, and how many the last digit stands for.
fn size(word: &str) -> Option<(f64, f64)> {
    let word = word.trim_end_matches(')');
    let at = word.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
    let (number, unit) = word.split_at(at);
    let factor = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let last = factor / 10f64.powi(i32::try_from(decimals).ok()?);
    Some((number.parse::<f64>().ok()? * factor, last))
}

/// The first places where two transcripts differ, with their steps; empty when they do not.
fn difference(left: &[String], right: &[String]) -> String {
    let steps = |lines: &[String]| -> Vec<Vec<String>> {
        let mut steps: Vec<Vec<String>> = Vec::new();
        for line in lines {
            match steps.last_mut() {
                Some(step) if !line.starts_with("$ ") => step.push(line.clone()),
                _ => steps.push(vec![line.clone()]),
            }
        }
        steps
    };
    let (left, right) = (steps(left), steps(right));
    let mut text = String::new();
    let differ = |(left, right): &(&Vec<String>, &Vec<String>)| {
        left.len() != right.len() || left.iter().zip(*right).any(|(left, right)| !same(left, right))
    };
    for (left, right) in left.iter().zip(&right).filter(differ).take(6) {
        text.push_str(&format!("{}\n", left[0]));
        let mut shown = 0;
        for index in 1..left.len().max(right.len()) {
            let (left, right) = (left.get(index), right.get(index));
            let equal = matches!((left, right), (Some(left), Some(right)) if same(left, right));
            if !equal && shown < 12 {
                shown += 1;
                text.push_str(&format!("  - {}\n", left.map_or("(nothing)", String::as_str)));
                text.push_str(&format!("  + {}\n", right.map_or("(nothing)", String::as_str)));
            }
        }
    }
    if left.len() != right.len() {
        text.push_str(&format!("{} steps and {} steps\n", left.len(), right.len()));
    }
    text
}
