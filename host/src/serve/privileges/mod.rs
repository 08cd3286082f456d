//! What the service gives up when it starts: capabilities, new privileges, system calls.
//!
//! All of it is done before there is a second thread, and threads inherit it. One is started in between: the
//! thread that mounts ([`layerbox_privileged::mount::thread`]). It keeps the capabilities of `MOUNTING` and
//! is denied what no mount needs; every other thread, and so each one that runs guest code, keeps those of
//! `WORKING` and is allowed what `seccomp::working` lists, in which nothing mounts, and no program is
//! started.
//!
//! Threads share their memory. This is a second wall behind the sandbox, not one that holds whoever runs code
//! of their own in the process.

mod landlock;
mod seccomp;

use layerbox_privileged::mount::thread;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::error::Failure;

/// What every thread keeps: layers are filled with the owners, modes, devices and attributes that archives
/// give them.
const WORKING: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    // `trusted.*` attributes, overlayfs' marks of opaque directories among them, can be written and seen with
    // nothing less (xattr(7)).
    .union(CapabilitySet::SYS_ADMIN);

/// What the thread that mounts keeps: overlayfs does with the capabilities of whoever mounted what containers
/// do in a union, so those of [`WORKING`], and
const MOUNTING: CapabilitySet = WORKING
    // for `chattr +i` and `+a`, by whoever may do that in a container;
    .union(CapabilitySet::LINUX_IMMUTABLE)
    // for the namespace of an engine, and for who holds a busy union (`/proc/PID/ns`, `/proc/PID/fd`:
    // ptrace(2), PTRACE_MODE_READ).
    .union(CapabilitySet::SYS_PTRACE);

/// Gives up what the service does not use, and starts the thread that mounts. Called once, before there is
/// any other thread.
///
/// # Errors
///
/// The kernel refuses; a service that keeps more than it says must not start.
pub fn reduce() -> Result<(), Failure> {
    let failed = |operation: &'static str| move |errno: Errno| Failure::io(operation, &errno.into());
    for capability in CapabilitySet::all().difference(MOUNTING).iter() {
        match remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it; or somebody has taken away the right to do this, and then
            // no_new_privs, which follows, has to do.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(errno) => return Err(failed("prctl")(errno)),
        }
    }
    match clear_ambient_capability_set() {
        // Linux before 4.3 has none.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(failed("prctl")(errno)),
    }
    keep(MOUNTING).map_err(failed("capset"))?;
    set_no_new_privs(true).map_err(failed("prctl"))?;
    thread::start(seccomp::mounting).map_err(|e| Failure::io("seccomp", &e))?;
    keep(WORKING).map_err(failed("capset"))?;
    landlock::shut_in()?;
    seccomp::working().map_err(|e| Failure::io("seccomp", &e))
}

/// Keeps these capabilities of those that the thread has, and hands none on to other programs.
fn keep(set: CapabilitySet) -> Result<(), Errno> {
    let permitted = capabilities(None)?.permitted.intersection(set);
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}
