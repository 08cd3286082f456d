//! Many layers on one another.

use std::fs;

use super::{Case, Context, Outcome, Scope, broad, case, changes_are, layer};
use crate::check::{equal, holds};
use crate::tar::{Entry, archive};

pub(super) fn cases() -> Vec<Case> {
    use Scope::{Each, Mounted};
    vec![
        case(Mounted, "union/upper-layer-wins", "four layers of one file", upper_wins),
        broad(
            Mounted,
            "union/127-layers",
            "each adds one, overwrites one, and deletes the one of the layer below",
            deep,
        ),
        broad(
            Each,
            "changes/127-layers",
            "of the uppermost, against its parent and against the lowest",
            deep_changes,
        ),
        broad(
            Mounted,
            "union/paths-around-a-page",
            "of whatever length, every layer is there",
            around_a_page,
        ),
    ]
}

fn upper_wins(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let ids = ["a", "b", "c", "d"];
    for (number, id) in ids.iter().enumerate() {
        let parent = number.checked_sub(1).and_then(|below| ids.get(below)).copied();
        layer(store.as_ref(), id, parent, &[Entry::file("f", id), Entry::file(format!("own-{id}"), "")])?;
        let place = store.get(id, None)?;
        equal(&format!("what {id} shows"), fs::read_to_string(place.join("f"))?.as_str(), *id)?;
        for lower in &ids[..=number] {
            holds(&format!("{id} shows what only {lower} has"), place.join(format!("own-{lower}")).exists())?;
        }
        store.put(id)?;
    }
    Ok(())
}

/// How many layers a union of Docker's aufs driver took.
const LAYERS: usize = 127;

/// What a layer adds, overwrites and deletes.
fn entries(number: usize) -> Vec<Entry> {
    let mut entries = vec![
        Entry::file(format!("own{number:03}"), "own"),
        Entry::file("all", format!("{number}")).time(number as i64, 0),
    ];
    if number > 0 {
        entries.push(Entry::whiteout(format!("own{:03}", number - 1)));
    }
    entries
}

/// Makes all layers, and answers the uppermost.
fn tower(store: &dyn crate::Store) -> Result<String, super::Stop> {
    for number in 0..LAYERS {
        let parent = number.checked_sub(1).map(|below| format!("l{below}"));
        layer(store, &format!("l{number}"), parent.as_deref(), &entries(number))?;
    }
    Ok(format!("l{}", LAYERS - 1))
}

fn deep(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let top = tower(store.as_ref())?;
    let place = store.get(&top, None)?;
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&place)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    equal("names", names, vec!["all".to_owned(), format!("own{:03}", LAYERS - 1)])?;
    equal("content", fs::read_to_string(place.join("all"))?, (LAYERS - 1).to_string())?;
    fs::write(place.join("written"), "x")?;
    Ok(store.put(&top)?)
}

fn deep_changes(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let top = tower(store.as_ref())?;
    let (own, below) = (format!("A /own{:03}", LAYERS - 1), format!("D /own{:03}", LAYERS - 2));
    changes_are(store.as_ref(), &top, None, &["C /all", &below, &own])?;
    changes_are(store.as_ref(), &top, Some("l0"), &["C /all", "D /own000", &own])?;
    equal("ancestors", store.metadata(&top)?.ancestors.len(), LAYERS - 1)?;
    Ok(())
}

fn around_a_page(context: &Context<'_>) -> Outcome {
    // mount(2) takes one page of options. The stack's paths fill a part of it; the uppermost layer's id has
    // every length, so that the end of some path, of some separator, comes to lie on each byte around the
    // page's end.
    const PAGE: usize = 4096;
    let store = context.quick()?;
    let path = store.root().as_os_str().len() + "/diff/".len() + 100 + 1;
    let count = (PAGE - 64) / path;
    let id = |number: usize| format!("l{number:099}");
    for number in 0..count {
        let parent = number.checked_sub(1).map(id);
        layer(store.as_ref(), &id(number), parent.as_deref(), &[Entry::file(format!("f{number}"), "")])?;
    }
    let parent = id(count - 1);
    for length in 1..=128 {
        let top = "t".repeat(length);
        store.create(&top, Some(&parent))?;
        store.apply(&top, None, &archive(&[Entry::file("top", "")]))?;
        let place = store.get(&top, None)?;
        let shown = fs::read_dir(&place)?.count();
        store.put(&top)?;
        equal(&format!("files shown with an id of {length} bytes"), shown, count + 1)?;
        store.remove(&top, false)?;
    }
    Ok(())
}
