//! The order of the steps of each call, and what is undone when one fails.

use std::cell::RefCell;
use std::collections::BTreeMap;

use layerbox_guest::host::{Access, Directories, Error, Mounts, Place, References, Result, Trees};
use layerbox_guest::layers::{LayerId, Records};
use layerbox_guest::lifecycle::Lifecycle;

use crate::host::Tree;
use crate::store::{DIALECTS, Store};

/// A host that writes down what it is told, and fails at one step.
struct Recorder<'a> {
    store: &'a Store,
    steps: RefCell<Vec<String>>,
    counts: RefCell<BTreeMap<String, u32>>,
    mounted: RefCell<Vec<String>>,
    fails_at: &'static str,
}

impl<'a> Recorder<'a> {
    fn new(store: &'a Store, fails_at: &'static str) -> Self {
        let (steps, counts, mounted) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { store, steps, counts, mounted, fails_at }
    }

    fn step(&self, step: String) -> Result<()> {
        let fails = step == self.fails_at;
        self.steps.borrow_mut().push(step);
        if fails { Err(Error::Busy("as told".to_owned())) } else { Ok(()) }
    }

    fn steps(&self) -> Vec<String> {
        self.steps.take()
    }

    fn calls(&self) -> Lifecycle<'_, Self> {
        Lifecycle::new(&self.store.records, self)
    }
}

impl Trees for Recorder<'_> {
    type Tree = Tree;

    fn tree(&self, id: &LayerId) -> Result<Tree> {
        self.store.tree(id)
    }
}

impl Directories for Recorder<'_> {
    fn make(&self, id: &LayerId) -> Result<()> {
        self.step(format!("make {}", id.as_str()))
    }

    fn discard(&self, id: &LayerId) -> Result<()> {
        self.step(format!("discard {}", id.as_str()))
    }
}

impl Mounts for Recorder<'_> {
    type Branch = String;

    fn branch(&self, id: &LayerId, access: Access) -> Result<String> {
        Ok(format!("{}={}", id.as_str(), if access == Access::ReadWrite { "rw" } else { "ro" }))
    }

    fn mount(&self, id: &LayerId, branches: &[&String], label: Option<&str>) -> Result<()> {
        let branches: Vec<_> = branches.iter().map(|branch| branch.as_str()).collect();
        self.step(format!("mount {} {} {label:?}", id.as_str(), branches.join(":")))?;
        self.mounted.borrow_mut().push(id.as_str().to_owned());
        Ok(())
    }

    fn unmount(&self, id: &LayerId, force: bool) -> Result<()> {
        self.step(format!("unmount {}{}", id.as_str(), if force { " by force" } else { "" }))?;
        self.mounted.borrow_mut().retain(|mounted| mounted != id.as_str());
        Ok(())
    }

    fn mounted(&self, id: &LayerId) -> Result<bool> {
        Ok(self.mounted.borrow().iter().any(|mounted| mounted == id.as_str()))
    }

    fn all(&self) -> Result<Vec<String>> {
        Ok(self.mounted.borrow().clone())
    }
}

impl References for Recorder<'_> {
    fn count(&self, id: &LayerId) -> Result<u32> {
        Ok(self.counts.borrow().get(id.as_str()).copied().unwrap_or_default())
    }

    fn acquire(&self, id: &LayerId) -> Result<u32> {
        self.step(format!("acquire {}", id.as_str()))?;
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(id.as_str().to_owned()).or_default();
        *count += 1;
        Ok(*count)
    }

    fn release(&self, id: &LayerId) -> Result<u32> {
        self.step(format!("release {}", id.as_str()))?;
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(id.as_str().to_owned()).or_default();
        *count = count.saturating_sub(1);
        Ok(*count)
    }

    fn clear(&self, id: &LayerId) -> Result<()> {
        self.step(format!("clear {}", id.as_str()))?;
        self.counts.borrow_mut().remove(id.as_str());
        Ok(())
    }
}

