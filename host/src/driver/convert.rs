//! Rewriting a store for another backend. No call of the driver: nobody else has the store open meanwhile.

use std::path::Path;

use layerbox_privileged::mount::Choice;

use super::require_root;
use crate::error::Error;
use crate::store::convert;

/// What came of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The backend that the store was of, by its name.
    pub from: &'static str,
    /// The one that it is of now; where it is the same, nothing was to be done.
    pub to: &'static str,
    /// How many layers the store has.
    pub layers: u64,
    /// How many deletions, opaque directories among them, were rewritten.
    pub deletions: u64,
}

/// Rewrites the store at `root` in the form of a backend: the deletions in all of its layers. `auto` is
/// overlayfs; where a conversion was cut off, it is what that was to lead to, and what was begun is gone on
/// with, or turned back.
///
/// # Errors
///
/// [`Failure::StoreInUse`](crate::error::Failure::StoreInUse) where anybody has the store open,
/// [`Failure::Conflict`](crate::error::Failure::Conflict) where a layer is mounted, and
/// [`Failure::Refused`](crate::error::Failure::Refused) for a layer that the other form cannot hold: nothing
/// was changed then. After any other failure it can be called again.
pub fn convert(root: &Path, target: Choice) -> Result<Conversion, Error> {
    require_root("converting a store").map_err(|failure| failure.during("convert", None))?;
    let converted = convert::convert(root, target).map_err(|stop| {
        let failure = stop.failure.explain_by_file_system(root);
        failure.during("convert", stop.layer.as_ref())
    })?;
    Ok(Conversion {
        from: converted.from.as_str(),
        to: converted.to.as_str(),
        layers: converted.layers,
        deletions: converted.deletions,
    })
}
