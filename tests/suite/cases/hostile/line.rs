//! The command line, as the table of hostile archives drives it.

use std::path::Path;

use layerbox_catalogue as catalogue;
use layerbox_catalogue::{Applied, Bounds};

use crate::command::run;
use crate::store::Store;

/// A store, and the binary on it.
#[derive(Debug)]
pub(super) struct CommandLine {
    store: Store,
}

impl CommandLine {
    pub(super) fn new(store: Store) -> CommandLine {
        CommandLine { store }
    }
}

impl catalogue::Subject for CommandLine {
    fn dialect(&self) -> catalogue::Dialect {
        self.store.dialect()
    }

    fn root(&self) -> &Path {
        self.store.root()
    }

    fn create(&self, id: &str, parent: Option<&str>) -> Result<(), String> {
        self.store.create(id, parent).map_err(text)
    }

    fn apply(&self, id: &str, archive: &[u8], bounds: Bounds) -> Result<Applied, String> {
        let Bounds { entries, bytes, no_devices } = bounds;
        let mut options: Vec<String> = ["--json", "apply-diff", id].map(str::to_owned).to_vec();
        for (option, value) in [("--max-entries", entries), ("--max-bytes", bytes)] {
            options.extend(value.into_iter().flat_map(|value| [option.to_owned(), value.to_string()]));
        }
        // What is laid around the layer that is attacked need not outlast a power cut.
        if id != "target" {
            options.push("--no-sync".to_owned());
        }
        if no_devices {
            options.extend(["--devices", "refuse"].map(str::to_owned));
        }
        let mut command = self.store.command(options.iter().map(String::as_str));
        let output = run(&mut command, archive).map_err(text)?;
        if output.code == 0 {
            return Ok(Applied::Done);
        }
        let error: serde_json::Value = serde_json::from_str(output.stderr.trim())
            .map_err(|_| format!("the error is not one line of JSON: {output}"))?;
        let said = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        match (output.code, said("code").as_str(), said("layer") == id) {
            (5, "refused", true) => Ok(Applied::Refused(said("error"))),
            (6, "limit", true) => Ok(Applied::Limit(said("error"))),
            _ => Err(output.to_string()),
        }
    }

    fn diff(&self, id: &str) -> Result<Vec<u8>, String> {
        self.store.diff(id).map_err(text)
    }

    fn changes(&self, id: &str) -> Result<usize, String> {
        self.store.changes(id).map(|lines| lines.len()).map_err(text)
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        self.store.ok(["remove", id]).map(drop).map_err(text)
    }
}

pub(super) fn text(error: anyhow::Error) -> String {
    format!("{error:#}")
}
