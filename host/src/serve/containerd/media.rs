//! The media types of layers: OCI's and Docker's.

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// What an unpacked layer is.
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer of a media type is packed; none for what is no such layer (encrypted, or something else
/// altogether). What it really is, the component sees for itself.
pub(super) fn packing(media_type: &str) -> Option<Packing> {
    const OCI: [&str; 2] = [LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar"];
    const DOCKER: [&str; 2] = [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let rest = |types: [&str; 2]| types.into_iter().find_map(|base| media_type.strip_prefix(base));
    match rest(OCI).or_else(|| rest(DOCKER))? {
        "" => Some(Packing::Plain),
        "+gzip" | ".gzip" => Some(Packing::Gzip),
        "+zstd" | ".zstd" => Some(Packing::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers() {
        for (media_type, expected) in [
            (LAYER, Some(Packing::Plain)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Packing::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Packing::Zstd)),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Packing::Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Packing::Gzip)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Packing::Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar", Some(Packing::Plain)),
            ("application/vnd.oci.image.config.v1+json", None),
            ("", None),
        ] {
            assert_eq!(packing(media_type), expected, "{media_type}");
        }
    }
}
