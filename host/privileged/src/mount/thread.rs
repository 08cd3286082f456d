//! One thread that mounts, for a process whose other threads may not: the service gives up the right to mount on all threads that run guest code.
//!
//! Work is handed over through a channel. Each piece of it gets a thread of its own, which inherits the rights of that
//! one: a file system that hangs holds up nobody else. Where no such thread was started the caller does the work.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::Builder;

use super::Unions;
use crate::{Error, LayerId};

type Work = Box<dyn FnOnce() + Send>;

static HAND_OVER: OnceLock<Sender<Work>> = OnceLock::new();

/// Starts the thread, with the rights of the caller at this moment, less what `restrict` takes from it, and waits until that is done. From then on
/// whatever mounts in this process is done there.
///
/// # Errors
///
/// It does not start, or `restrict` fails.
pub fn start(restrict: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let (sender, work) = channel::<Work>();
    let (told, ready) = channel();
    Builder::new().name("mount".to_owned()).spawn(move || {
        let restricted = restrict();
        let stop = restricted.is_err();
        // Whoever waits for it is there.
        let _ = told.send(restricted);
        if stop {
            return;
        }
        for work in work {
            // Work that gets no thread is dropped, and its caller told so by the end of its channel.
            let _ = Builder::new().name("mounting".to_owned()).spawn(work);
        }
    })?;
    ready.recv().map_err(|_| io::Error::other("the thread that mounts ended"))??;
    // A second start is a second thread that is never given anything; it ends here.
    let _ = HAND_OVER.set(sender);
    Ok(())
}

/// Does what needs the rights of the thread that mounts.
///
/// # Errors
///
/// [`Error::Io`] where there can be no thread for it.
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let Some(sender) = HAND_OVER.get() else { return Ok(work()) };
    let (answer, result) = channel();
    let no_thread = |_| Error::io("clone")(io::Error::from_raw_os_error(nix::libc::EAGAIN));
    sender.send(Box::new(move || drop(answer.send(work())))).map_err(|_| no_thread(()))?;
    result.recv().map_err(|_| no_thread(()))
}

impl Unions {
    /// Mounts `branches`, uppermost first, on the mount point of `id`, and reads back what the kernel mounted. The
    /// first is `id` itself and takes the changes. `label` is an SELinux mount label (empty is none).
    ///
    /// Fails with [`Error::InvalidArgument`] for a list that is not such a stack or a malformed label,
    /// [`Error::Unsupported`] for one too deep, a kernel without the file system or a store whose path that one cannot
    /// be told ([`Backend::can_name`](super::Backend::can_name)), [`Error::Conflict`] where something is mounted already, and [`Error::MountFailed`] otherwise, naming the layer and the file system to
    /// blame where they can be told. Nothing stays mounted after an error.
    pub fn mount(&self, id: &LayerId, branches: &[LayerId], label: Option<&str>) -> Result<(), Error> {
        let (unions, id, branches) = (self.clone(), id.clone(), branches.to_vec());
        let label = label.map(str::to_owned);
        run(move || unions.mount_here(&id, &branches, label.as_deref()))?
    }

    /// Unmounts all that is mounted on the mount point of `id` (twice the same, if a crash came between); false when
    /// nothing was. A busy union is waited for (about 200 ms), then detached if `force`, else [`Error::Busy`] with
    /// the processes that hold it. What keeps hard links of an aufs union from being made is an error unless `force`.
    pub fn unmount(&self, id: &LayerId, force: bool) -> Result<bool, Error> {
        let (unions, id) = (self.clone(), id.clone());
        run(move || unions.unmount_here(&id, force))?
    }
}
