//! Records of layers, ids, reference counts.

use std::fs;

use layerbox_guest::host::Error;
use layerbox_guest::layers::{LayerId, Records};
use layerbox_privileged::references::References;

use crate::scratch;

pub(crate) fn run(bytes: &[u8]) {
    ids(bytes);
    scratch::with("metadata", |place| {
        let layers = place.join("layers");
        fs::create_dir_all(&layers).expect("a directory of the scratch");
        record(&layers, bytes);
        count(place, bytes);
    });
}

/// The component checks ids, and the host does not trust it: both must draw the same line.
fn ids(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let ours = LayerId::parse(text).is_ok();
    assert_eq!(ours, layerbox_privileged::LayerId::new(text).is_ok(), "one takes it for an id, one does not");
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    assert!(!ours || (text.bytes().all(harmless) && !text.starts_with('.') && text.len() <= 128));
}

fn record(layers: &std::path::Path, bytes: &[u8]) {
    let records = Records::new(layers);
    let id = LayerId::parse("own").expect("an id");
    fs::write(layers.join("own"), bytes).expect("write");
    match records.ancestors(&id) {
        Ok(ancestors) => {
            let text: String = ancestors.iter().flat_map(|it| [it.as_str(), "\n"]).collect();
            assert_eq!(text.as_bytes(), bytes, "a record that has two forms");
            records.create(&id, &ancestors).expect("what was read can be written");
            assert_eq!(fs::read(layers.join("own")).expect("read"), bytes, "it is written in another form");
            let parent = ancestors.first();
            assert!(parent.is_none_or(|parent| records.child(parent) == Ok(Some("own".to_owned()))));
            assert_eq!(records.all().map(|all| all.len()), Ok(1), "another layer than there is");
        }
        Err(Error::Corrupt(_)) => {
            // A damaged record may not be read as a shorter one by anybody.
            assert!(records.child(&LayerId::parse("parent").expect("an id")).is_err());
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn count(place: &std::path::Path, bytes: &[u8]) {
    let references = References::new(place, place.to_owned()).expect("a directory of the scratch");
    let id = layerbox_privileged::LayerId::new("own").expect("an id");
    let file = place.join("references/own");
    fs::write(&file, bytes).expect("write");
    if let Ok(count) = references.count(&id) {
        // Behind it the mount namespace, and the mount in it, where these were written down.
        let text = std::str::from_utf8(bytes).expect("a count is text");
        let fields: Vec<&str> = text.strip_suffix('\n').expect("a line").split(' ').collect();
        let is_number = |field: &&str| field.parse::<u64>().is_ok_and(|number| number.to_string() == **field);
        assert!(fields[0] == count.to_string() && fields.len() <= 3, "{text:?}");
        assert!(fields.iter().all(is_number), "a count that has two forms: {text:?}");
        if count < u32::MAX {
            assert_eq!(references.acquire(&id), Ok(count + 1));
            assert_eq!(references.release(&id), Ok(count));
        }
        assert_eq!(fs::read(&file).expect("read"), bytes);
    }
    references.clear(&id).expect("clear");
    assert_eq!(references.count(&id), Ok(0));
}
