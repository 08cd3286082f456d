//! Answers that a caller should not have to see.

use crate::bindings::exports::layerbox::driver::lifecycle::Layer;
use crate::bindings::layerbox::driver::types::Error;
use crate::{Result, is_wanted, no_such_attack};

/// What would color the rest of a terminal, and look like another message.
const ESCAPES: &str = "\x1b[31mred\x1b]0;title\x07\r\nlayerbox: all is well";

pub(crate) fn exists(id: &str) -> Result<bool> {
    match id {
        "answers-a-long-error" => Err(Error::Conflict("long ".repeat(20 << 20))),
        "answers-an-error-with-escapes" => Err(Error::Conflict(ESCAPES.to_owned())),
        _ => no_such_attack(id),
    }
}

pub(crate) fn list() -> Result<Vec<Layer>> {
    let layer = |id: String| Layer { id, ancestors: Vec::new() };
    if is_wanted("lists-too-much") {
        // A hundred bytes in the host for each of these.
        return Ok(std::iter::repeat_with(|| layer(String::new())).take(5 << 20).collect());
    }
    if is_wanted("lists-long-ids") {
        return Ok(vec![layer("x".repeat(90 << 20)), layer("y".repeat(60 << 20))]);
    }
    if is_wanted("lists-what-is-no-id") {
        return Ok(vec![layer("base".to_owned()), layer("../../victim".to_owned())]);
    }
    no_such_attack("")
}

pub(crate) fn metadata(id: String) -> Result<Layer> {
    match id.as_str() {
        "has-a-path-for-a-parent" => Ok(Layer { id, ancestors: vec!["../../victim".to_owned()] }),
        _ => no_such_attack(&id),
    }
}

pub(crate) fn status() -> Result<Vec<(String, String)>> {
    Ok(vec![(ESCAPES.to_owned(), ESCAPES.to_owned()), ("Dirs".to_owned(), ESCAPES.to_owned())])
}
