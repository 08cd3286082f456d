//! What a running service may still do, as the kernel shows it for each of its threads.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::file;
use serde_json::json;

use crate::command::repository;
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::service::{Service, eventually};
use crate::store::{Dialect, Store};

/// The capabilities that anything is said of, by their bits (linux/capability.h).
const CAPABILITIES: [(&str, u64); 9] = [
    ("CAP_CHOWN", 1),
    ("CAP_DAC_OVERRIDE", 1 << 1),
    ("CAP_FOWNER", 1 << 3),
    ("CAP_FSETID", 1 << 4),
    ("CAP_LINUX_IMMUTABLE", 1 << 9),
    ("CAP_SYS_PTRACE", 1 << 19),
    ("CAP_SYS_ADMIN", 1 << 21),
    ("CAP_MKNOD", 1 << 27),
    ("CAP_SETFCAP", 1 << 31),
];

/// Those that a text names.
fn named(text: &str) -> Result<u64> {
    let words =
        text.split(|c: char| !c.is_ascii_uppercase() && c != '_').filter(|word| word.starts_with("CAP_"));
    words
        .map(|word| {
            let found = CAPABILITIES.iter().find(|(name, _)| *name == word);
            found.map(|(_, bit)| bit).with_context(|| format!("{word} is named"))
        })
        .sum()
}

/// What README lists: for the threads that work, and for the one that mounts.
fn listed() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(repository().join("README.md"))?;
    let (mut working, mut mounting) = (0, 0);
    for line in text.lines().filter(|line| line.starts_with("| `CAP_")) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let bits = named(cells[0])?;
        working |= if cells[1] == "kept" { bits } else { 0 };
        mounting |= if cells[2] == "kept" { bits } else { 0 };
    }
    let unit = std::fs::read_to_string(repository().join("packaging/systemd/layerbox.service"))?;
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("no set")?;
    ensure!(named(set)? == mounting, "the unit of systemd has other capabilities than README");
    ensure!(working != 0 && working & mounting == working, "{working:x} {mounting:x}");
    Ok((working, mounting))
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("service, privileges: what each thread keeps is what README lists", kept)
            .needs(Need::Filesystem("overlay")),
        case("service, privileges: a container may still do through a union what it may do", through_a_union)
            .needs(Need::Filesystem("overlay"))
            .needs(Need::Tool("chattr")),
        case("service, privileges: a command line gains none by what it starts", command_line),
        case("service, privileges: directories of the store and sockets are closed to others", closed),
    ]
}

/// The fields of each thread's status, by the thread's name.
fn threads(service: &Service) -> Result<Vec<(String, BTreeMap<String, String>)>> {
    let mut threads = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", service.id()))? {
        // One that has ended meanwhile.
        let Ok(text) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
        let fields: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        threads.push((fields["Name"].clone(), fields));
    }
    Ok(threads)
}

fn kept(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.layer("base", "", &[file("f", "x")])?;
    service.ok("Create", &json!({ "ID": "top", "Parent": "base" }))?;
    service.ok("Get", &json!({ "ID": "top" }))?;
    // A call that is under way: the thread that runs the component is there to be looked at, and waits.
    service.ok("Create", &json!({ "ID": "under-way" }))?;
    let mut upload = service.connect()?;
    upload.begin("/GraphDriver.ApplyDiff?id=under-way&parent=")?;
    upload.chunk(&file("f", vec![0; 4096]).header())?;
    let stage = service.path("home/stage/under-way");
    eventually("the upload is under way", || Ok(stage.exists()))?;

    let (working, mounting) = listed()?;
    let mut seen = BTreeMap::<String, usize>::new();
    for (name, fields) in threads(&service)? {
        let bits = |key: &str| -> Result<u64> {
            let text = fields.get(key).with_context(|| format!("{name}: no {key}"))?;
            Ok(u64::from_str_radix(text, 16)?)
        };
        let expected = if name.starts_with("mount") { mounting } else { working };
        for key in ["CapEff", "CapPrm"] {
            let found = bits(key)?;
            ensure!(found == expected, "{name}: {key} is {found:x} and not {expected:x}");
        }
        ensure!(bits("CapBnd")? == mounting, "{name}: CapBnd is {:x}", bits("CapBnd")?);
        ensure!(bits("CapInh")? == 0 && bits("CapAmb")? == 0, "{name}: hands capabilities on");
        ensure!(fields["NoNewPrivs"] == "1" && fields["Seccomp"] == "2", "{name}: {fields:?}");
        *seen.entry(name).or_default() += 1;
    }
    println!("         threads: {seen:?}");
    ensure!(seen.get("mount") == Some(&1), "there is one thread that mounts: {seen:?}");
    // The one that waits for signals, those that wait for sockets, the clock, and at least one in a call.
    ensure!(seen.len() > 3 && seen.values().sum::<usize>() > 5, "{seen:?}");
    Ok(())
}

