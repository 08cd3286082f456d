//! `changes`, which is lent layers to read: what else it tries with handles and ids.
//!
//! A handle is a number in a table that the engine keeps for this one instance. So one that is guessed, or
//! was seen in another call, stands for nothing, or for what this call was lent anyway.

use std::fs;
use std::mem::ManuallyDrop;

use crate::bindings::layerbox::driver::streams::{Sink, Source};
use crate::bindings::layerbox::driver::tree::{Detail, Tree, WalkOptions, Walker};
use crate::bindings::layerbox::driver::types::{ChangeKind, ChangeList, Error};
use crate::bindings::layerbox::driver::writer::Writer;
use crate::bindings::layerbox::driver::{directories, mounts, references};
use crate::{Result, denied, must_fail, no_such_attack};

const NONE: ChangeList = ChangeList { names: Vec::new(), entries: Vec::new() };

pub(crate) fn changes(id: &str) -> Result<ChangeList> {
    match id {
        "guesses-a-handle" => {
            // SAFETY: none, that is the attack. The engine must not take it.
            let tree = ManuallyDrop::new(unsafe { Tree::from_handle(7) });
            tree.dialect();
            Ok(NONE)
        }
        "uses-a-dropped-handle" => {
            let tree = Tree::open(id)?;
            let number = tree.handle();
            drop(tree);
            // SAFETY: as above.
            let tree = ManuallyDrop::new(unsafe { Tree::from_handle(number) });
            tree.dialect();
            Ok(NONE)
        }
        "drops-a-handle-twice" => {
            let tree = Tree::open(id)?;
            // SAFETY: as above.
            drop(unsafe { Tree::from_handle(tree.handle()) });
            drop(tree);
            Ok(NONE)
        }
        "uses-a-handle-of-another-kind" => {
            let tree = Tree::open(id)?;
            // SAFETY: as above.
            let walker = ManuallyDrop::new(unsafe { Walker::from_handle(tree.handle()) });
            walker.next(1)?;
            Ok(NONE)
        }
        "tells-of-longer-names-than-it-gives" => {
            Ok(ChangeList { names: b"name".to_vec(), entries: vec![(u32::MAX, ChangeKind::Added)] })
        }
        "gives-more-names-than-it-tells-of" => {
            Ok(ChangeList { names: b"name".to_vec(), entries: vec![(3, ChangeKind::Added)] })
        }
        "reads-another-layer" => Err(must_fail(id, Tree::open("stranger"))),
        "fills-what-it-may-read" => Err(must_fail(id, Writer::open(id))),
        "opens-streams-that-it-was-not-lent" => {
            must_fail("source", Source::open());
            Err(must_fail("sink", Sink::open()))
        }
        "mounts-and-counts-while-it-reads" => {
            must_fail("count", references::acquire(id));
            must_fail("clear", references::clear(id));
            must_fail("unmount", mounts::unmount(id, true));
            must_fail("discard", directories::discard(id));
            Err(must_fail("mount", mounts::mount(id, &[], None)))
        }
        "writes-layers-while-it-reads" => {
            let own = format!("/layers/{id}");
            must_fail("remove", fs::remove_file(&own));
            must_fail("rename", fs::rename(&own, "/layers/new"));
            must_fail("make", fs::write("/layers/new", ""));
            Err(denied(must_fail("write", fs::write(&own, "stranger\n"))))
        }
        "walks-out-of-the-layer" => {
            let tree = Tree::open(id)?;
            let mut last = Error::Denied(String::new());
            for start in [&b"../stranger"[..], b"..", b"d/../../stranger", b"d/../..", b"a\0b"] {
                let options = WalkOptions { start: start.to_vec(), recursive: true, detail: Detail::Full };
                last = must_fail("walk", tree.walk(&options));
                must_fail("stat", tree.stat(&[start.to_vec()], Detail::Full));
            }
            // Through links that the layer holds; they lead nowhere.
            for start in [&b"out"[..], b"out/hello", b"up/stranger"] {
                let options = WalkOptions { start: start.to_vec(), recursive: true, detail: Detail::Full };
                let nodes = tree.walk(&options)?.next(100)?;
                assert!(nodes.is_empty(), "it worked: {}", start.escape_ascii());
            }
            Err(last)
        }
        _ => no_such_attack(id),
    }
}
