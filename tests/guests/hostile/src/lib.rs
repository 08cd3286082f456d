//! A component that attacks the host.
//!
//! Which attack is tried is the id of the layer that a call is about, so one build has all of them; a call
//! without an id looks for a layer of that name in `/layers`. The rows of
//! `tests/suite/cases/hostile/guests.rs` say in which call an attack is tried and what must come of it.
//!
//! An attack that the host refuses ends the call with the host's error, or with `denied` and the words of the
//! operating system. One that the host lets through ends it with a panic that says so. Some are not refused
//! but bounded, and some are wrong answers.

#![cfg(target_arch = "wasm32")]

mod answers;
mod content;
mod handles;
mod layers;
mod resources;
mod unions;

mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "driver", generate_all });

    use super::Hostile;
    export!(Hostile with_types_in self);
}

use bindings::exports::layerbox::driver::differ::{self, ApplyOptions, ChangeList, IdMaps, Outcome, Totals};
use bindings::exports::layerbox::driver::lifecycle::{self, Layer, Place};
use bindings::layerbox::driver::types::Error;

type Result<T> = std::result::Result<T, Error>;

struct Hostile;

/// What the operating system refuses, as an answer.
fn denied(error: std::io::Error) -> Error {
    Error::Denied(error.to_string())
}

/// Ends the call where the host has let something through.
fn must_fail<T, E>(what: &str, result: std::result::Result<T, E>) -> E {
    match result {
        Ok(_) => panic!("it worked: {what}"),
        Err(error) => error,
    }
}

fn no_such_attack(id: &str) -> ! {
    panic!("there is no attack `{id}` in this call")
}

/// Whether a call without an id is to try this.
fn is_wanted(attack: &str) -> bool {
    std::fs::metadata(format!("/layers/{attack}")).is_ok()
}

impl lifecycle::Guest for Hostile {
    fn create(id: String, _parent: Option<String>, _depth: u32) -> Result<()> {
        layers::create(&id)
    }

    fn remove(id: String, _force: bool) -> Result<()> {
        layers::remove(&id)
    }

    fn get(id: String, _label: Option<String>) -> Result<Place> {
        unions::get(&id)
    }

    fn put(id: String) -> Result<()> {
        no_such_attack(&id)
    }

    fn exists(id: String) -> Result<bool> {
        answers::exists(&id)
    }

    fn list() -> Result<Vec<Layer>> {
        answers::list()
    }

    fn metadata(id: String) -> Result<Layer> {
        answers::metadata(id)
    }

    fn status() -> Result<Vec<(String, String)>> {
        answers::status()
    }

    fn cleanup() -> Result<u32> {
        unions::cleanup()
    }
}

impl differ::Guest for Hostile {
    fn diff(id: String, _parent: Option<String>, _maps: IdMaps) -> Result<Outcome> {
        content::diff(&id)
    }

    fn apply_diff(id: String, _parent: Option<String>, _options: ApplyOptions) -> Result<Totals> {
        content::apply(&id)
    }

    fn changes(id: String, _parent: Option<String>) -> Result<ChangeList> {
        handles::changes(&id)
    }

    fn diff_size(id: String, _parent: Option<String>) -> Result<Totals> {
        resources::diff_size(&id)
    }
}
