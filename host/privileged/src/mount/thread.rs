//! One thread that mounts, for a process whose other threads may not: the service gives up the right to mount
//! on all threads that run guest code.
//!
//! Work is handed over through a channel. Each piece of it gets a thread of its own, which inherits the
//! rights of that one: a file system that hangs holds up nobody else. Where no such thread was started the
//! caller does the work.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::Builder;

use crate::Error;

type Work = Box<dyn FnOnce() + Send>;

static HAND_OVER: OnceLock<Sender<Work>> = OnceLock::new();

/// Starts the thread, with the rights of the caller at this moment, less what `restrict` takes from it, and
/// waits until that is done. From then on whatever mounts in this process is done there.
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
