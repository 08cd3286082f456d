//! Time, memory, and whatever else there is a bound for.

use std::fs::File;
use std::hint::black_box;
use std::time::Duration;

use crate::bindings::layerbox::driver::tree::{Detail, Tree, WalkOptions};
use crate::bindings::layerbox::driver::types::{Error, Totals};
use crate::{Result, denied, no_such_attack};

/// In `create`.
pub(crate) fn spend(id: &str) -> Result<()> {
    match id {
        "loops-for-ever" => loop {
            black_box(());
        },
        "loops-in-cheap-calls" => loop {
            let _ = black_box(Tree::open("nobody"));
        },
        "recurses-for-ever" => {
            black_box(recurse(0));
            Ok(())
        }
        "grows-for-ever" => {
            let mut kept = Vec::new();
            loop {
                kept.push(black_box(vec![1u8; 1 << 20]));
            }
        }
        "waits-for-an-hour" => {
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        "exits-as-if-all-were-well" => std::process::exit(0),
        "hoards-files" => {
            let mut kept = Vec::new();
            loop {
                kept.push(File::open("/layers/stranger").map_err(denied)?);
            }
        }
        "hoards-listings" => {
            let mut kept = Vec::new();
            loop {
                kept.push(std::fs::read_dir("/layers").map_err(denied)?);
            }
        }
        "floods-the-log" => {
            let line = "\x1b[31m".to_owned() + &"flood ".repeat(200);
            for _ in 0..100_000 {
                eprintln!("{line}");
            }
            panic!("\x1b[2Jthe last word");
        }
        _ => no_such_attack(id),
    }
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 4]);
    if frame[0] == u64::MAX {
        return 0;
    }
    recurse(depth + 1) + frame[2]
}

/// In `diff-size`, which is lent a layer.
pub(crate) fn diff_size(id: &str) -> Result<Totals> {
    let tree = Tree::open(id)?;
    match id {
        // Each call is a millisecond of the host's and nearly nothing of its own.
        "loops-in-dear-calls" => {
            let names = vec![b"a/b/c/d".to_vec(); 4096];
            loop {
                tree.stat(&names, Detail::Full)?;
            }
        }
        // The answers need so much room that the component grows while the host's call goes on.
        "loops-in-calls-with-large-arguments" => {
            let names = vec![[&b"a"[..]; 400].join(&b'/'); 4096];
            loop {
                tree.stat(&names, Detail::Full)?;
            }
        }
        "hoards-handles" => {
            let mut kept = Vec::new();
            loop {
                kept.push(Tree::open(id)?);
            }
        }
        "hoards-walks" => {
            let options = WalkOptions { start: Vec::new(), recursive: true, detail: Detail::Names };
            let mut kept = Vec::new();
            loop {
                kept.push(tree.walk(&options)?);
            }
        }
        "asks-too-much-at-once" => {
            let names = vec![vec![b'x'; 1 << 20]; 150];
            tree.stat(&names, Detail::Names)?;
            Ok(Totals { entries: 0, bytes: 0 })
        }
        "asks-for-too-many-names" => {
            let names = vec![Vec::new(); 4097];
            tree.stat(&names, Detail::Names)?;
            Err(Error::Denied("not at all".to_owned()))
        }
        _ => no_such_attack(id),
    }
}