fn three_layers() -> Store {
    let store = Store::new(DIALECTS[0]);
    store.layer("base", &[]);
    store.layer("middle", &["base"]);
    store.layer("top", &["middle", "base"]);
    store
}

fn ancestors(records: &Records, id: &str) -> Vec<String> {
    records.ancestors(&LayerId::parse(id).unwrap()).unwrap().into_iter().map(String::from).collect()
}

#[test]
fn create_records_the_layer_once_its_directories_are_there() {
    let store = three_layers();
    let host = Recorder::new(&store, "");
    assert_eq!(host.calls().create("new", Some("top"), 3), Ok(()));
    assert_eq!(host.steps(), ["make new"]);
    assert_eq!(ancestors(&store.records, "new"), ["top", "middle", "base"]);
    assert_eq!(host.calls().create("alone", None, 0), Ok(()));
    assert_eq!(ancestors(&store.records, "alone"), [""; 0]);
}

#[test]
fn create_refuses_before_anything_is_made() {
    let cases = [
        ("top", None, 9, Error::Exists("top".into())),
        ("new", Some("absent"), 9, Error::NoSuchParent("absent".into())),
        ("new", Some("../top"), 9, Error::InvalidId("../top".into())),
        ("new", Some("new"), 9, Error::NoSuchParent("new".into())),
        ("a/b", None, 9, Error::InvalidId("a/b".into())),
        ("new", Some("top"), 2, Error::TooDeep(2)),
    ];
    for (id, parent, depth, expected) in cases {
        let store = three_layers();
        let host = Recorder::new(&store, "");
        assert_eq!(host.calls().create(id, parent, depth), Err(expected), "{id} on {parent:?}");
        assert_eq!(host.steps(), [""; 0], "{id} on {parent:?}");
        assert_eq!(store.records.all().unwrap().len(), 3, "{id} on {parent:?}");
    }
}

#[test]
fn a_create_that_fails_leaves_no_record() {
    let store = three_layers();
    let host = Recorder::new(&store, "make new");
    assert_eq!(host.calls().create("new", Some("top"), 9), Err(Error::Busy("as told".into())));
    assert_eq!(host.calls().exists("new"), Ok(false));
    // A directory where the temporary file should be.
    let host = Recorder::new(&store, "");
    std::fs::create_dir_all(store.path("base").join("../../layers/.new.tmp")).unwrap();
    assert!(matches!(host.calls().create("new", None, 9), Err(Error::Io(_))));
    assert_eq!(host.steps(), ["make new", "discard new"]);
    assert_eq!(host.calls().exists("new"), Ok(false));
}

#[test]
fn get_counts_once_it_is_mounted_and_put_unmounts_before_it_stops_counting() {
    let store = three_layers();
    let host = Recorder::new(&store, "");
    assert_eq!(host.calls().get("top", Some("label")), Ok(Place::Merged));
    assert_eq!(host.steps(), ["mount top top=rw:middle=ro:base=ro Some(\"label\")", "acquire top"]);
    assert_eq!(host.calls().get("top", None), Ok(Place::Merged));
    assert_eq!(host.steps(), ["acquire top"]);
    assert_eq!(host.calls().put("top"), Ok(()));
    assert_eq!(host.steps(), ["release top"]);
    assert_eq!(host.calls().put("top"), Ok(()));
    assert_eq!(host.steps(), ["unmount top", "release top"]);
    assert_eq!(host.calls().put("top"), Ok(()), "one too many");
    assert_eq!(host.steps(), [""; 0]);
}

#[test]
fn a_base_layer_is_neither_mounted_nor_counted() {
    let store = three_layers();
    let host = Recorder::new(&store, "");
    assert_eq!(host.calls().get("base", None), Ok(Place::Content));
    assert_eq!(host.calls().put("base"), Ok(()));
    assert_eq!(host.calls().get("absent", None), Err(Error::NotFound("absent".into())));
    assert_eq!(host.steps(), [""; 0]);
}

