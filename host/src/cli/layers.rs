//! The commands about one layer: made, mounted, looked at, removed.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::Serialize;

use super::context::Context;
use super::output::ByteName;
use super::{Outcome, Stop};
use crate::driver::Metadata;
use crate::error::{Class, Escaped};

pub(super) fn create(context: &Context, id: &str, parent: Option<&str>) -> Outcome {
    context.open(true)?.create(id, parent)?;
    match parent {
        Some(parent) => context.log.note(format_args!("created {id} over {parent}")),
        None => context.log.note(format_args!("created {id}")),
    }
    Ok(())
}

/// A path of the machine, in JSON.
#[derive(Debug, Serialize)]
struct PathObject {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

pub(super) fn get(context: &Context, id: &str, label: Option<&str>) -> Outcome {
    let calls = context.open(false)?;
    let path = calls.get(id, label)?;
    let ByteName { text, hex } = ByteName::of(path.as_os_str().as_bytes());
    // As it is, not escaped: what a script does with it is `cd "$(layerbox get app)"`.
    let delivered = context.deliver(&PathObject { path: text, path_hex: hex }, |out| {
        out.write_all(path.as_os_str().as_bytes())?;
        writeln!(out)
    });
    Ok(delivered.inspect_err(|_| {
        // Nobody knows of the mount, so nobody would ever give it back. The error to tell is the first one.
        drop(calls.put(id));
    })?)
}

pub(super) fn put(context: &Context, id: &str) -> Outcome {
    Ok(context.open(false)?.put(id)?)
}

pub(super) fn remove(context: &Context, ids: &[String], force: bool) -> Outcome {
    let driver = context.open(false)?;
    let mut first = None;
    for id in ids {
        match driver.remove(id, force) {
            Ok(()) => context.log.note(format_args!("removed {id}")),
            Err(error) => {
                let stop = Stop::Failed(error);
                context.reporter.tell(&stop);
                first.get_or_insert(stop.status());
            }
        }
    }
    first.map_or(Ok(()), |status| Err(Stop::Status(status)))
}

/// The answer of `exists` as JSON.
#[derive(Debug, Serialize)]
struct ExistsObject {
    exists: bool,
}

pub(super) fn exists(context: &Context, id: &str) -> Outcome {
    let exists = match context.open(false) {
        Ok(driver) => driver.exists(id)?,
        // Where there is no store there is no layer either: an answer, not an error.
        Err(error) if error.failure.class() == Class::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    context.print(&ExistsObject { exists }, |_| Ok(()))?;
    if exists { Ok(()) } else { Err(Stop::Status(Class::NotFound.status())) }
}

/// What `metadata` prints as JSON.
#[derive(Debug, Serialize)]
struct MetadataObject<'a> {
    id: &'a str,
    parent: Option<&'a str>,
    ancestors: Vec<&'a str>,
    state: &'a str,
    references: u32,
    size: Option<u64>,
    entries: Option<u64>,
    directories: Directories,
}

/// The directories of a layer.
#[derive(Debug, Serialize)]
struct Directories {
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hex: Option<String>,
    mount_point: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_point_hex: Option<String>,
    work: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    work_hex: Option<String>,
}

impl Directories {
    fn of(metadata: &Metadata) -> Directories {
        let name = |path: &Path| ByteName::of(path.as_os_str().as_bytes());
        let ByteName { text: content, hex: content_hex } = name(&metadata.content);
        let ByteName { text: mount_point, hex: mount_point_hex } = name(&metadata.mount_point);
        let work = metadata.work.as_deref().map(name);
        let (work, work_hex) = work.map_or((None, None), |work| (Some(work.text), work.hex));
        Directories { content, content_hex, mount_point, mount_point_hex, work, work_hex }
    }
}

pub(super) fn metadata(context: &Context, id: &str) -> Outcome {
    let metadata = context.open(false)?.metadata(id)?;
    let ancestors: Vec<&str> = metadata.ancestors.iter().map(|id| id.as_str()).collect();
    let object = MetadataObject {
        id: metadata.id.as_str(),
        parent: ancestors.first().copied(),
        ancestors: ancestors.clone(),
        state: metadata.state,
        references: metadata.mounts,
        size: metadata.size,
        entries: metadata.entries,
        directories: Directories::of(&metadata),
    };
    let none = || "-".to_owned();
    let number = |value: Option<u64>| value.map_or_else(none, |value| value.to_string());
    let path = |path: &Path| Escaped(path.as_os_str().as_bytes()).to_string();
    let rows = [
        ("Layer", object.id.to_owned()),
        ("Parent", object.parent.map_or_else(none, str::to_owned)),
        ("Ancestors", if ancestors.is_empty() { none() } else { ancestors.join(" ") }),
        ("State", object.state.to_owned()),
        ("References", object.references.to_string()),
        ("Size", number(object.size)),
        ("Entries", number(object.entries)),
        ("Content", path(&metadata.content)),
        ("Mount Point", path(&metadata.mount_point)),
        ("Work", metadata.work.as_deref().map_or_else(none, path)),
    ];
    context.print(&object, |out| {
        rows.iter().try_for_each(|(key, value)| writeln!(out, "{}: {value}", context.paint.bold(key)))
    })
}
