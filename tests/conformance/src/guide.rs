//! `wit/README.md`, the guide for authors of components, held against what it speaks of.

use std::path::Path;

use crate::cases;

/// The groups that names of cases begin with.
pub(crate) const GROUPS: [&str; 7] =
    ["archive", "changes", "dialect", "hostile", "lifecycle", "model", "union"];

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// What stands between backticks and is the name of a case, or its beginning and a star.
fn mentioned(guide: &str) -> Vec<&str> {
    let is_case = |word: &&str| {
        let group = word.split_once('/').filter(|(_, rest)| !rest.is_empty()).map(|(group, _)| group);
        group.is_some_and(|group| GROUPS.contains(&group))
    };
    guide.split('`').skip(1).step_by(2).filter(is_case).collect()
}

#[test]
fn every_case_that_the_guide_names_is_one() {
    let guide = repository("wit/README.md");
    let mentioned = mentioned(&guide);
    assert!(mentioned.len() > 100, "the guide names cases: {}", mentioned.len());
    let all = cases::all();
    for name in mentioned {
        let found = match name.strip_suffix('*') {
            Some(beginning) => all.iter().any(|case| case.name.starts_with(beginning)),
            None => all.iter().any(|case| case.name == name),
        };
        assert!(found, "{name} is no case");
    }
}

#[test]
fn the_example_of_the_guide_is_the_component_that_is_built() {
    let (guide, built) = (repository("wit/README.md"), repository("tests/guests/minimal/src/lib.rs"));
    let block = guide.split_once("```rust\n").and_then(|(_, rest)| rest.split_once("```"));
    assert_eq!(block.map(|(code, _)| code), Some(built.as_str()));
}

#[test]
fn links_of_the_guide_lead_somewhere() {
    let guide = repository("wit/README.md");
    let anchors: Vec<String> = (guide.lines().filter_map(|line| line.strip_prefix("## ")))
        .map(|heading| format!("#{}", heading.to_lowercase().replace(' ', "-")))
        .collect();
    let targets = guide.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    for target in targets {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        assert!(anchors.iter().any(|anchor| anchor == target) || wit.join(target).exists(), "{target}");
    }
}
