//! layerbox without its sandbox: the logic of the component, linked natively, over the code that the host
//! runs. What the binary takes beyond this is the price of the sandbox, and of the store around it.
//!
//! `bench-native apply ARCHIVE DIRECTORY` · `bench-native diff DIRECTORY` · `bench-native changes DIRECTORY`

/// The host's traits over the code of the real host: the very file that the component's own tests run on.
#[path = "../../../guest/tests/calls/host.rs"]
#[allow(
    clippy::expect_used,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    reason = "the helper of tests, of which a program that measures needs a part"
)]
mod host;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use layerbox_guest::host::{ApplyOptions, ChangeKind, Dialect, Error, IdMaps};
use layerbox_guest::{apply, changes, diff};
use layerbox_privileged as privileged;

fn main() -> ExitCode {
    // As the binary does, see there.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(8 << 20)));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-native: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let failed = |error: Error| anyhow!("{error:?}");
    let maps = || IdMaps { uids: Vec::new(), gids: Vec::new() };
    let tree = |directory: &str| host::Tree::new(Path::new(directory), Dialect::Overlay);
    match words[..] {
        ["apply", archive, directory] => {
            // As in the binary: files get their mode when they are made.
            rustix::process::umask(rustix::fs::Mode::empty());
            let reader = Box::new(File::open(archive)?);
            let source = host::Source(RefCell::new(privileged::Source::new(reader)));
            let writer = host::Writer::new(Path::new(directory), Dialect::Overlay);
            let options =
                ApplyOptions { devices: true, maps: maps(), max_entries: 1 << 20, max_bytes: 1 << 40 };
            apply::apply(&writer, &source, options).map_err(failed)?;
        }
        ["diff", directory] => {
            let stdout = io::stdout().as_fd().try_clone_to_owned()?;
            let sink = privileged::Sink::from_fd(stdout);
            let sink = host::Sink { sink: RefCell::new(sink), bytes: Arc::default() };
            diff::own(&tree(directory), false, &sink, maps()).map_err(failed)?;
            sink.sink.borrow_mut().flush()?;
        }
        ["changes", directory] => {
            let found = changes::changes(&[tree(directory)], &[], &[0]).map_err(failed)?;
            let mut out = BufWriter::new(io::stdout().lock());
            for (name, kind) in found.iter() {
                let letter = match kind {
                    ChangeKind::Modified => 'C',
                    ChangeKind::Added => 'A',
                    ChangeKind::Deleted => 'D',
                };
                writeln!(out, "{letter} /{}", privileged::Name::new(name.to_vec())?)?;
            }
            out.flush()?;
        }
        _ => bail!("apply ARCHIVE DIRECTORY, diff DIRECTORY, or changes DIRECTORY"),
    }
    Ok(())
}
