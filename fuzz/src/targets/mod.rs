//! The targets, a module for each part that they are about.

pub(crate) mod apply;
pub(crate) mod archive;
pub(crate) mod imports;
pub(crate) mod metadata;
pub(crate) mod unpack;
