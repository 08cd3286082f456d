//! Real engines: Debian's Docker Engine, with its containerd and runc, driven over layerbox and, to know what
//! is right, over its own overlay2.
//!
//! `cargo test -p layerbox-tests --test clients -- [--list] [WORD…]`, as the other suite; the last line is
//! `clients: N passed, N failed, N skipped`. With `--fetch` alone it runs nothing and gets what the cases
//! want of the network, which else is got before the first of them.
//!
//! The suite runs in process, mount and network namespaces of its own. An engine has children that outlive it
//! (containerd, a shim a container), mounts that outlive those, and files in `/run` and `/etc/docker` that it
//! shares with any other engine of the machine; when the first process of the namespaces ends, however it
//! ends, the kernel ends and unmounts all of that. Cases still clean up after themselves, since the next one
//! is to start from nothing.

mod cases;
mod cgroup;
mod containerd;
mod engine;
mod normal;
mod rig;
mod script;
mod service;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::fixture::debian_root;
use layerbox_tests::harness::has_tool;
use layerbox_tests::scratch::{Ground, cover};
use layerbox_tests::{command, harness};
use nix::mount::{MsFlags, mount};

/// Set inside of the namespaces, to the process that waits outside.
pub const INSIDE: &str = "LAYERBOX_TESTS_INSIDE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listed = arguments.iter().any(|argument| argument == "--list");
    let possible = nix::unistd::geteuid().is_root() && has_tool("unshare") && has_tool("tini");
    if arguments == ["--fetch"] {
        // Where the cases cannot be run, nothing is wanted for them.
        let fetched = if possible { fetch() } else { Ok(()) };
        return fetched.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS);
    }
    if possible && !listed && std::env::var_os(INSIDE).is_none() {
        return failed(&enter(&arguments));
    }
    harness::suite("clients", cases::all, &arguments, prepare)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("clients: {error:#}");
    ExitCode::FAILURE
}

/// Starts the suite again, inside. It returns only when that cannot be done.
fn enter(arguments: &[String]) -> anyhow::Error {
    cgroup::sweep();
    // There is no network inside.
    if let Err(error) = fetch() {
        return error;
    }
    let this = match std::env::current_exe() {
        Ok(this) => this,
        Err(error) => return error.into(),
    };
    // `tini` is what docker.io brings along as the first process of a container: it waits for the orphans.
    let error = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "tini", "--"])
        .arg(this)
        .args(arguments)
        .env(INSIDE, std::process::id().to_string())
        .exec();
    anyhow::Error::new(error).context("unshare")
}

/// Gets what comes over the network, once.
fn fetch() -> anyhow::Result<()> {
    containerd::fetch();
    debian_root().map(drop)
}

/// Hides what engines share: sockets of shims, where plugins are looked up, the settings of this machine's
/// own engine.
fn prepare(ground: &Ground) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    for directory in ["/run/containerd", "/run/docker", "/etc/docker"] {
        cover(directory.as_ref()).with_context(|| format!("a tmpfs on {directory}"))?;
    }
    std::fs::create_dir_all(service::PLUGINS)?;
    // Which ids the user that an engine is told to map to has.
    let ids = ground.place().join("subordinate-ids");
    std::fs::write(&ids, format!("{}:{}:65536\n", engine::MAPPED_USER, engine::MAPPED))?;
    for file in ["/etc/subuid", "/etc/subgid"] {
        if Path::new(file).exists() {
            let none = None::<&str>;
            mount(Some(&ids), file, none, MsFlags::MS_BIND, none).with_context(|| format!("hide {file}"))?;
        }
    }
    ensure!(command::binary().is_absolute(), "the binary has no absolute path");
    Ok(())
}
