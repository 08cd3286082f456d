//! `create` and `remove`, which may write in `/layers`: what else they try there.

use std::ffi::{CString, c_char, c_int};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};

use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};

use crate::bindings::layerbox::driver::mounts::{self, Access, Branch};
use crate::bindings::layerbox::driver::{directories, references, types::Error, writer};
use crate::{Result, denied, must_fail, no_such_attack};

unsafe extern "C" {
    // Of wasi-libc. std has it as an unstable function only.
    fn symlink(target: *const c_char, name: *const c_char) -> c_int;
}

fn link(target: &str, name: &str) -> io::Result<()> {
    let (target, name) = (CString::new(target)?, CString::new(name)?);
    // SAFETY: both are strings that end in a zero, and outlive the call.
    match unsafe { symlink(target.as_ptr(), name.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A record that is no attack.
fn write_own(id: &str, text: &str) -> Result<()> {
    fs::write(format!("/layers/{id}"), text).map_err(denied)
}

pub(crate) fn create(id: &str) -> Result<()> {
    let own = format!("/layers/{id}");
    let other = "/layers/stranger";
    match id {
        // Wrong, but about this layer alone: the host must see it.
        "writes-wrong-ancestors" => {
            directories::make(id)?;
            write_own(id, "stranger\n")
        }
        "writes-no-record" => directories::make(id),
        "makes-no-directories" => write_own(id, "base\n"),
        "traps-half-way" => {
            directories::make(id)?;
            fs::write(format!("/layers/.{id}.tmp"), "half").map_err(denied)?;
            panic!("in the middle of it");
        }
        // Other layers.
        "writes-another-record" => Err(denied(must_fail(id, fs::write(other, "nonsense\n")))),
        "appends-to-another-record" => {
            Err(denied(must_fail(id, OpenOptions::new().append(true).open(other))))
        }
        "cuts-another-record" => {
            let file = File::open(other).map_err(denied)?;
            Err(denied(must_fail(id, file.set_len(0))))
        }
        "dates-another-record" => {
            let file = File::open(other).map_err(denied)?;
            Err(denied(must_fail(id, file.set_modified(std::time::SystemTime::UNIX_EPOCH))))
        }
        "removes-another-record" => Err(denied(must_fail(id, fs::remove_file(other)))),
        "renames-another-record" => Err(denied(must_fail(id, fs::rename(other, &own)))),
        "replaces-another-record" => {
            write_own(id, "")?;
            Err(denied(must_fail(id, fs::rename(&own, other))))
        }
        "links-another-record" => Err(denied(must_fail(id, fs::hard_link(other, &own)))),
        "makes-another-record" => Err(denied(must_fail(id, fs::write("/layers/new", "")))),
        "makes-a-directory" => Err(denied(must_fail(id, fs::create_dir(&own)))),
        "makes-a-link" => Err(denied(must_fail(id, link("stranger", &own)))),
        "makes-a-link-out" => Err(denied(must_fail(id, link("../lock", &own)))),
        "makes-another" => Err(must_fail(id, directories::make("new"))),
        "discards-another" => Err(must_fail(id, directories::discard("stranger"))),
        "fills-another" => Err(must_fail(id, writer::Writer::open("stranger"))),
        "unmounts-another" => Err(must_fail(id, mounts::unmount("stranger", true))),
        // Out of `layers/`.
        "opens-outside" => {
            let mut last = None;
            for path in [
                "/layers/../lock",
                "/layers/../../victim/hello",
                "/layers/../meta/stranger",
                "/layers/stranger/../../lock",
                "/layers//../lock",
                "../lock",
                "lock",
                "/lock",
                "/etc/passwd",
                "/proc/self/environ",
            ] {
                last = Some(must_fail(path, File::open(path)));
                must_fail(path, fs::write(path, "x"));
                must_fail(path, fs::read_dir(path));
            }
            Err(last.map(denied).unwrap_or(Error::Denied(String::new())))
        }
        // Placed there by the test: no component can make them.
        "follows-links" => {
            let mut last = None;
            for path in ["/layers/absolute", "/layers/relative", "/layers/directory/passwd"] {
                last = Some(must_fail(path, File::open(path)));
                must_fail(path, fs::write(path, "x"));
            }
            Err(last.map(denied).unwrap_or(Error::Denied(String::new())))
        }
        "looks-around" => {
            let (variables, arguments): (Vec<_>, Vec<_>) =
                (std::env::vars_os().collect(), std::env::args_os().collect());
            Err(Error::Denied(format!("variables {variables:?}, arguments {arguments:?}")))
        }
        "names-no-layer" => {
            let mut last = Error::Denied(String::new());
            for text in
                ["", ".", "..", "../x", "a/b", "/x", "a:b=rw", "a,upperdir=/", "a\nb", "a\0b", "x-removing"]
            {
                last = must_fail(text, directories::make(text));
                assert!(matches!(last, Error::InvalidId(_)), "{text:?}: {last:?}");
                must_fail(text, writer::Writer::open(text));
                must_fail(text, mounts::Branch::open(text, mounts::Access::ReadOnly));
            }
            Err(last)
        }
        "fills-the-disk" => {
            directories::make(id)?;
            let mut file = File::create(own).map_err(denied)?;
            loop {
                file.write_all(&[b'x'; 65536]).map_err(denied)?;
            }
        }
        "leaves-reads-to-other-threads" => {
            directories::make(id)?;
            write_own(id, &"x".repeat(60_000))?;
            let (layers, _) = preopens::get_directories().remove(0);
            let (flags, how) = (DescriptorFlags::READ | DescriptorFlags::WRITE, OpenFlags::empty());
            let file = layers.open_at(PathFlags::empty(), id, how, flags).expect("its own record");
            let open =
                || (file.read_via_stream(0).expect("a stream"), file.write_via_stream(0).expect("a stream"));
            let kept: Vec<_> = (0..1000).map(|_| open()).collect();
            for (input, output) in &kept {
                assert!(
                    input.read(60_000).is_ok_and(|bytes| !bytes.is_empty()),
                    "it worked: a read is put off"
                );
                output.write(b"x").expect("a byte");
                assert!(output.check_write().is_ok_and(|room| room > 0), "it worked: a write is put off");
            }
            Err(Error::Denied("all was done at once".to_owned()))
        }
        _ => crate::resources::spend(id),
    }
}

pub(crate) fn remove(id: &str) -> Result<()> {
    match id {
        "removes-nothing" => Ok(()),
        "removes-the-record-alone" => fs::remove_file(format!("/layers/{id}")).map_err(denied),
        "traps-after-discarding" => {
            directories::discard(id)?;
            panic!("in the middle of it");
        }
        "mounts-while-it-removes" => {
            must_fail("to write", Branch::open(id, Access::ReadWrite));
            must_fail("to read", Branch::open("base", Access::ReadOnly));
            must_fail("count", references::acquire(id));
            Err(must_fail("mount", mounts::mount(id, &[], None)))
        }
        "passes-over-users" => {
            must_fail("release", references::release(id));
            must_fail("clear", references::clear(id));
            must_fail("force", mounts::unmount(id, true));
            must_fail("unmount", mounts::unmount(id, false));
            Err(must_fail("discard", directories::discard(id)))
        }
        "leaves-half-a-record" => {
            fs::write(format!("/layers/.{id}.tmp"), [b'x'; 1 << 16]).map_err(denied)?;
            Err(Error::Conflict("it does not like it".to_owned()))
        }
        "removes-another-layer" => {
            must_fail(id, fs::remove_file("/layers/stranger"));
            Err(must_fail(id, directories::discard("stranger")))
        }
        _ => no_such_attack(id),
    }
}
