//! What is done to stores.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;

use crate::scratch::unmount;
use crate::store::{Dialect, Store, runtime};

/// A kind of damage.
#[derive(Clone, Copy)]
pub struct Damage {
    /// What is wrong, in words.
    pub name: &'static str,
    /// Does it, to a store of the layers `base`, `middle` and `top` on each other and `other` on `base`.
    pub to: fn(&Store) -> Result<()>,
    /// Where it is found.
    pub place: &'static str,
    /// The layers that cannot be whole any more.
    pub lost: &'static [&'static str],
    /// What lies in `lost+found/` after the repair.
    pub moved: &'static [&'static str],
    /// Whether it is found only by looking into the layers.
    pub deep: bool,
    /// In which form the store writes deletions down; none: the store of Docker's driver.
    pub dialect: Option<Dialect>,
}

const PLAIN: Damage = Damage {
    name: "",
    to: |_| Ok(()),
    place: "",
    lost: &[],
    moved: &[],
    deep: false,
    dialect: Some(Dialect::Overlay),
};

const fn plain(name: &'static str, place: &'static str, to: fn(&Store) -> Result<()>) -> Damage {
    Damage { name, place, to, ..PLAIN }
}

/// Damage that is mended by moving something away.
const fn moving(
    name: &'static str,
    place: &'static str,
    moved: &'static [&'static str],
    to: fn(&Store) -> Result<()>,
) -> Damage {
    Damage { name, place, to, moved, ..PLAIN }
}

/// Content with a name as long as a name can be, and how it is called once it is moved away.
const LONG: &str = "diff/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const LONG_MOVED: &str = "diff.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx~98922af7e0eeab4d.0";

