//! Archives from strangers: the catalogue, a table for each of its groups, and the oracle that every row is held to.
//!
//! Three outcomes exist. [`Outcome::Exact`]: applied, and the layer holds what the row says. [`Outcome::Refused`]: exit status 5, the layer empty and reusable.
//! [`Outcome::Limit`]: exit status 6, the same clean-up. Beside the layer lies `victim/`, of which nothing may change and nothing may be learned.

mod attributes;
mod guests;
mod links;
mod names;
mod reader;
mod resources;
mod whiteouts;

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::archive::Member;
use layerbox_tests::tree::{Entry, Except, Tree, picture, same, show};

use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// What nobody but its owner should ever see.
const SECRET: &[u8] = b"the secret of the victim";

/// What must come of an archive.
#[derive(Debug, Clone)]
enum Outcome {
    /// It is applied, and the layer holds these names, as `describe` shows them.
    Exact(Vec<String>),
    /// It is refused, and the message holds this text.
    Refused(&'static str),
    /// A limit is reached.
    Limit,
}

/// A row of the catalogue.
struct Row {
    title: &'static str,
    archive: Vec<u8>,
    outcome: Outcome,
    /// Only one of the dialects, where they differ.
    only: Option<Dialect>,
    options: Vec<&'static str>,
}

fn exact(title: &'static str, archive: Vec<u8>, names: &[&str]) -> Row {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Row { title, archive, outcome: Outcome::Exact(names), only: None, options: Vec::new() }
}

fn refused(title: &'static str, archive: Vec<u8>) -> Row {
    Row { title, archive, outcome: Outcome::Refused(""), only: None, options: Vec::new() }
}

fn limit(title: &'static str, archive: Vec<u8>, options: &[&'static str]) -> Row {
    Row { title, archive, outcome: Outcome::Limit, only: None, options: options.to_vec() }
}

impl Row {
    /// The error must hold this text too: the entry's name, usually.
    fn saying(mut self, text: &'static str) -> Row {
        if let Outcome::Refused(says) = &mut self.outcome {
            *says = text;
        }
        self
    }

    fn only(mut self, dialect: Dialect) -> Row {
        self.only = Some(dialect);
        self
    }
}

/// A group of the catalogue.
type Table = fn() -> Vec<Row>;

pub(super) fn cases() -> Vec<Case> {
    let groups: [(&str, Table); 6] = [
        ("names", names::rows),
        ("links", links::rows),
        ("reader", reader::rows),
        ("whiteouts", whiteouts::rows),
        ("attributes", attributes::rows),
        ("resources", resources::rows),
    ];
    let mut cases = Vec::new();
    for (group, rows) in groups {
        for row in rows() {
            for dialect in Dialect::ALL {
                if row.only.is_none_or(|only| only == dialect) {
                    let Row { title, ref archive, ref outcome, ref options, .. } = row;
                    let (archive, outcome, options) = (archive.clone(), outcome.clone(), options.clone());
                    cases.push(case(
                        format!("hostile ({}), {group}: {title}", dialect.name()),
                        move |place| try_row(place, dialect, &archive, &outcome, &options),
                    ));
                }
            }
        }
    }
    cases.extend(resources::streams());
    cases.extend(names::deep());
    cases.extend(guests::cases());
    cases
}

fn try_row(
    place: &Place,
    dialect: Dialect,
    archive: &[u8],
    outcome: &Outcome,
    options: &[&str],
) -> Result<()> {
    let watched = Watched::new(place, dialect)?;
    let store = &watched.store;
    let mut command = store.command([&["apply-diff", "target"], options].concat());
    let output = crate::command::run(&mut command, archive)?;
    match outcome {
        Outcome::Exact(want) => {
            output.expect(0)?;
            watched.nothing_happened_elsewhere()?;
            let tree = picture(&store.content("target"))?;
            let found = describe(&tree, dialect);
            ensure!(found == *want, "the layer holds {found:#?}\nand not {want:#?}");
            // What can be applied can be walked, archived, applied again and removed.
            let again = store.diff("target")?;
            store.changes("target")?;
            store.create("copy", Some("parent"))?;
            store.apply("copy", &again)?.expect(0)?;
            let except = Except { root: true, ..Except::default() };
            same(&tree, &picture(&store.content("copy"))?, except).context("applied again")?;
            ensure!(store.diff("copy")? == again, "the diff of the copy is another");
            store.ok(["remove", "copy", "target"])?;
        }
        Outcome::Refused(text) => {
            output.expect(5)?.says(text)?;
            watched.nothing_happened_elsewhere()?;
            store.is_empty_and_reusable("target")?;
        }
        Outcome::Limit => {
            output.expect(6)?;
            watched.nothing_happened_elsewhere()?;
            store.is_empty_and_reusable("target")?;
        }
    }
    watched.nothing_happened_elsewhere()
}

