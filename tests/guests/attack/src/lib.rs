//! A component that has gone entirely wrong. In every call it makes thousands of calls of its imports, with
//! arguments that are random or chosen to lead out, keeps and drops handles as it likes, and answers what it
//! likes. What it does follows from the call and the layer's id alone.
//!
//! It knows what the secret looks like that the suite has planted outside the layers that it is lent
//! (`SECRET`), and looks for it in all that it is ever told. The last line of its log says how many calls it
//! has made, and whether it saw the secret.

mod files;
mod hands;
mod random;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../wit", "wit"],
        world: "layerbox:attack/attack",
        generate_all,
    });
    use super::Attack;
    export!(Attack);
}

use bindings::exports::layerbox::driver::differ::{self, ApplyOptions, Outcome};
use bindings::exports::layerbox::driver::lifecycle::{self, Layer, Place};
use bindings::layerbox::driver::types::{ChangeKind, ChangeList, Error, IdMaps, Totals};
use hands::Hands;

/// How every planted secret begins.
pub(crate) const SECRET: &[u8] = b"canary-7f3a9c52e1d84b06";

/// The component.
struct Attack;

type Result<T> = std::result::Result<T, Error>;

/// Attacks, then answers something.
fn attack<T>(call: &str, id: &str, answer: impl FnOnce(&mut Hands) -> T) -> Result<T> {
    let mut hands = Hands::new(call, id);
    hands.work();
    let answer = answer(&mut hands);
    let saw = hands.saw();
    let count = hands.count();
    let lie = hands.lie();
    drop(hands);
    eprintln!("attack: {call} {count} calls, saw {saw}");
    lie.map_or(Ok(answer), Err)
}

impl lifecycle::Guest for Attack {
    fn create(id: String, parent: Option<String>, _depth: u32) -> Result<()> {
        attack(&format!("create {parent:?}"), &id, |_| ())
    }

    fn remove(id: String, _force: bool) -> Result<()> {
        attack("remove", &id, |_| ())
    }

    fn get(id: String, _label: Option<String>) -> Result<Place> {
        attack("get", &id, |hands| hands.random.choose(&[Place::Content, Place::Merged]))
    }

    fn put(id: String) -> Result<()> {
        attack("put", &id, |_| ())
    }

    fn exists(id: String) -> Result<bool> {
        attack("exists", &id, |hands| hands.random.one_in(2))
    }

    fn list() -> Result<Vec<Layer>> {
        attack("list", "all", |hands| {
            let mut layer = || Layer { id: hands.random.id("all"), ancestors: vec![hands.random.id("all")] };
            vec![layer(), layer()]
        })
    }

    fn metadata(id: String) -> Result<Layer> {
        attack("metadata", &id, |hands| Layer {
            id: hands.random.id(&id),
            ancestors: vec![hands.random.id(&id)],
        })
    }

    fn status() -> Result<Vec<(String, String)>> {
        attack("status", "all", |_| vec![("Dirs".to_owned(), "\u{1b}[2J".to_owned())])
    }

    fn cleanup() -> Result<u32> {
        attack("cleanup", "all", |_| u32::MAX)
    }
}

impl differ::Guest for Attack {
    fn diff(id: String, parent: Option<String>, _maps: IdMaps) -> Result<Outcome> {
        attack(&format!("diff {parent:?}"), &id, |hands| Outcome {
            totals: totals(hands),
            skipped: vec![hands.random.name()],
        })
    }

    fn apply_diff(id: String, _parent: Option<String>, _options: ApplyOptions) -> Result<Totals> {
        attack("apply-diff", &id, |hands| {
            hands.finish();
            totals(hands)
        })
    }

    fn changes(id: String, parent: Option<String>) -> Result<ChangeList> {
        attack(&format!("changes {parent:?}"), &id, |hands| {
            let kind = hands.random.choose(&[ChangeKind::Added, ChangeKind::Deleted]);
            let names = hands.random.name();
            // A list of a wrong length is refused as a whole.
            let length = if hands.random.one_in(2) { hands.random.number() } else { names.len() as u64 };
            ChangeList { names, entries: vec![(length as u32, kind)] }
        })
    }

    fn diff_size(id: String, _parent: Option<String>) -> Result<Totals> {
        attack("diff-size", &id, totals)
    }
}

fn totals(hands: &mut Hands) -> Totals {
    Totals { entries: hands.random.number(), bytes: hands.random.number() }
}
