//! The records of a store.

use std::fs;

use layerbox_guest::host::Error;
use layerbox_guest::layers::LayerId;

use crate::store::{DIALECTS, Store};

#[test]
fn ids_are_of_one_form() {
    let long = "a".repeat(128);
    for id in ["a", "0", "A_.-", "a..b", &long, "removing", "sha256.0-init"] {
        assert_eq!(LayerId::parse(id).map(String::from).as_deref(), Ok(id));
    }
    let longer = "a".repeat(129);
    for id in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a:b=rw",
        "a,upperdir=/",
        "a\n",
        "a b",
        "-a",
        "_a",
        ".a",
        "x-removing",
        "\u{e9}",
        &longer,
    ] {
        assert_eq!(LayerId::parse(id), Err(Error::InvalidId(id.to_owned())), "{id:?}");
    }
}

#[test]
fn damaged_records_are_told_and_not_guessed_at() {
    let many: String = (0..4097).map(|number| format!("l{number}\n")).collect();
    let large = "x\n".repeat(1 << 20);
    let cases: [(&str, &[u8]); 8] = [
        ("an empty line", b"b\n\nc\n"),
        ("cut off", b"b\nc"),
        ("not an id", b"../b\n"),
        ("not text", b"\xff\n"),
        ("itself", b"b\na\n"),
        ("twice", b"b\nc\nb\n"),
        ("too many", many.as_bytes()),
        ("too large", large.as_bytes()),
    ];
    for (what, text) in cases {
        let store = Store::new(DIALECTS[0]);
        store.layer("a", &[]);
        fs::write(store.path("a").join("../../layers/a"), text).unwrap();
        let found = store.records.ancestors(&LayerId::parse("a").unwrap());
        assert!(matches!(found, Err(Error::Corrupt(_))), "{what}: {found:?}");
    }
}

#[test]
fn what_is_no_file_is_no_record() {
    let store = Store::new(DIALECTS[0]);
    store.layer("real", &[]);
    let directory = store.path("real").join("../../layers");
    std::os::unix::fs::symlink("real", directory.join("link")).unwrap();
    fs::create_dir(directory.join("directory")).unwrap();
    for id in ["link", "directory"] {
        let found = store.records.ancestors(&LayerId::parse(id).unwrap());
        assert!(matches!(found, Err(Error::Corrupt(_))), "{id}: {found:?}");
    }
    let absent = LayerId::parse("absent").unwrap();
    assert_eq!(store.records.ancestors(&absent), Err(Error::NotFound("absent".to_owned())));
    assert_eq!(store.records.exists(&absent), Ok(false));
}

#[test]
fn listing_passes_over_what_is_no_layer() {
    let store = Store::new(DIALECTS[0]);
    store.layer("b", &[]);
    store.layer("a", &["b"]);
    let directory = store.path("a").join("../../layers");
    fs::write(directory.join(".c.tmp"), "b\n").unwrap();
    fs::write(directory.join("x-removing"), "").unwrap();
    let ids: Vec<_> = store.records.all().unwrap().into_iter().map(|layer| layer.id).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(fs::read(directory.join("a")).unwrap(), b"b\n", "as Docker's driver writes it");
    assert_eq!(fs::read(directory.join("b")).unwrap(), b"");
}
