//! Entries that a stranger's archive may hold (HOSTILE: names, links, whiteouts, attributes, resources): a table.
//!
//! Beside the layer lies another with a file, and outside the store a directory. Whatever the archive says, both are as before.

use std::fs;
use std::sync::Arc;

use super::{Case, Context, Outcome, Scope};
use crate::check::{equal, fails, holds};
use crate::subject::Store;
use crate::tar::{Archive, Entry, Header, Kind, archive, records};
use crate::view;

/// How a hostile archive must end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// Refused, and the error names this entry.
    Refused(&'static str),
    /// Refused; which entry is named, if any, is not said.
    RefusedAnyhow,
    /// At a limit.
    Limit,
    /// Applied, with these names in the layer.
    Exact(&'static [&'static str]),
    /// Applied or refused: what counts is that nothing outside was touched.
    Contained,
}

/// A name, what it is about, the archive, and how it must end.
pub(super) type Row = (&'static str, &'static str, fn() -> Vec<u8>, End);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("dot-dot", "../victim/x", || raw_file(b"../victim/x"), End::Refused("../victim/x")),
    ("absolute-dot-dot", "/../victim/x", || raw_file(b"/../victim/x"), End::RefusedAnyhow),
    ("only-dot-dot", "an entry named ..", || raw_file(b".."), End::Refused("..")),
    ("dot-dot-inside", "a/../../victim/x", || raw_file(b"a/../../victim/x"), End::RefusedAnyhow),
    ("absolute-name", "/etc/passwd lies below the layer", || raw_file(b"/etc/passwd"), End::Exact(&["etc", "etc/passwd"])),
    ("empty-name", "refused", || raw_file(b""), End::RefusedAnyhow),
    ("root-that-is-a-file", "the root is a directory", || raw_file(b"./"), End::RefusedAnyhow),
    ("root-that-is-a-link", "the root is a directory", || archive(&[Entry { name: b".".to_vec(), ..Entry::symlink("", "/") }]), End::RefusedAnyhow),
    ("nul-in-a-long-name", "refused", || {
        Archive::new().extension(b'x', &records(&[(b"path", b"a\0b")])).member(Header::new(b'0').name(b"a"), b"").end()
    }, End::RefusedAnyhow),
    ("component-of-256-bytes", "no directory can hold it", || archive(&[Entry::file(vec![b'a'; 256], "")]), End::RefusedAnyhow),
    ("newline-in-a-name", "a name like any other", || archive(&[Entry::file("a\nb", "")]), End::Exact(&["a\\x0ab"])),
    ("4097-components", "a limit", || archive(&[Entry::file(vec!["a"; 4097].join("/"), "")]), End::Limit),

    ("file-through-a-link-out", "dir -> ../victim, dir/x", || {
        archive(&[Entry::symlink("dir", "../../victim"), Entry::file("dir/x", "evil")])
    }, End::Contained),
    ("file-through-an-absolute-link", "dir -> /tmp, dir/x", || {
        archive(&[Entry::symlink("dir", "/tmp"), Entry::file("dir/layerbox-evil", "evil")])
    }, End::Contained),
    ("file-through-a-loop", "a -> a, a/b", || archive(&[Entry::symlink("a", "a"), Entry::file("a/b", "")]), End::Refused("a/b")),
    ("file-through-a-file", "a is no directory", || archive(&[Entry::file("a", ""), Entry::file("a/b", "")]), End::Refused("a/b")),
    ("dangling-link-out", "a target is never looked at", || archive(&[Entry::symlink("a", "../../../../etc")]), End::Exact(&["a"])),
    ("link-replaced-by-a-file", "the link goes, its target stays", || {
        archive(&[Entry::symlink("a", "../../victim/hello"), Entry::file("a", "evil")])
    }, End::Exact(&["a"])),
    ("directory-replaced-by-a-link", "what goes into it then stays inside", || archive(&[
        Entry::directory("a"), Entry::file("a/x", ""), Entry::symlink("a", "../../victim"), Entry::file("a/hello", "evil"),
    ]), End::Contained),
    ("tree-replaced-over-a-link", "removing it follows nothing", || archive(&[
        Entry::directory("a"), Entry::symlink("a/out", "../../../victim"), Entry::file("a", ""),
    ]), End::Exact(&["a"])),
    ("hard-link-out", "../victim/hello", || archive(&[Entry::hard_link("a", "../../victim/hello")]), End::Refused("a")),
    ("hard-link-through-a-link", "found without following links", || archive(&[
        Entry::directory("d"), Entry::file("d/f", ""), Entry::symlink("l", "d"), Entry::hard_link("a", "l/f"),
    ]), End::Refused("a")),
    ("hard-link-to-a-directory", "a directory has one name", || archive(&[Entry::directory("d"), Entry::hard_link("a", "d")]), End::Refused("a")),
    ("hard-link-to-the-root", "a directory has one name", || archive(&[Entry::hard_link("a", "./")]), End::RefusedAnyhow),
    ("hard-link-to-itself", "refused", || archive(&[Entry::file("a", ""), Entry::hard_link("a", "a")]), End::Refused("a")),
    ("hard-link-before-its-target", "refused", || archive(&[Entry::hard_link("a", "b"), Entry::file("b", "")]), End::Refused("a")),
    ("hard-link-to-what-only-the-parent-has", "refused", || archive(&[Entry::hard_link("a", "in-parent")]), End::Refused("a")),
    ("hard-link-to-what-was-replaced", "it is not there any more", || archive(&[
        Entry::directory("d"), Entry::file("d/f", ""), Entry::file("d", ""), Entry::hard_link("a", "d/f"),
    ]), End::Refused("a")),
    ("hard-link-to-a-whiteout", "a mark is no file", || archive(&[Entry::whiteout("x"), Entry::hard_link("a", ".wh.x")]), End::Refused("a")),
    ("link-target-of-100-kilobytes", "longer than any", || archive(&[Entry::symlink("a", vec![b't'; 100_000])]), End::RefusedAnyhow),
    ("link-without-a-target", "refused", || archive(&[Entry::symlink("a", "")]), End::Refused("a")),

    ("whiteout-of-no-name", ".wh.", || archive(&[Entry::file(".wh.", "")]), End::Refused(".wh.")),
    ("whiteout-of-dot", ".wh..", || archive(&[Entry::file("d/.wh..", "")]), End::Refused("d/.wh..")),
    ("whiteout-of-dot-dot", ".wh...", || archive(&[Entry::file("d/.wh...", "")]), End::Refused("d/.wh...")),
    ("whiteout-that-is-a-directory", "only a regular file", || archive(&[Entry::directory(".wh.a")]), End::RefusedAnyhow),
    ("whiteout-that-is-a-link", "only a regular file", || archive(&[Entry::symlink(".wh.a", "b")]), End::Refused(".wh.a")),
    ("whiteout-on-the-way", "in the last component only", || archive(&[Entry::file(".wh.a/b", "")]), End::Refused(".wh.a/b")),
    ("bookkeeping-below-the-root", "refused", || archive(&[Entry::file("d/.wh..wh.aufs", "")]), End::Refused("d/.wh..wh.aufs")),
    ("whiteout-below-a-link", "it hides what the link leads to, inside", || archive(&[
        Entry::directory("d"), Entry::symlink("l", "d"), Entry::whiteout("l/x"),
    ]), End::Contained),
    ("whiteout-below-a-link-out", "it hides nothing outside", || archive(&[
        Entry::symlink("l", "../../victim"), Entry::whiteout("l/hello"),
    ]), End::Contained),
    ("device-0-0", "overlay's whiteout by the side door", || archive(&[Entry::node("in-parent", Kind::Character(0, 0))]), End::Refused("in-parent")),
    ("overlay-opaque-attribute", "by the side door", || archive(&[
        Entry::directory("d").xattr("trusted.overlay.opaque", "y"),
    ]), End::RefusedAnyhow),
    ("overlay-redirect-attribute", "by the side door", || archive(&[
        Entry::directory("d").xattr("trusted.overlay.redirect", "/in-parent"),
    ]), End::RefusedAnyhow),
    ("overlay-attribute-of-users", "by the side door", || archive(&[
        Entry::directory("d").xattr("user.overlay.opaque", "y"),
    ]), End::RefusedAnyhow),

    ("owner-that-is-none", "4294967295", || archive(&[Entry::file("a", "").owner(u32::MAX, 0)]), End::Refused("a")),
    ("owner-too-large", "2^32", || {
        Archive::new().extension(b'x', &records(&[(b"uid", b"4294967296")])).member(Header::new(b'0').name(b"a"), b"").end()
    }, End::Refused("a")),
    ("xattr-that-layers-do-not-hold", "system.", || archive(&[Entry::file("a", "").xattr("system.layerbox", "x")]), End::Refused("a")),
    ("65-xattrs", "a limit", || {
        archive(&[(0..65).fold(Entry::file("a", ""), |entry, number| entry.xattr(format!("user.x{number}"), "v"))])
    }, End::Limit),
    ("extension-of-2-megabytes", "a limit", || {
        let comment = vec![b'c'; 2 << 20];
        Archive::new().extension(b'x', &records(&[(b"comment", &comment)])).entry(&Entry::file("a", "")).end()
    }, End::Limit),
];