/// A store with a layer to attack and all that an attack could reach.
#[derive(Debug)]
struct Watched<'a> {
    place: &'a Place,
    store: Store,
    victim: Tree,
    others: Vec<(&'static str, Tree)>,
}

impl<'a> Watched<'a> {
    fn new(place: &'a Place, dialect: Dialect) -> Result<Watched<'a>> {
        let store = Store::new(place.join("s"), dialect);
        store.layer(
            "parent",
            None,
            &[layerbox_tests::archive::file("in-parent", "p"), layerbox_tests::archive::file("d/lower", "l")],
        )?;
        store.create("target", Some("parent"))?;
        store.layer("neighbour", None, &[layerbox_tests::archive::file("n", "n")])?;
        // In every directory that a wrong number of `..` could lead to.
        for directory in ["victim", "s/victim", "s/diff/victim", "s/stage/victim"] {
            place.make(directory)?;
            fs::write(place.join(directory).join("hello"), SECRET)?;
        }
        let victim = picture(&place.join("victim"))?;
        let others = [("parent", store.content("parent")), ("neighbour", store.content("neighbour"))]
            .into_iter()
            .map(|(id, path)| Ok((id, picture(&path)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Watched { place, store, victim, others })
    }

    fn nothing_happened_elsewhere(&self) -> Result<()> {
        // A sweep of `stage/` may take away what is no layer's; that is no harm to anybody.
        for directory in ["victim", "s/victim", "s/diff/victim"] {
            let now = picture(&self.place.join(directory))?;
            let except = Except { directory_times: true, root: true, ..Except::default() };
            same(
                &self.victim,
                &now,
                Except { root: false, directory_times: directory != "victim", ..except },
            )
            .or_else(
                |error| if directory == "victim" { Err(error) } else { same_content(&self.victim, &now) },
            )
            .with_context(|| format!("{directory} has changed"))?;
        }
        for (id, before) in &self.others {
            same(before, &picture(&self.store.content(id))?, Except::default())
                .with_context(|| format!("layer {id} has changed"))?;
        }
        holds_no_secret(&self.store.content("target"))?;
        self.store.run(["exists", "neighbour"])?.expect(0).map(drop)
    }
}

/// Copies of the victim were made at other times than it; what they hold is the same.
fn same_content(want: &Tree, got: &Tree) -> Result<()> {
    let content = |tree: &Tree| -> Vec<(Vec<u8>, String)> {
        tree.iter().map(|(path, entry)| (path.clone(), entry.content.clone())).collect()
    };
    ensure!(content(want) == content(got), "{:?}", got.keys().map(|path| show(path)).collect::<Vec<_>>());
    Ok(())
}

fn holds_no_secret(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for (path, entry) in picture(directory)? {
        if entry.kind == "file" && entry.size < 1 << 20 {
            let bytes = fs::read(directory.join(std::ffi::OsStr::from_bytes(&path)))?;
            if bytes.windows(SECRET.len()).any(|window| window == SECRET) {
                bail!("{} holds what only the victim has", show(&path));
            }
        }
    }
    Ok(())
}

/// A layer in lines: `name type`, with content or target; deletions in one form for both dialects, and the bookkeeping left out.
fn describe(tree: &Tree, dialect: Dialect) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, entry) in tree {
        if path.is_empty() && entry.xattrs.is_empty() {
            continue;
        }
        let name = show(path);
        let (parent, base) = name.rsplit_once('/').map_or(("", &name[..]), |(parent, base)| (parent, base));
        let hidden = base.strip_prefix(".wh.");
        match (dialect, hidden) {
            (Dialect::Aufs, Some(".wh.aufs")) => {}
            (Dialect::Aufs, Some(".wh..opq")) => {
                lines.push(format!("{}/ opaque", if parent.is_empty() { "" } else { parent }))
            }
            (Dialect::Aufs, Some(hidden)) => {
                lines.push(format!("{parent}{}{hidden} deleted", if parent.is_empty() { "" } else { "/" }))
            }
            (Dialect::Overlay, _) if entry.kind == "character" && entry.device == 0 => {
                lines.push(format!("{name} deleted"))
            }
            _ => {
                if entry.xattrs.contains_key(&b"trusted.overlay.opaque"[..]) {
                    lines.push(format!("{}/ opaque", if path.is_empty() { "" } else { &name }));
                }
                if !path.is_empty() {
                    lines.push(format!("{name} {}", what(entry)));
                }
            }
        }
    }
    lines.sort();
    lines
}

fn what(entry: &Entry) -> String {
    match entry.kind {
        "file" => format!("file of {}", entry.size),
        "symlink" => format!("-> {}", show(&entry.target)),
        "character" | "block" => format!("{} {}:{}", entry.kind, entry.device >> 8, entry.device & 0xff),
        kind => kind.to_owned(),
    }
}

/// An archive of members, for rows.
fn tar(members: &[Member]) -> Vec<u8> {
    layerbox_tests::archive::tar(members)
}
