//! Names of members: which are names, and their one normal form.

use super::Fault;

/// The longest component of a name in bytes: NAME_MAX of Linux.
const MAX_COMPONENT: usize = 255;

/// The most components of one name.
const MAX_COMPONENTS: usize = 4096;

/// Brings a name into its normal form: components joined by `/`, without leading, trailing or repeated
/// slashes, and without `.` components. `/`, `.` and `./` become the empty name, which is the root.
pub(super) fn normalize(raw: &[u8]) -> Result<Vec<u8>, Fault> {
    if raw.is_empty() {
        return Err(Fault::rule("empty name"));
    }
    let mut name = Vec::with_capacity(raw.len());
    let mut components = 0;
    for component in raw.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Fault::rule("`..` in a name")),
            _ if component.len() > MAX_COMPONENT => {
                return Err(Fault::rule("component of a name longer than 255 bytes"));
            }
            _ if component.contains(&0) => return Err(Fault::rule("NUL in a name")),
            _ => {}
        }
        components += 1;
        if components > MAX_COMPONENTS {
            return Err(Fault::limit(format!("components of a name ({MAX_COMPONENTS})")));
        }
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(component);
    }
    Ok(name)
}

/// Whether the way a name ends says that it is a directory: `a/`, `a/.`.
pub(super) fn says_directory(raw: &[u8]) -> bool {
    raw.ends_with(b"/") || raw.ends_with(b"/.") || raw == b"."
}