fn raw_file(name: &[u8]) -> Vec<u8> {
    Archive::new().member(Header::new(b'0').name(name).size(4), b"evil").end()
}

pub(super) fn cases() -> Vec<Case> {
    from_rows(ROWS, Scope::Each)
}

/// The cases of a table.
pub(super) fn from_rows(rows: &'static [Row], scope: Scope) -> Vec<Case> {
    let case = |&(name, about, archive, end): &Row| Case {
        name: format!("hostile/{name}"),
        about,
        scope,
        broad: false,
        run: Arc::new(move |context: &Context<'_>| row(context, &archive(), end)),
    };
    rows.iter().map(case).collect()
}

fn row(context: &Context<'_>, bytes: &[u8], end: End) -> Outcome {
    let store = context.quick()?;
    super::layer(store.as_ref(), "base", None, &[Entry::file("in-parent", "secret")])?;
    // As near to the layer as anything of another can lie: `../victim` and `../../victim` from its root.
    let victims =
        [store.root().join("victim"), store.root().join("diff/victim"), store.root().join("stage/victim")];
    for victim in &victims {
        fs::create_dir_all(victim)?;
        fs::write(victim.join("hello"), "hello")?;
    }
    let look = || -> std::io::Result<Vec<crate::model::Tree>> {
        let others = [store.content_path("base")];
        victims.iter().chain(&others).map(|path| view::tree(path)).collect()
    };
    let before = look()?;
    store.create("a", Some("base"))?;
    let applied = store.apply("a", None, bytes);
    for (found, expected) in look()?.iter().zip(&before) {
        found.same_as(expected).map_err(|why| format!("something outside the layer has changed: {why}"))?;
    }
    holds("nothing was written to /tmp", fs::symlink_metadata("/tmp/layerbox-evil").is_err())?;
    let failed = applied.is_err();
    match end {
        End::Refused(entry) => {
            let failure = fails("apply", applied, "refused")?;
            equal(
                "the entry that the error names",
                failure.entry.map(|name| crate::escape::name(&name)),
                Some(entry.to_owned()),
            )?;
        }
        End::RefusedAnyhow => drop(fails("apply", applied, "refused")?),
        End::Limit => drop(fails("apply", applied, "limit")?),
        End::Contained => {}
        End::Exact(names) => {
            applied?;
            let found = view::tree(&store.content_path("a"))?;
            let found: Vec<String> = found.names.keys().map(|name| crate::escape::name(name)).collect();
            crate::check::same_lines(&found, names)?;
        }
    }
    if failed { is_reusable(store.as_ref()) } else { Ok(store.remove("a", false)?) }
}

/// Fails where a layer that an archive was refused for is not as empty as before, or takes no other.
fn is_reusable(store: &dyn Store) -> Outcome {
    let content = store.content_path("a");
    equal("entries of the layer", fs::read_dir(&content)?.count(), 0)?;
    equal("changes", store.changes("a", None)?, vec![])?;
    store.apply("a", None, &archive(&[Entry::file("f", "good")]))?;
    equal("content", fs::read_to_string(content.join("f"))?.as_str(), "good")?;
    Ok(())
}
