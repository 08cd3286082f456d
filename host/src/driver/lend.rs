//! Layers that an engine mounts by itself: where they lie, and what the driver must know about that.

use std::path::PathBuf;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;

use super::{Driver, require_root};
use crate::error::{Error, Failure};
use crate::store::lock::Mode;

/// Where the parts of a layer's union lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lent {
    /// The layer's own content.
    pub content: PathBuf,
    /// overlayfs' working directory; none for aufs.
    pub work: Option<PathBuf>,
    /// The content of the ancestors, nearest first.
    pub ancestors: Vec<PathBuf>,
    /// What overlayfs must be told beside the directories, so that a union means what it means when the
    /// driver mounts it.
    pub options: Vec<String>,
}

impl Driver {
    /// Lets somebody else mount a layer. With `writable`, it can change from now on, and what is known of its
    /// size is forgotten.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`].
    pub fn lend(&self, id: &str, writable: bool) -> Result<Lent, Error> {
        self.call("lend", id, |id| {
            if writable {
                require_root("mounting")?;
            }
            let mut guards = vec![self.lock(id, Mode::Shared)?];
            let mut record = self.store.existing(id)?;
            // Others may be at the layer, and need not be waited for where there is nothing to forget.
            if writable && record.size.is_some() {
                drop(guards);
                guards = self.lock_to_mount(id)?.into();
                record = self.store.existing(id)?;
                self.store.forget_size(id, &record)?;
            }
            let _guards = guards;
            Ok(Lent {
                content: self.store.content_path(id),
                work: self.store.work_path(id),
                ancestors: record.ancestors.iter().map(|id| self.store.content_path(id)).collect(),
                options: self.unions.options(),
            })
        })
    }

    /// Ends the changing of a layer: it is unmounted where the driver mounted it, and what it holds is on the
    /// disk after the call.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`], [`Failure::Busy`]; those of syncing.
    pub fn seal(&self, id: &str) -> Result<(), Error> {
        while self.metadata(id)?.mounts > 0 {
            self.put(id)?;
        }
        self.call("seal", id, |id| {
            let _guards = self.lock_to_mount(id)?;
            let record = self.store.existing(id)?;
            // One that came from an archive is on the disk already, and has not changed since.
            if record.size.is_some() {
                return Ok(());
            }
            let content = self.store.content(id)?;
            nix::unistd::syncfs(content).map_err(|e| Failure::io("syncfs", &e.into()))
        })
    }

    /// Whether a layer holds nothing.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`].
    pub fn is_empty(&self, id: &str) -> Result<bool, Error> {
        self.call("metadata", id, |id| {
            self.store.existing(id)?;
            self.store.is_empty(id)
        })
    }

    /// Whether a layer's union is one that overlayfs mounts.
    pub fn is_overlay(&self) -> bool {
        self.store.format().backend() != Backend::Aufs
    }

    /// The ancestors of a layer, nearest first: the host's own record.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`].
    pub fn ancestors(&self, id: &str) -> Result<Vec<LayerId>, Error> {
        self.call("metadata", id, |id| Ok(self.store.existing(id)?.ancestors))
    }

    /// All layers whose ids begin so.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn beginning(&self, prefix: &str) -> Result<Vec<LayerId>, Error> {
        let mut ids = self.store.ids().map_err(|failure| failure.during("list", None))?;
        ids.retain(|id| id.as_str().starts_with(prefix));
        Ok(ids)
    }
}
