//! Archives from strangers: the table of `layerbox_catalogue`, through the calls of the contract.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use layerbox_catalogue as catalogue;
use layerbox_catalogue::{Applied, Bounds};

use super::{Case, Context, Outcome, Scope};
use crate::subject::{Dialect, Failure, Store};

/// Named rows whose layer holds more than their rule is about: what drops its marks or attributes fails them,
/// too.
const OF_SEVERAL_RULES: [&str; 4] = [
    "opaque-mark-that-is-a-link-to-a-whiteout",
    "whiteouts-as-aufs-has-them",
    "access-control-list-of-no-entries",
    "labels-of-the-host",
];

pub(super) fn cases() -> Vec<Case> {
    let case = |row: catalogue::Row| Case {
        name: format!("hostile/{}", row.name()),
        about: row.title,
        scope: Scope::Each,
        broad: !row.is_named() || OF_SEVERAL_RULES.contains(&row.name().as_str()),
        run: Arc::new(move |context: &Context<'_>| attempt(context, &row)),
    };
    catalogue::all().into_iter().map(case).collect()
}

fn attempt(context: &Context<'_>, row: &catalogue::Row) -> Outcome {
    let subject = Contract { store: context.quick()?, dialect: context.dialect };
    Ok(catalogue::attempt(row, &subject, context.options.strict)?)
}

/// A store of the suite, as the table drives it.
struct Contract {
    store: Box<dyn Store>,
    dialect: Dialect,
}

impl catalogue::Subject for Contract {
    fn dialect(&self) -> catalogue::Dialect {
        self.dialect
    }

    fn root(&self) -> &Path {
        self.store.root()
    }

    fn content(&self, id: &str) -> PathBuf {
        self.store.content_path(id)
    }

    fn create(&self, id: &str, parent: Option<&str>) -> Result<(), String> {
        Ok(self.store.create(id, parent)?)
    }

    fn apply(&self, id: &str, archive: &[u8], bounds: Bounds) -> Result<Applied, String> {
        match self.store.apply_within(id, archive, bounds) {
            Ok(_) => Ok(Applied::Done),
            Err(Failure { code, message, .. }) if code == "refused" => Ok(Applied::Refused(message)),
            Err(Failure { code, message, .. }) if code == "limit" => Ok(Applied::Limit(message)),
            Err(failure) => Err(failure.into()),
        }
    }

    fn diff(&self, id: &str) -> Result<Vec<u8>, String> {
        Ok(self.store.diff(id, None)?.archive)
    }

    fn changes(&self, id: &str) -> Result<usize, String> {
        Ok(self.store.changes(id, None)?.len())
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        Ok(self.store.remove(id, false)?)
    }
}
