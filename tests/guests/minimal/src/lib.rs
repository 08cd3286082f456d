//! The smallest component: it answers `exists`, and says of all else that it does not do it.

wit_bindgen::generate!({ path: "../../../wit", world: "driver" });

use exports::layerbox::driver::{differ, lifecycle};
use layerbox::driver::types::{ChangeList, Error, IdMaps, LayerId, Totals};

struct Minimal;

#[cfg(target_arch = "wasm32")]
export!(Minimal);

/// Writes the calls that are left to others.
macro_rules! unsupported {
    ($($call:ident($($argument:ty),*) -> $answer:ty;)*) => {$(
        fn $call($(_: $argument),*) -> Result<$answer, Error> {
            Err(Error::Unsupported(stringify!($call).to_owned()))
        }
    )*};
}

impl lifecycle::Guest for Minimal {
    fn exists(id: LayerId) -> Result<bool, Error> {
        Ok(std::path::Path::new("/layers").join(id).is_file())
    }

    unsupported! {
        create(LayerId, Option<LayerId>, u32) -> ();
        remove(LayerId, bool) -> ();
        get(LayerId, Option<String>) -> lifecycle::Place;
        put(LayerId) -> ();
        list() -> Vec<lifecycle::Layer>;
        metadata(LayerId) -> lifecycle::Layer;
        status() -> Vec<(String, String)>;
        cleanup() -> u32;
    }
}

impl differ::Guest for Minimal {
    unsupported! {
        diff(LayerId, Option<LayerId>, IdMaps) -> differ::Outcome;
        apply_diff(LayerId, Option<LayerId>, differ::ApplyOptions) -> Totals;
        changes(LayerId, Option<LayerId>) -> ChangeList;
        diff_size(LayerId, Option<LayerId>) -> Totals;
    }
}
