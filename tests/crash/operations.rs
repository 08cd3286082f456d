//! The operations that are cut off: the store that each begins with, and the call.

use std::fs;
use std::path::Path;

use anyhow::Result;
use layerbox_tests::archive::{Member, dir, file, hard_link, member, symlink, tar, whiteout};

use crate::store::{Dialect, Store};

/// An operation, and what is needed to judge what came of it.
#[derive(Clone, Copy)]
pub struct Operation {
    /// What is done, in words.
    pub name: &'static str,
    /// Makes the store that every run begins with a copy of.
    pub store: fn(&Store) -> Result<()>,
    /// Calls on the copy, before: what cannot be copied (mounts, counts).
    pub before: &'static [&'static [&'static str]],
    /// The call itself.
    pub call: &'static [&'static str],
    /// What it reads.
    pub input: fn() -> Vec<u8>,
    /// With what exit statuses it may end when it is repeated although it was done.
    pub done_twice: &'static [i32],
    /// Whether the store is damaged before, so that only its repetition makes it sound.
    pub mends: bool,
    /// Whether it first unmounts what it was told to unmount: the layers without users, and not removed, are
    /// a state that it passes through.
    pub unmounts: bool,
    /// How the store writes deletions down.
    pub dialect: Dialect,
    /// Whether the store is rewritten for the other backend: cut off in the midst of it, no other call opens
    /// the store before the call is repeated, or is turned back with this one.
    pub turns_back: Option<&'static [&'static str]>,
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    Operation { name: "create, which makes the store", store: |_| Ok(()), ..CREATE },
    Operation { name: "create on a parent", call: &["create", "new", "--parent", "base"], ..CREATE },
    Operation {
        name: "apply-diff",
        store: |store| {
            base(store)?;
            store.create("new", Some("base"))
        },
        call: &["apply-diff", "new"],
        input: || tar(&content()),
        done_twice: &[4],
        ..CREATE
    },
    Operation { name: "get, the first", call: &["get", "top"], done_twice: &[0], ..STACK },
    Operation { name: "get, the second", before: &[&["get", "top"]], call: &["get", "top"], ..STACK },
    Operation {
        name: "put, not the last",
        before: &[&["get", "top"], &["get", "top"]],
        call: &["put", "top"],
        ..STACK
    },
    Operation { name: "put, the last", before: &[&["get", "top"]], call: &["put", "top"], ..STACK },
    Operation { name: "remove", call: &["remove", "top"], done_twice: &[3], ..STACK },
    Operation {
        name: "remove --force, mounted",
        before: &[&["get", "top"]],
        call: &["remove", "--force", "top"],
        unmounts: true,
        done_twice: &[3],
        ..STACK
    },
    Operation { name: "cleanup", before: &[&["get", "top"], &["get", "top"]], call: &["cleanup"], ..STACK },
    Operation {
        name: "adopt a store of Docker's",
        store: docker,
        call: &["list"],
        dialect: Dialect::Aufs,
        ..STACK
    },
    Operation { name: "check --repair", store: damaged, call: &["check", "--repair"], mends: true, ..STACK },
    Operation {
        name: "convert, from aufs",
        store: old,
        call: &["convert", "--backend", "overlay"],
        dialect: Dialect::Aufs,
        turns_back: Some(&["convert", "--backend", "aufs"]),
        ..STACK
    },
    Operation {
        name: "convert, from overlay",
        store: stack,
        call: &["convert", "--backend", "aufs"],
        turns_back: Some(&["convert", "--backend", "overlay"]),
        ..STACK
    },
    Operation {
        name: "convert, back to aufs",
        store: |store| {
            old(store)?;
            let store = Store::new(store.root().to_owned(), Dialect::Aufs).of_any_backend();
            store.ok(["convert"]).map(drop)
        },
        call: &["convert", "--backend", "aufs"],
        turns_back: Some(&["convert", "--backend", "overlay"]),
        ..STACK
    },
];

const CREATE: Operation = Operation {
    name: "",
    store: base,
    before: &[],
    call: &["create", "new"],
    input: Vec::new,
    done_twice: &[4],
    mends: false,
    unmounts: false,
    dialect: Dialect::Overlay,
    turns_back: None,
};

const STACK: Operation = Operation { store: stack, done_twice: &[0], ..CREATE };

/// What a layer holds: something of everything, so that every kind of call is among those that are cut off.
fn content() -> Vec<Member> {
    vec![
        dir("d/").mode(0o750).owner(3, 4),
        file("d/small", "small").xattr("user.note", "x"),
        file("d/large", vec![7; 300_000]),
        hard_link("d/again", "d/small"),
        symlink("d/link", "small"),
        member("d/pipe", b'6'),
        whiteout("d/of-base"),
    ]
}

/// A layer with content.
fn base(store: &Store) -> Result<()> {
    store.layer("base", None, &[dir("d/"), file("d/of-base", "base"), file("kept", "kept")])
}

/// Three layers on each other, and one beside them.
fn stack(store: &Store) -> Result<()> {
    base(store)?;
    store.layer("middle", Some("base"), &content())?;
    store.layer("top", Some("middle"), &[file("of-top", "top"), whiteout("kept")])?;
    store.layer("other", Some("base"), &[file("of-other", "other")])
}

/// A store as Docker's aufs driver makes it.
pub fn docker(store: &Store) -> Result<()> {
    let root = store.root();
    for (id, ancestors) in [("base", ""), ("top-init", "base\n"), ("top", "top-init\nbase\n")] {
        for directory in ["diff", "mnt"] {
            fs::create_dir_all(root.join(directory).join(id))?;
        }
        fs::create_dir_all(root.join("layers"))?;
        fs::write(root.join("layers").join(id), ancestors)?;
        fs::write(store.content(id).join(id), id)?;
    }
    fs::write(store.content("top").join(".wh.base"), "")?;
    Ok(())
}

/// One with deletions of all kinds, as containers and images have them, and what aufs keeps beside them.
fn old(store: &Store) -> Result<()> {
    docker(store)?;
    let (top, init) = (store.content("top"), store.content("top-init"));
    fs::write(top.join(".wh..wh.aufs"), "")?;
    for directory in ["d", "d/inner", ".wh..wh.plnk"] {
        fs::create_dir(top.join(directory))?;
    }
    for mark in ["d/.wh.x", "d/inner/.wh..wh..opq"] {
        fs::hard_link(top.join(".wh..wh.aufs"), top.join(mark))?;
    }
    fs::write(top.join("d/inner/file"), "file")?;
    fs::hard_link(top.join("d/inner/file"), top.join(".wh..wh.plnk/1.2"))?;
    fs::create_dir(init.join("e"))?;
    fs::write(init.join("e/.wh.x"), "")?;
    fs::write(init.join("e/.wh.y"), "no empty file")?;
    Ok(())
}

/// A store in which several things are wrong that can be mended.
fn damaged(store: &Store) -> Result<()> {
    stack(store)?;
    let root = store.root();
    fs::remove_file(root.join("layers/top"))?;
    fs::write(root.join("layers/middle"), "nobody\n")?;
    fs::remove_dir(root.join("mnt/top"))?;
    remove_all(&root.join("children/middle"))?;
    fs::create_dir(root.join("diff/orphan"))?;
    fs::write(root.join("diff/orphan/file"), "orphan")?;
    fs::create_dir(root.join("mnt/orphan"))?;
    fs::create_dir(root.join("trash/old"))?;
    Ok(())
}

fn remove_all(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