#[test]
fn what_fails_leaves_the_count_as_it_was() {
    let store = three_layers();
    let mount = "mount top top=rw:middle=ro:base=ro None";
    let host = Recorder::new(&store, mount);
    assert!(host.calls().get("top", None).is_err());
    assert_eq!(host.steps(), [mount]);

    let host = Recorder::new(&store, "acquire top");
    assert!(host.calls().get("top", None).is_err());
    assert_eq!(host.steps(), [mount, "acquire top", "unmount top"]);

    let host = Recorder::new(&store, "unmount top");
    host.calls().get("top", None).unwrap();
    host.steps();
    assert!(host.calls().put("top").is_err());
    assert_eq!(host.steps(), ["unmount top"]);
    assert_eq!(host.count(&LayerId::parse("top").unwrap()), Ok(1));
}

#[test]
fn what_was_mounted_and_never_counted_is_mounted_anew() {
    let store = three_layers();
    let host = Recorder::new(&store, "");
    host.mounted.borrow_mut().push("top".to_owned());
    assert_eq!(host.calls().get("top", None), Ok(Place::Merged));
    assert_eq!(host.steps(), ["unmount top", "mount top top=rw:middle=ro:base=ro None", "acquire top"]);
}

#[test]
fn an_opaque_root_cuts_off_what_lies_below() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("base", &[]);
        store.layer("middle", &["base"]).opaque("");
        store.layer("top", &["middle", "base"]);
        let host = Recorder::new(&store, "");
        host.calls().get("top", None).unwrap();
        assert_eq!(host.steps()[0], "mount top top=rw:middle=ro None", "{dialect:?}");
    }
}

#[test]
fn a_layer_that_hides_all_below_it_is_not_mounted() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("base", &[]);
        store.layer("top", &["base"]).opaque("");
        let host = Recorder::new(&store, "");
        assert_eq!(host.calls().get("top", None), Ok(Place::Content), "{dialect:?}");
        assert_eq!(host.calls().put("top"), Ok(()), "{dialect:?}");
        assert_eq!(host.steps(), [""; 0], "{dialect:?}");
    }
}

#[test]
fn remove() {
    let store = three_layers();
    let host = Recorder::new(&store, "");
    host.calls().get("top", None).unwrap();
    host.steps();
    assert!(matches!(host.calls().remove("top", false), Err(Error::Busy(_))));
    assert_eq!(host.steps(), [""; 0]);
    assert_eq!(host.calls().remove("middle", true), Err(Error::HasChildren("top".into())));
    assert_eq!(host.steps(), [""; 0]);
    assert_eq!(host.calls().remove("top", true), Ok(()));
    assert_eq!(host.steps(), ["unmount top by force", "clear top", "discard top"]);
    assert_eq!(host.calls().remove("top", true), Err(Error::NotFound("top".into())));

    let host = Recorder::new(&store, "discard middle");
    assert!(host.calls().remove("middle", false).is_err());
    assert_eq!(host.calls().exists("middle"), Ok(true));
}

#[test]
fn cleanup_unmounts_all_it_can() {
    let store = three_layers();
    let host = Recorder::new(&store, "unmount middle");
    host.calls().get("middle", None).unwrap();
    host.calls().get("top", None).unwrap();
    host.steps();
    assert!(host.calls().cleanup().is_err());
    assert_eq!(host.steps(), ["unmount middle", "unmount top", "clear top"]);
    let host = Recorder::new(&store, "");
    host.calls().get("top", None).unwrap();
    assert_eq!(host.calls().cleanup(), Ok(1));
}

#[test]
fn rows_of_status() {
    let store = three_layers();
    let host = Recorder::new(&store, "");
    let row = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(host.calls().status(), Ok(vec![row("Dirs", "3"), row("Deepest", "3"), row("Mounted", "0")]));
    let found = host.calls().metadata("top").unwrap();
    assert_eq!(found.ancestors, ["middle", "base"]);
}
