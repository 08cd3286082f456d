//! Extended attributes that are no content of a layer.
//!
//! Besides those of overlayfs these are the labels that a security module of the host gives to every file:
//! which one a file has is decided by the host's policy, or by its key, and not by who packed the layer. An
//! SELinux host shows one on each file, so in an archive they would make the same layer other bytes on
//! another host. They are neither written nor, as in Podman, taken from archives.

use crate::host::Xattr;
use crate::whiteout;

/// Whether an attribute is a label of the host: that of SELinux, those of Smack, and the seal of the kernel
/// over a file's attributes (EVM), which holds for one inode of one machine. `security.ima` is about the
/// file's content, and so content.
pub fn is_of_the_host(name: &[u8]) -> bool {
    matches!(name, b"security.selinux" | b"security.evm") || name.starts_with(b"security.SMACK64")
}

/// The attributes that are content.
pub fn content(xattrs: &[Xattr]) -> impl Iterator<Item = &Xattr> {
    xattrs.iter().filter(|xattr| !whiteout::is_overlay_attribute(&xattr.name) && !is_of_the_host(&xattr.name))
}