/// overlayfs does with the capabilities of whoever mounted what a container asks for: owners, devices,
/// deletions, file capabilities, flags.
fn through_a_union(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    let base = [
        file("of-another", "x").owner(1234, 1234).mode(0o600),
        file("gone", "x"),
        file("setid", "x").mode(0o6755),
    ];
    service.layer("base", "", &base)?;
    service.ok("Create", &json!({ "ID": "top", "Parent": "base" }))?;
    let merged = service.ok("Get", &json!({ "ID": "top" }))?["Dir"].as_str().context("no path")?.to_owned();
    let script = "set -e; cd \"$1\"
        echo more >> of-another; chown 5:6 of-another; rm gone; chown 7:8 setid; chmod 6755 setid
        mkdir -m 2770 d; touch d/f; mknod d/c c 1 3
        setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 d/f
        setfattr -n trusted.mine -v x d/f
        chattr +i d/f; ! rm d/f 2>/dev/null; chattr -i d/f; rm -r d";
    crate::command::shell(script, [std::path::Path::new(&merged)])?;
    service.ok("Put", &json!({ "ID": "top" }))?;
    let changes = service.ok("Changes", &json!({ "ID": "top", "Parent": "base" }))?;
    let changes = changes["Changes"].as_array().context("no changes")?;
    ensure!(changes.len() == 3, "{changes:?}");
    Ok(())
}

fn command_line(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("a", None)?;
    let mut command = store.command(["apply-diff", "a"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let status = || std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let told = || Ok(status()?.lines().any(|line| line == "NoNewPrivs:\t1"));
    let found = eventually("NoNewPrivs is 1", told);
    child.kill()?;
    child.wait()?;
    found
}

fn closed(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.layer("base", "", &[file("f", "x")])?;
    let mode = |path: &std::path::Path| -> Result<u32> {
        Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.permissions().mode() & 0o7777)
    };
    let home = service.path("home");
    let found = mode(&home)?;
    ensure!(found == 0o700, "the store: {found:o}");
    for entry in std::fs::read_dir("/run/layerbox")? {
        let path = entry?.path();
        if path.is_dir() {
            let found = mode(&path)?;
            ensure!(found & 0o7 & !0o1 == 0, "{}: {found:o}", path.display());
        }
    }
    for (socket, expected) in [("docker.sock", 0o660), ("admin.sock", 0o660)] {
        let found = mode(&service.path(socket))?;
        ensure!(found == expected, "{socket}: {found:o}");
    }
    let mut control = 0;
    for entry in std::fs::read_dir("/run/layerbox/control")? {
        let path = entry?.path();
        // A service of another case may have ended meanwhile, and its socket with it.
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        if found.file_type().is_socket() {
            ensure!(found.mode() & 0o7777 == 0o600, "{}: {:o}", path.display(), found.mode());
            control += 1;
        }
    }
    ensure!(control > 0, "no socket for command lines was looked at");
    Ok(())
}
