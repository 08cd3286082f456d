//! What Landlock denies the threads that do not mount, where the kernel has it: it is asked on paths and not
//! on numbers of system calls, so it holds on ways that a filter of calls does not see.
//!
//! No path is closed to them: which stores there will be is not known when the service starts. What is closed
//! is what they never do anywhere: run a file, make a socket, command a device, speak TCP, signal or trace a
//! process of others; and with any Landlock domain comes that they cannot change what is mounted.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};

use crate::error::Failure;

/// Shuts the calling thread in, and those that it starts. A kernel that has less of Landlock does less; one
/// without it, nothing.
///
/// # Errors
///
/// The kernel has it and refuses.
pub(super) fn shut_in() -> Result<(), Failure> {
    let unsupported = |error: &dyn std::error::Error| Failure::Unsupported(format!("Landlock: {error}"));
    let root = PathFd::new("/").map_err(|error| unsupported(&error))?;
    restrict(root).map_err(|error| unsupported(&error))
}

fn restrict(root: PathFd) -> Result<(), RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::Execute | AccessFs::MakeSock | AccessFs::IoctlDev | AccessFs::Refer)?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::Signal)?
        .create()?
        // Moving a layer from stage/ to its place is from one directory to another, which Landlock denies
        // unless it is said.
        .add_rule(PathBeneath::new(root, AccessFs::Refer))?
        .restrict_self()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::thread;

    use landlock::LandlockStatus;
    use nix::errno::Errno;

    use super::*;
    use crate::skip::skip;

    /// In a thread, with which it ends.
    #[test]
    fn what_is_shut_in_runs_nothing_and_makes_no_socket_and_moves_files() {
        let own = thread::spawn(|| {
            let ruleset = Ruleset::default().handle_access(AccessFs::Execute)?.create()?;
            Ok::<_, RulesetError>(ruleset.restrict_self()?.landlock)
        });
        let status = own.join().expect("no panic").expect("a ruleset");
        if !matches!(status, LandlockStatus::Available { .. }) {
            return skip(&format!("Landlock is {status:?}"), false);
        }
        let directory = std::env::temp_dir().join(format!("layerbox-landlock.{}", std::process::id()));
        std::fs::create_dir_all(directory.join("a")).expect("mkdir");
        std::fs::write(directory.join("f"), "text").expect("write");
        let inside = directory.clone();
        let done = thread::spawn(move || {
            shut_in().expect("Landlock");
            std::fs::rename(inside.join("f"), inside.join("a/g")).expect("a move between directories");
            let run = Command::new("/bin/true").status().map(|_| ());
            let bound = UnixListener::bind(inside.join("s")).map(|_| ());
            [run, bound].map(|result| result.err().and_then(|error| error.raw_os_error()))
        });
        let codes = done.join().expect("no panic");
        std::fs::remove_dir_all(directory).expect("unlink");
        assert_eq!(codes, [Some(Errno::EACCES as i32); 2]);
    }
}
