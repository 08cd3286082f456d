//! The control groups of the containers. They are what namespaces do not take away, and they tell which
//! processes an engine's containers are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::INSIDE;

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "layerbox-tests-";

/// The name of the group of all containers of an engine. It holds the process that waits outside, so that a
/// later run can tell whose it is.
pub fn name(engine: &str) -> String {
    let run = std::env::var(INSIDE).unwrap_or_else(|_| std::process::id().to_string());
    format!("{PREFIX}{run}-{engine}")
}

/// Kills what runs in the group of an engine, and takes the group away.
pub fn end(name: &str) {
    let started = Instant::now();
    loop {
        let mut members: Vec<i32> = Vec::new();
        for group in groups(name) {
            visit(&group, &mut |directory| {
                let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
                members.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        // 0 is a process that this namespace does not see.
        members.retain(|&member| member > 0);
        for member in &members {
            let _ = kill(Pid::from_raw(*member), Signal::SIGKILL);
        }
        if members.is_empty() || started.elapsed() > Duration::from_secs(10) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    remove(&groups(name));
}

/// Takes away the groups that runs left behind which were killed.
pub fn sweep() {
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(run) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else {
                continue;
            };
            if !Path::new("/proc").join(run).exists() {
                remove(&[entry.path()]);
            }
        }
    }
}

fn remove(groups: &[PathBuf]) {
    for group in groups {
        // A group is removed by rmdir, the inner ones first; its files go with it.
        visit(group, &mut |directory| {
            let _ = fs::remove_dir(directory);
        });
    }
}

/// Calls a function with each directory below one and then with itself.
fn visit(directory: &Path, function: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), function);
        }
    }
    function(directory);
}

fn groups(name: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|hierarchy| hierarchy.join(name)).filter(|group| group.is_dir()).collect()
}

/// With version 1 each controller has a hierarchy, with version 2 there is one.
fn hierarchies() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(ROOT)];
    all.extend(fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path()));
    all
}
