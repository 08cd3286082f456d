//! `get`: what it tries with mounts.

use crate::bindings::exports::layerbox::driver::lifecycle::Place;
use crate::bindings::layerbox::driver::mounts::{self, Access, Branch};
use crate::bindings::layerbox::driver::references;
use crate::{Result, is_wanted, must_fail, no_such_attack};

pub(crate) fn get(id: &str) -> Result<Place> {
    let open = |id: &str, access| Branch::open(id, access);
    let own = open(id, Access::ReadWrite)?;
    let base = open("base", Access::ReadOnly)?;
    match id {
        "takes-a-foreign-branch" => Err(must_fail(id, open("stranger", Access::ReadOnly))),
        "takes-its-parent-to-write" => Err(must_fail(id, open("base", Access::ReadWrite))),
        "mounts-another" => Err(must_fail(id, mounts::mount("stranger", &[&own, &base], None))),
        "mounts-over-its-parent" => Err(must_fail(id, mounts::mount("base", &[&own, &base], None))),
        "mounts-a-branch-twice" => Err(must_fail(id, mounts::mount(id, &[&own, &base, &base], None))),
        "mounts-itself-below" => Err(must_fail(id, mounts::mount(id, &[&base, &own], None))),
        "mounts-nothing" => Err(must_fail(id, mounts::mount(id, &[], None))),
        "smuggles-options-in-a-label" => {
            let label = "x\",upperdir=/,lowerdir=\"/etc";
            Err(must_fail(id, mounts::mount(id, &[&own, &base], Some(label))))
        }
        "gives-it-a-label" => {
            Err(must_fail(id, mounts::mount(id, &[&own, &base], Some("system_u:object_r:evil_t:s0"))))
        }
        "counts-another" => {
            must_fail(id, references::release("base"));
            must_fail(id, references::clear("stranger"));
            must_fail(id, mounts::unmount("base", true));
            must_fail(id, mounts::all());
            Err(must_fail(id, references::acquire("stranger")))
        }
        "says-mounted-and-is-not" => Ok(Place::Merged),
        "traps-when-it-has-mounted" => {
            mounts::mount(id, &[&own, &base], None)?;
            panic!("in the middle of it");
        }
        _ => no_such_attack(id),
    }
}

/// In `cleanup`, which is about all layers.
pub(crate) fn cleanup() -> Result<u32> {
    if is_wanted("counts-what-is-no-layer") {
        must_fail("release", references::release("nobody"));
        return Err(must_fail("acquire", references::acquire("nobody")));
    }
    no_such_attack("")
}