/// All of them.
pub const DAMAGES: &[Damage] = &[
    moving("content of no layer", "diff/x", &["diff.x.0"], |s| filled(s, "diff/x")),
    moving("a file among the content", "diff/x", &["diff.x.0"], |s| text(s, "diff/x", "x")),
    moving("a name that is not UTF-8 among the content", "diff/\\xff", &["diff.\\xff.0"], |s| {
        use std::os::unix::ffi::OsStrExt as _;
        Ok(fs::create_dir(s.root().join("diff").join(std::ffi::OsStr::from_bytes(b"\xff")))?)
    }),
    moving("content of no layer with the longest name", LONG, &[LONG_MOVED], |s| filled(s, LONG)),
    plain("an empty mount point of no layer", "mnt/x", |s| Ok(fs::create_dir(s.root().join("mnt/x"))?)),
    moving("a mount point of no layer with files", "mnt/x", &["mnt.x.0"], |s| filled(s, "mnt/x")),
    moving("a working directory of no layer", "work/x", &["work.x.0"], |s| filled(s, "work/x")),
    moving("a list of ancestors of no layer", "layers/x", &["layers.x.0"], |s| text(s, "layers/x", "base\n")),
    moving("a name that is no id among the records", "meta/a b", &["meta.a b.0"], |s| {
        text(s, "meta/a b", "{}")
    }),
    moving("a record of a layer without content", "meta/x", &["meta.x.0"], |s| {
        text(s, "meta/x", "{\"ancestors\":[]}\n")
    }),
    plain("a record that was not written to its end", "meta/.top.tmp", |s| {
        text(s, "meta/.top.tmp", "{\"anc")
    }),
    plain("a list that was not written to its end", "layers/.top.tmp", |s| text(s, "layers/.top.tmp", "mid")),
    plain("a format that was not written to its end", ".layerbox.json.tmp", |s| {
        text(s, ".layerbox.json.tmp", "{")
    }),
    plain("a missing format", "layerbox.json", |s| remove(s, "layerbox.json")),
    moving("an empty format", "layerbox.json", &["layerbox.json.0"], |s| text(s, "layerbox.json", "")),
    moving("a directory in place of the format", "layerbox.json", &["layerbox.json.0"], |s| {
        remove(s, "layerbox.json")?;
        filled(s, "layerbox.json")
    }),
    Damage {
        dialect: Some(Dialect::Aufs),
        ..plain("a missing format of an aufs store", "layerbox.json", |s| remove(s, "layerbox.json"))
    },
    plain("a missing format, and missing records", "layerbox.json", |s| {
        remove(s, "layerbox.json")?;
        remove(s, "meta/middle")
    }),
    plain("a making that was cut off", "pending/x", |s| {
        text(s, "pending/x", "")?;
        filled(s, "diff/x")
    }),
    plain("a note of a making that came to its end", "pending/top", |s| text(s, "pending/top", "")),
    plain("a removal that was cut off", "pending/x", |s| {
        text(s, "pending/x", "{\"ancestors\":[\"base\"]}\n")?;
        text(s, "children/base/x", "")?;
        text(s, "layers/x", "base\n")?;
        filled(s, "diff/x")
    }),
    moving("a directory among the notes", "pending/x", &["pending.x.0"], |s| filled(s, "pending/x")),
    plain("an apply-diff that was cut off", "stage/top", |s| filled(s, "stage/top")),
    moving("a name that is no id where layers are filled", "stage/a b", &["stage.a b.0"], |s| {
        filled(s, "stage/a b")
    }),
    plain("something left to delete", "trash", |s| filled(s, "trash/diff.x.1.0")),
    plain("a missing list of ancestors", "layers/top", |s| remove(s, "layers/top")),
    plain("an empty list of ancestors", "layers/top", |s| text(s, "layers/top", "")),
    plain("a list that is cut off in an id", "layers/top", |s| text(s, "layers/top", "middle\nba")),
    plain("a list that is cut off in a line", "layers/top", |s| text(s, "layers/top", "middle\nbase")),
    plain("a layer on its own list", "layers/top", |s| text(s, "layers/top", "middle\ntop\n")),
    plain("an ancestor twice on a list", "layers/top", |s| text(s, "layers/top", "middle\nmiddle\n")),
    plain("a list of other ancestors", "layers/top", |s| text(s, "layers/top", "other\nbase\n")),
    plain("a list of what is no id", "layers/top", |s| text(s, "layers/top", "../../etc\n")),
    plain("a list that is no text", "layers/top", |s| {
        Ok(fs::write(s.root().join("layers/top"), [0xff, 0, 10])?)
    }),
    moving("a directory in place of a list", "layers/top", &["layers.top.0"], |s| {
        remove(s, "layers/top")?;
        filled(s, "layers/top")
    }),
    plain("a link in place of a list", "layers/top", |s| {
        remove(s, "layers/top")?;
        Ok(symlink("middle", s.root().join("layers/top"))?)
    }),
    plain("an empty record", "meta/top", |s| text(s, "meta/top", "")),
    plain("a record that is cut off", "meta/middle", |s| text(s, "meta/middle", "{\"ancestors\":[\"ba")),
    plain("a record of ancestors that are not the parent's", "meta/top", |s| {
        text(s, "meta/top", "{\"ancestors\":[\"middle\",\"other\"]}\n")
    }),
    moving("a directory in place of a record", "meta/top", &["meta.top.0"], |s| {
        remove(s, "meta/top")?;
        filled(s, "meta/top")
    }),
    plain("a missing record of a layer that others lie on", "meta/middle", |s| remove(s, "meta/middle")),
    plain("a missing record of a layer that nothing lies on", "meta/top", |s| remove(s, "meta/top")),
    Damage {
        lost: &["top"],
        ..moving(
            "neither a record nor a list that can be read",
            "meta/top",
            &["diff.top.0", "layers.top.0", "meta.top.0"],
            |s| {
                text(s, "meta/top", "{")?;
                text(s, "layers/top", "?")
            },
        )
    },
    Damage {
        lost: &["middle", "top"],
        ..moving(
            "layers that are each other's ancestors",
            "meta/middle",
            &["diff.middle.0", "meta.middle.0"],
            |s| text(s, "meta/middle", "{\"ancestors\":[\"top\"]}\n"),
        )
    },
    Damage {
        lost: &["middle", "top"],
        ..moving(
            "a layer whose content is gone",
            "meta/middle",
            &["diff.top.0", "meta.middle.0", "meta.top.0"],
            |s| remove(s, "diff/middle"),
        )
    },
    Damage {
        lost: &["middle", "top"],
        ..moving(
            "a link in place of a layer's content",
            "meta/middle",
            &["diff.middle.0", "diff.top.0"],
            |s| {
                remove(s, "diff/middle")?;
                Ok(symlink("base", s.root().join("diff/middle"))?)
            },
        )
    },
    Damage {
        lost: &["base", "middle", "other", "top"],
        ..moving(
            "an ancestor of which nothing is left",
            "meta/middle",
            &["diff.middle.0", "diff.other.0"],
            |s| {
                ["meta/base", "layers/base", "diff/base", "children/base"]
                    .iter()
                    .try_for_each(|place| remove(s, place))
            },
        )
    },
    plain("a missing mount point", "mnt/top", |s| remove(s, "mnt/top")),
    moving("a file in place of a mount point", "mnt/top", &["mnt.top.0"], |s| {
        remove(s, "mnt/top")?;
        text(s, "mnt/top", "x")
    }),
    moving("files in a mount point", "mnt/top", &["mnt.top.0"], |s| text(s, "mnt/top/x", "x")),
    plain("a missing working directory", "work/top", |s| remove(s, "work/top")),
    plain("a missing mark of a child", "children/middle/top", |s| remove(s, "children/middle")),
    plain("a mark of a child that there is not", "children/middle/x", |s| text(s, "children/middle/x", "")),
    plain("a mark of a child that lies on another", "children/top/other", |s| {
        fs::create_dir_all(s.root().join("children/top"))?;
        text(s, "children/top/other", "")
    }),
    moving("marks of a parent that there is not", "children/x", &["children.x.0"], |s| {
        fs::create_dir_all(s.root().join("children/x"))?;
        text(s, "children/x/top", "")
    }),
    moving("a file in place of marks", "children/middle", &["children.middle.0"], |s| {
        remove(s, "children/middle")?;
        text(s, "children/middle", "x")
    }),
    plain("a mount that nobody uses", "mnt/top", |s| {
        s.get("top")?;
        Ok(fs::remove_file(counts(s)?.join("top"))?)
    }),
    plain("something strange that is mounted", "mnt/other", |s| {
        mount(Some("tmpfs"), &s.root().join("mnt/other"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        Ok(())
    }),
    plain("a count without a mount", "mnt/top", |s| {
        s.get("top")?;
        unmount(&s.root().join("mnt/top"))
    }),
    plain("a count that is no number", "mnt/top", |s| Ok(fs::write(counts(s)?.join("top"), "many")?)),
    plain("a missing directory of the store", "trash", |s| remove(s, "trash")),
    plain("a missing directory of lists", "layers/top", |s| remove(s, "layers")),
    moving("a file in place of a directory of the store", "children", &["children.0"], |s| {
        remove(s, "children")?;
        text(s, "children", "x")
    }),
    moving("a file in place of the lists", "layers", &["layers.0"], |s| {
        remove(s, "layers")?;
        text(s, "layers", "x")
    }),
    moving("a FIFO in place of the records", "meta", &["meta.0"], |s| fifo(s, "meta")),
    moving("a FIFO in place of the mount points", "mnt", &["mnt.0"], |s| fifo(s, "mnt")),
    moving("a link in place of the lists", "layers", &["layers.0"], |s| link(s, "layers", "/")),
    moving("a link in place of the records that leads nowhere", "meta", &["meta.0"], |s| {
        link(s, "meta", "x")
    }),
    moving("a link in place of the mount points", "mnt", &["mnt.0"], |s| link(s, "mnt", "/tmp")),
    moving("a link in place of the working directories", "work", &["work.0"], |s| link(s, "work", "..")),
    moving("a link in place of the marks of children", "children", &["children.0"], |s| {
        link(s, "children", "/")
    }),
    moving(
        "a link in place of the marks of one layer's children",
        "children/middle",
        &["children.middle.0"],
        |s| {
            // Whoever opens the store looks there for what is left of this call.
            text(s, "pending/x", "")?;
            link(s, "children/middle", "/")
        },
    ),
    moving("a link in place of the notes", "pending", &["pending.0"], |s| link(s, "pending", "/")),
    moving("a link where layers are filled", "stage", &["stage.0"], |s| link(s, "stage", "/")),
    moving("a link where layers are deleted", "trash", &["trash.0"], |s| link(s, "trash", "/")),
    moving("a directory in place of the lock", "lock", &["lock.0"], |s| {
        remove(s, "lock")?;
        filled(s, "lock")
    }),
    moving("a FIFO in place of the lock", "lock", &["lock.0"], |s| fifo(s, "lock")),
    moving("a link in place of the lock", "lock", &["lock.0"], |s| link(s, "lock", "/nowhere/lock")),
    plain("a directory of the store that others can write", "diff", |s| mode(s, "diff", 0o777)),
    plain("a root that others can write", ".", |s| mode(s, ".", 0o777)),
    plain("a directory of the store that belongs to another", "layers", |s| {
        Ok(chown(s.root().join("layers"), Some(1000), None)?)
    }),
    Damage {
        deep: true,
        ..plain("a size that is not that of the files", "meta/top", |s| {
            text(s, "diff/top/of-top", "longer than before")
        })
    },
    Damage {
        deep: true,
        dialect: Some(Dialect::Aufs),
        ..plain("a deletion in overlay's form in an aufs store", "diff/top/kept", |s| {
            remove(s, "diff/top/.wh.kept")?;
            Ok(mknod(&s.content("top").join("kept"), SFlag::S_IFCHR, Mode::empty(), 0)?)
        })
    },
    Damage {
        deep: true,
        dialect: Some(Dialect::Aufs),
        ..plain("a directory that is opaque in overlay's form in an aufs store", "diff/base/d", |s| {
            Ok(xattr::set(s.content("base").join("d"), "trusted.overlay.opaque", b"y")?)
        })
    },
    moving("what aufs kept in a layer that there is not", "aufs/x", &["aufs.x.0"], |s| {
        fs::create_dir(s.root().join("aufs"))?;
        filled(s, "aufs/x")
    }),
    Damage {
        dialect: None,
        ..moving(
            "Docker: a removal of content that was cut off",
            "diff/x-removing",
            &["diff.x-removing.0"],
            |s| filled(s, "diff/x-removing"),
        )
    },
    Damage {
        dialect: None,
        ..plain("Docker: a removal of a mount point that was cut off", "mnt/x-removing", |s| {
            Ok(fs::create_dir(s.root().join("mnt/x-removing"))?)
        })
    },
    Damage {
        dialect: None,
        ..moving(
            "Docker: a first layer of a container without record",
            "diff/x-init",
            &["diff.x-init.0"],
            |s| filled(s, "diff/x-init"),
        )
    },
    Damage {
        dialect: None,
        ..moving("Docker: the record of a layer on an unknown parent", "layers/x", &["layers.x.0"], |s| {
            text(s, "layers/x", "nobody\n")
        })
    },
    Damage {
        dialect: None,
        ..moving("Docker: a layer without content", "layers/x", &["layers.x.0"], |s| text(s, "layers/x", ""))
    },
];

/// Writes a file of the store.
pub fn text(store: &Store, place: &str, text: &str) -> Result<()> {
    fs::write(store.root().join(place), text).with_context(|| place.to_owned())
}

/// A directory with a file in it.
pub fn filled(store: &Store, place: &str) -> Result<()> {
    fs::create_dir(store.root().join(place)).with_context(|| place.to_owned())?;
    text(store, &format!("{place}/file"), "x")
}

fn remove(store: &Store, place: &str) -> Result<()> {
    let path = store.root().join(place);
    match fs::symlink_metadata(&path)?.is_dir() {
        true => fs::remove_dir_all(path)?,
        false => fs::remove_file(path)?,
    }
    Ok(())
}

fn link(store: &Store, place: &str, to: &str) -> Result<()> {
    remove(store, place)?;
    Ok(symlink(to, store.root().join(place))?)
}

fn fifo(store: &Store, place: &str) -> Result<()> {
    remove(store, place)?;
    Ok(mkfifo(&store.root().join(place), Mode::from_bits_truncate(0o600))?)
}

fn mode(store: &Store, place: &str, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(store.root().join(place), fs::Permissions::from_mode(mode))?)
}

/// The directory of the counts of users.
pub fn counts(store: &Store) -> Result<PathBuf> {
    let runtime = runtime(Path::new(store.root())).context("no store")?;
    Ok(runtime.join("references"))
}
