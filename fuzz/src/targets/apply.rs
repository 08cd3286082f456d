//! From an archive to a layer and back, over the code that the real host runs, in both dialects.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use layerbox_guest::host::{ApplyOptions, Dialect, Error, IdMaps, Totals};
use layerbox_guest::{apply, diff, size};
use layerbox_tests::tree::{Except, Tree, names, picture, same};

use crate::host::{self, Sink, Source, Writer};
use crate::scratch::{self, Watched, tells};

/// What an input may make: enough for every rule, and quick.
const ENTRIES: u64 = 400;
const BYTES: u64 = 4 << 20;

pub(crate) fn run(bytes: &[u8]) {
    if tells(bytes) {
        return;
    }
    scratch::with("apply", |place| {
        let victim = place.join("victim");
        Watched::victim(&victim);
        let watched = Watched::new(&[victim]);
        let outcomes = [Dialect::Overlay, Dialect::Aufs].map(|dialect| {
            let outcome = one(place, dialect, bytes);
            watched.is_unchanged();
            outcome
        });
        agree(&outcomes);
    });
}

/// Applies the archive, and archives and applies again what came of it.
fn one(place: &Path, dialect: Dialect, bytes: &[u8]) -> Result<Totals, Error> {
    let layers = match dialect {
        Dialect::Aufs => ["aufs", "aufs-again"],
        _ => ["overlay", "overlay-again"],
    };
    let [layer, again] = layers.map(|name| place.join(name));
    // Read in pieces whose size the input decides, so that entries are cut at every place.
    let piece = bytes.first().map_or(usize::MAX, |&byte| if byte % 2 == 0 { usize::MAX } else { 700 });
    let totals = fill(&layer, dialect, bytes, piece)?;
    let first = archive(&layer, dialect);
    assert!(!tells(&first), "what only the victim has is in the layer");
    let again_totals = fill(&again, dialect, &first, usize::MAX)
        .unwrap_or_else(|error| panic!("{dialect:?}: the archive of a layer is not applied: {error:?}"));
    let (tree, other) = (picture(&layer), picture(&again));
    // Beyond what a path can say there is no picture; the archives tell.
    if let (Ok(tree), Ok(other)) = (&tree, &other) {
        same(tree, other, Except { root: true, ..Except::default() })
            .unwrap_or_else(|error| panic!("{dialect:?}: applied again: {error}"));
        held(tree, dialect);
    }
    assert_eq!(first, archive(&again, dialect), "{dialect:?}: the archive of the copy is another");
    assert_eq!(totals, again_totals, "{dialect:?}: the copy adds up to something else");
    let counted = size::own(&host::Tree::new(&layer, dialect)).expect("a size");
    assert_eq!(counted, totals, "{dialect:?}: counted afterwards it is another size");
    let found = names(place).expect("the scratch");
    let known =
        |name: &String| ["victim", "aufs", "aufs-again", "overlay", "overlay-again"].contains(&name.as_str());
    assert!(found.iter().all(known), "something was made beside the layers: {found:?}");
    Ok(totals)
}

fn fill(layer: &Path, dialect: Dialect, bytes: &[u8], piece: usize) -> Result<Totals, Error> {
    fs::create_dir(layer).expect("a layer");
    fs::set_permissions(layer, Permissions::from_mode(0o755)).expect("chmod");
    let options = ApplyOptions { devices: true, maps: no_maps(), max_entries: ENTRIES, max_bytes: BYTES };
    apply::apply(&Writer::new(layer, dialect), &Source::new(bytes.to_vec(), piece), options)
}

fn archive(layer: &Path, dialect: Dialect) -> Vec<u8> {
    let sink = Sink::new();
    let outcome = diff::own(&host::Tree::new(layer, dialect), false, &sink, no_maps())
        .unwrap_or_else(|error| panic!("{dialect:?}: what was applied cannot be archived: {error:?}"));
    assert!(outcome.skipped.is_empty(), "{dialect:?}: an archive has made a socket");
    sink.into_bytes()
}

/// What no archive may bring into a layer.
fn held(tree: &Tree, dialect: Dialect) {
    for (path, entry) in tree {
        let forbidden =
            |name: &[u8]| name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.");
        let opaque = (dialect == Dialect::Overlay).then_some(&b"trusted.overlay.opaque"[..]);
        let odd = entry.xattrs.keys().find(|name| forbidden(name) && Some(name.as_slice()) != opaque);
        assert!(odd.is_none(), "{dialect:?}: {}: {odd:?}", path.escape_ascii());
        assert!(
            dialect != Dialect::Aufs || entry.kind != "character" || entry.device != 0,
            "{}: a 0:0 device in the aufs dialect",
            path.escape_ascii()
        );
    }
}

/// What one dialect takes the other takes, except for names that only one of them can hide.
fn agree([overlay, aufs]: &[Result<Totals, Error>; 2]) {
    match (overlay, aufs) {
        (Ok(overlay), Ok(aufs)) => assert_eq!(overlay, aufs, "the dialects add up to different sizes"),
        // In aufs a mark is a name of its own, and one component deeper than the directory that it makes
        // opaque.
        (Ok(_), Err(Error::Refused(_) | Error::Limit(_) | Error::Io(_) | Error::Unsupported(_))) => {}
        (Err(overlay), Ok(_)) => panic!("only the aufs dialect takes it: {overlay:?}"),
        (Ok(_), Err(aufs)) => panic!("only the overlay dialect takes it: {aufs:?}"),
        (Err(_), Err(_)) => {}
    }
}

fn no_maps() -> IdMaps {
    IdMaps { uids: Vec::new(), gids: Vec::new() }
}
