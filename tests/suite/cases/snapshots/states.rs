//! What a snapshot can be asked in which state, and with which code the rest is refused.

use std::fs;

use anyhow::{Result, ensure};
use layerbox_containerd::services::snapshots::v1::Kind;
use tonic::Code;

use super::{Body, served};
use crate::harness::Case;
use crate::scratch::Place;
use crate::snapshotter::{Labels, Mounted, Snapshotter, labels, refused};

pub(super) fn cases() -> Vec<Case> {
    let all: [(&'static str, Body); 15] = [
        ("basics: prepare, write, commit, prepare on it, view it", basics),
        ("stat of an active one, and of a committed one", stat),
        ("parents are told as they are, through all generations", transitivity),
        ("a key or a name that is used is not given again", used),
        ("a parent must be there, and be committed", parents),
        ("only an active one is committed, once", commits),
        ("mounts of a committed one are refused, those of others are the same again", mounts),
        ("labels change by field mask, and times with them", update),
        ("labels of a commit replace those before it", labels_of_commits),
        ("what has children is not removed", remove_orders),
        ("a list is filtered, and a filter that makes no sense is refused", walk),
        ("namespaces and snapshotters are kept apart", apart),
        ("what is made without a namespace is in that of its parent", of_the_parent),
        ("a name that several namespaces have is not taken without one", ambiguous),
        ("names that cannot be one are refused", names),
    ];
    all.into_iter().map(served).collect()
}

fn basics(place: &Place, s: &Snapshotter) -> Result<()> {
    let first = Mounted::new(place, &s.prepare("first", "")?)?;
    fs::write(first.path().join("foo"), "foo\n")?;
    fs::create_dir_all(first.path().join("a/b/c"))?;
    first.end()?;
    s.commit("one", "first")?;
    let second = Mounted::new(place, &s.prepare("second", "one")?)?;
    ensure!(fs::read(second.path().join("foo"))? == b"foo\n" && second.path().join("a/b/c").is_dir());
    fs::write(second.path().join("bar"), "bar\n")?;
    fs::remove_dir(second.path().join("a/b/c"))?;
    second.end()?;
    s.commit("two", "second")?;
    let third = s.look(place, "two")?;
    ensure!(fs::read(third.path().join("bar"))? == b"bar\n" && !third.path().join("a/b/c").exists());
    let one = s.look(place, "one")?;
    ensure!(one.path().join("a/b/c").is_dir() && !one.path().join("bar").exists(), "the parent changed");
    Ok(())
}

fn stat(_: &Place, s: &Snapshotter) -> Result<()> {
    refused(s.stat("active"), Code::NotFound, "before")?;
    s.prepare_with("active", "", labels(&[("a", "1"), ("empty", "")]))?;
    let active = s.stat("active")?;
    ensure!(
        active.kind() == Kind::Active && active.name == "active" && active.parent.is_empty(),
        "{active:?}"
    );
    ensure!(active.labels == labels(&[("a", "1")]), "{active:?}");
    ensure!(active.created_at.is_some() && active.created_at == active.updated_at, "{active:?}");
    s.commit("committed", "active")?;
    refused(s.stat("active"), Code::NotFound, "after the commit")?;
    s.prepare("child", "committed")?;
    let committed = s.stat("committed")?;
    ensure!(committed.kind() == Kind::Committed && committed.parent.is_empty(), "{committed:?}");
    let child = s.stat("child")?;
    ensure!(child.parent == "committed" && child.kind() == Kind::Active, "{child:?}");
    s.view("view", "committed")?;
    ensure!(s.stat("view")?.kind() == Kind::View);
    Ok(())
}

fn transitivity(_: &Place, s: &Snapshotter) -> Result<()> {
    s.prepare("a", "")?;
    s.commit("snapA", "a")?;
    s.prepare("b", "snapA")?;
    s.commit("snapB", "b")?;
    s.prepare("c", "snapB")?;
    for (name, parent) in [("snapA", ""), ("snapB", "snapA"), ("c", "snapB")] {
        ensure!(s.stat(name)?.parent == parent, "{name}: {:?}", s.stat(name)?);
    }
    Ok(())
}

fn used(_: &Place, s: &Snapshotter) -> Result<()> {
    s.prepare("base-key", "")?;
    s.commit("base", "base-key")?;
    s.prepare("key", "base")?;
    refused(s.prepare("key", ""), Code::AlreadyExists, "prepare")?;
    refused(s.prepare("key", "base"), Code::AlreadyExists, "prepare on a parent")?;
    refused(s.view("key", "base"), Code::AlreadyExists, "view")?;
    refused(s.prepare("base", ""), Code::AlreadyExists, "prepare with a name")?;
    refused(s.commit("base", "key"), Code::AlreadyExists, "commit")?;
    refused(s.commit("key", "key"), Code::AlreadyExists, "commit under its own key")?;
    // A key that was committed, or removed, is free.
    s.prepare("base-key", "")?;
    s.remove("key")?;
    s.view("key", "base")?;
    Ok(())
}

fn parents(_: &Place, s: &Snapshotter) -> Result<()> {
    s.prepare("active", "")?;
    s.view("view", "")?;
    for (parent, code) in
        [("none", Code::NotFound), ("active", Code::InvalidArgument), ("view", Code::InvalidArgument)]
    {
        refused(s.prepare("x", parent), code, parent)?;
        refused(s.view("x", parent), code, parent)?;
    }
    refused(s.stat("x"), Code::NotFound, "what was refused")
}

fn commits(_: &Place, s: &Snapshotter) -> Result<()> {
    refused(s.commit("name", "none"), Code::NotFound, "of what is not there")?;
    s.view("view", "")?;
    refused(s.commit("name", "view"), Code::FailedPrecondition, "of a view")?;
    s.prepare("key", "")?;
    s.commit("name", "key")?;
    refused(s.commit("other", "name"), Code::FailedPrecondition, "of a committed one")?;
    refused(s.commit("other", "key"), Code::NotFound, "once more")
}

fn mounts(_: &Place, s: &Snapshotter) -> Result<()> {
    refused(s.mounts("none"), Code::NotFound, "of what is not there")?;
    let first = s.prepare("key", "")?;
    ensure!(s.mounts("key")? == first, "they changed");
    s.commit("name", "key")?;
    refused(s.mounts("name"), Code::FailedPrecondition, "of a committed one")?;
    let view = s.view("view", "name")?;
    ensure!(s.mounts("view")? == view && view[0].options.iter().any(|option| option == "ro"), "{view:?}");
    Ok(())
}

/// Labels, as they are written down here.
type Pairs<'a> = &'a [(&'a str, &'a str)];

fn update(_: &Place, s: &Snapshotter) -> Result<()> {
    s.prepare_with("key", "", labels(&[("a", "1"), ("b", "2")]))?;
    let before = s.stat("key")?;
    let rows: [(Pairs<'_>, &[&str], Pairs<'_>); 7] = [
        (&[("a", "x"), ("c", "3")], &["labels.a"], &[("a", "x"), ("b", "2")]),
        (&[("c", "3")], &["labels.c", "labels.b"], &[("a", "x"), ("c", "3")]),
        (&[("d", "4")], &["labels"], &[("d", "4")]),
        (&[("e", "5"), ("f", "")], &[], &[("e", "5")]),
        (
            &[("containerd.io/gc.root", "now")],
            &["labels.containerd.io/gc.root"],
            &[("e", "5"), ("containerd.io/gc.root", "now")],
        ),
        (&[("g", "6"), ("h", "7")], &["labels", "labels.g"], &[("g", "6"), ("h", "7")]),
        (&[], &[], &[]),
    ];
    for (given, fields, expected) in rows {
        let told = s.update("key", labels(given), fields)?;
        ensure!(told.labels == labels(expected), "{fields:?}: {:?}", told.labels);
        ensure!(s.stat("key")? == told, "{fields:?}: it is not what was told");
        ensure!(told.created_at == before.created_at && told.updated_at != before.updated_at, "{told:?}");
    }
    for field in ["parent", "name", "kind", "nonsense"] {
        refused(s.update("key", Labels::new(), &[field]), Code::InvalidArgument, field)?;
    }
    refused(s.update("none", Labels::new(), &[]), Code::NotFound, "of what is not there")?;
    s.commit("name", "key")?;
    ensure!(s.update("name", labels(&[("a", "b")]), &["labels"])?.kind() == Kind::Committed);
    Ok(())
}

fn labels_of_commits(_: &Place, s: &Snapshotter) -> Result<()> {
    s.prepare_with("key", "", labels(&[("old", "1")]))?;
    s.commit_with("name", "key", labels(&[("new", "2")]))?;
    ensure!(s.stat("name")?.labels == labels(&[("new", "2")]), "{:?}", s.stat("name")?);
    Ok(())
}

fn remove_orders(_: &Place, s: &Snapshotter) -> Result<()> {
    refused(s.remove("none"), Code::NotFound, "of what is not there")?;
    s.prepare("a", "")?;
    s.commit("one", "a")?;
    s.prepare("b", "one")?;
    s.commit("two", "b")?;
    s.view("v", "two")?;
    s.prepare("c", "one")?;
    refused(s.remove("one"), Code::FailedPrecondition, "with two children")?;
    refused(s.remove("two"), Code::FailedPrecondition, "with a view")?;
    s.remove("c")?;
    refused(s.remove("one"), Code::FailedPrecondition, "with a child")?;
    for name in ["v", "two", "one"] {
        s.remove(name)?;
        refused(s.stat(name), Code::NotFound, name)?;
        refused(s.remove(name), Code::NotFound, name)?;
    }
    ensure!(s.list(&[])?.is_empty(), "{:?}", s.list(&[])?);
    Ok(())
}

fn walk(_: &Place, s: &Snapshotter) -> Result<()> {
    s.prepare("a", "")?;
    s.commit_with("one", "a", labels(&[("color", "red"), ("containerd.io/snapshot.ref", "sha256:1")]))?;
    s.prepare_with("two", "one", labels(&[("color", "blue")]))?;
    s.view("three", "one")?;
    let rows: [(&[&str], &[&str]); 14] = [
        (&[], &["one", "three", "two"]),
        (&[""], &["one", "three", "two"]),
        (&["kind==committed"], &["one"]),
        (&["kind==active", "kind==view"], &["three", "two"]),
        (&["parent==one,kind!=view"], &["two"]),
        (&["labels.color"], &["one", "two"]),
        (&["labels.color~=^b"], &["two"]),
        (&[r#"labels."containerd.io/snapshot.ref"==sha256:1"#], &["one"]),
        (&["name~=/^t/"], &["three", "two"]),
        (&["name==nothing"], &[]),
        (&["labels.color~=(?i)^B"], &["two"]),
        (&[r"labels.color~=^\pL+$"], &["one", "two"]),
        (&["name~=("], &[]),
        (&["name~=(", "name==one"], &["one"]),
    ];
    for (filters, expected) in rows {
        let names = s.names(filters)?;
        ensure!(names == expected, "{filters:?}: {names:?}");
    }
    refused(s.list(&["name=="]), Code::InvalidArgument, "half a filter")?;
    refused(s.list(&[r"name~=(\pL{999}){99}"]), Code::InvalidArgument, "a large expression")?;
    // Longer than one message.
    for number in 0..250 {
        s.view(&format!("many-{number:03}"), "one")?;
    }
    ensure!(s.names(&["name~=^many"])?.len() == 250, "{}", s.names(&["name~=^many"])?.len());
    // Asked for while a list is under way, on the same connection.
    for info in s.list(&["name~=^many-00"])? {
        ensure!(s.stat(&info.name)? == info, "{info:?}");
    }
    Ok(())
}

fn apart(_: &Place, s: &Snapshotter) -> Result<()> {
    s.prepare_with("key", "", labels(&[("whose", "first")]))?;
    for (name, namespace) in [("layerbox", Some("other")), ("second", Some("test"))] {
        let other = s.beside(name, namespace)?;
        ensure!(other.list(&[])?.is_empty(), "{name} {namespace:?} sees {:?}", other.list(&[])?);
        refused(other.stat("key"), Code::NotFound, "another's")?;
        refused(other.remove("key"), Code::NotFound, "another's")?;
        other.prepare("key", "")?;
        other.commit("committed", "key")?;
        refused(s.prepare("on-another's", "committed"), Code::NotFound, "a parent of another")?;
    }
    ensure!(s.names(&[])? == ["key"], "{:?}", s.names(&[])?);
    // containerd's garbage collector names no namespace, and goes through all of a snapshotter.
    let collector = s.beside("layerbox", None)?;
    s.beside("layerbox", Some("other"))?.prepare("other/1/x", "")?;
    ensure!(collector.names(&[])? == ["committed", "other/1/x", "key"], "{:?}", collector.names(&[])?);
    collector.remove("other/1/x")?;
    collector.remove("committed")?;
    ensure!(s.beside("layerbox", Some("other"))?.list(&[])?.is_empty());
    ensure!(
        s.beside("second", Some("test"))?.names(&[])? == ["committed"],
        "the other snapshotter's went too"
    );
    Ok(())
}

fn of_the_parent(_: &Place, s: &Snapshotter) -> Result<()> {
    let none = s.beside("layerbox", None)?;
    s.prepare("base-key", "")?;
    s.commit("base", "base-key")?;
    none.prepare("active", "base")?;
    none.view("view", "base")?;
    ensure!(s.names(&[])? == ["active", "base", "view"], "{:?}", s.names(&[])?);
    refused(s.prepare("active", "base"), Code::AlreadyExists, "the key is used")?;
    refused(none.prepare("view", "base"), Code::AlreadyExists, "the key is used")?;
    none.commit("on-it", "active")?;
    refused(none.commit("on-it", "view"), Code::AlreadyExists, "the name is used")?;
    ensure!(s.stat("on-it")?.parent == "base");
    for key in ["on-it", "view"] {
        refused(s.remove("base"), Code::FailedPrecondition, key)?;
        refused(none.remove("base"), Code::FailedPrecondition, key)?;
        none.remove(key)?;
    }
    s.remove("base")?;
    s.cleanup()?;
    // On nothing it is in no namespace.
    none.prepare("alone", "")?;
    none.commit("one", "alone")?;
    s.prepare("one", "").map(drop)?;
    none.beside("layerbox", Some("other"))?.prepare("other", "")?;
    refused(s.view("x", "other"), Code::NotFound, "a parent of another")
}

fn ambiguous(_: &Place, s: &Snapshotter) -> Result<()> {
    let (other, none) = (s.beside("layerbox", Some("other"))?, s.beside("layerbox", None)?);
    for one in [s, &other] {
        one.prepare("key", "")?;
        one.prepare("other/1/key", "")?;
        one.prepare("base-key", "")?;
        one.commit("base", "base-key")?;
    }
    let code = Code::FailedPrecondition;
    refused(none.stat("key"), code, "stat")?;
    refused(none.mounts("key"), code, "mounts")?;
    refused(none.usage("key"), code, "usage")?;
    refused(none.update("key", Labels::new(), &[]), code, "update")?;
    refused(none.commit("name", "key"), code, "commit")?;
    refused(none.remove("key"), code, "remove")?;
    refused(none.prepare("on-it", "base"), code, "a parent")?;
    refused(none.prepare("key", ""), Code::AlreadyExists, "one more")?;
    let said = none.stat("key").err().map(|status| status.message().to_owned()).unwrap_or_default();
    ensure!(said.starts_with("namespace is required: "), "{said}");
    ensure!(s.stat("key").is_ok() && other.stat("key").is_ok(), "one was taken");
    // As containerd's collector names them, whatever else is called so.
    none.remove("other/1/key")?;
    refused(other.stat("other/1/key"), Code::NotFound, "what it names")?;
    ensure!(s.stat("other/1/key").is_ok(), "another's was taken");
    other.remove("key")?;
    none.remove("key")?;
    refused(s.stat("key"), Code::NotFound, "the one that is left")
}

fn names(_: &Place, s: &Snapshotter) -> Result<()> {
    for name in ["", "a\0b", &"x".repeat(4097)] {
        refused(s.prepare(name, ""), Code::InvalidArgument, "a key")?;
    }
    // Whatever it is, a name is never a path.
    for name in ["../../etc", "/", "a b\n", "ünï", ".", "-x", &"x".repeat(4096)] {
        s.prepare(name, "")?;
        ensure!(s.stat(name)?.name == name);
        ensure!(s.names(&[&format!("name=={name:?}")])? == [name]);
        s.remove(name)?;
    }
    s.prepare("key", "")?;
    refused(s.commit("", "key"), Code::InvalidArgument, "a name")
}
