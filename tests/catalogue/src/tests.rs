//! What the table must be like, whoever runs it.

use std::collections::BTreeSet;

use crate::all;

#[test]
fn names_are_unique_and_short_enough_to_read() {
    let rows = all();
    let names: BTreeSet<String> = rows.iter().map(crate::Row::name).collect();
    let twice: Vec<&str> = {
        let mut seen = BTreeSet::new();
        rows.iter().filter(|row| !seen.insert(row.name())).map(|row| row.title).collect()
    };
    assert_eq!(names.len(), rows.len(), "there twice: {twice:?}");
    assert_eq!(
        rows.iter().filter(|row| row.is_named()).count(),
        crate::rows::NAMES.len(),
        "a name without a row"
    );
    assert_eq!(rows.iter().filter(|row| row.open).count(), crate::rows::OPEN.len(), "a title without a row");
}
