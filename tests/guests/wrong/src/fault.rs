//! Which fault this component has.

use std::hint::black_box;

/// The marker, and the word behind it, filled up with spaces. Tests look for the marker in the file and write
/// another word.
static PLACE: [u8; 64] = *b"layerbox-guest-wrong:fault=none                                 ";

/// The length of the marker.
const MARKER: usize = b"layerbox-guest-wrong:fault=".len();

/// What the component does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// `changes` sorts by the components of the path.
    ChangesSortedByComponents,
    /// `changes` compares with the parent alone, not with what it lies on.
    ChangesForgetTheGrandparent,
    /// `changes` does not see a change of the mode.
    ChangesIgnoreTheMode,
    /// `changes` compares times by whole seconds.
    ChangesBySeconds,
    /// `changes` takes the time of a directory for a change.
    ChangesCountDirectoryTimes,
    /// `changes` does not see a change of `security.capability`.
    ChangesIgnoreCapabilities,
    /// A put too many is an error.
    PutTooManyIsAnError,
    /// A put ends two gets.
    PutCountsTwice,
    /// A removal by force unmounts before it looks for children.
    RemoveUnmountsParents,
    /// The list of layers is in the wrong order.
    ListBackwards,
    /// The archive has groups of 16 bits.
    DiffCutsGroups,
    /// The archive has whole seconds.
    DiffCutsTimes,
    /// The archive has no extended attributes but `security.capability`.
    DiffDropsXattrs,
    /// The archive has no `security.capability`.
    DiffDropsCapabilities,
    /// The archive has each name of a regular file with its content.
    DiffForgetsHardLinks,
    /// The archive does not say that a directory below the root is opaque.
    DiffDropsOpaqueMarkers,
    /// The archive does not say that the root is opaque.
    DiffDropsTheOpaqueRoot,
    /// A file counts once for each of its names.
    SizeCountsHardLinksTwice,
    /// `.wh..wh.opq` on disk makes a directory opaque.
    TakesAnotherNameForOpaque,
    /// The checksum of a header is not looked at.
    IgnoresChecksums,
    /// A device 0:0 is applied.
    AppliesDeletionsAsDevices,
    /// An entry named `..` is taken for the root.
    AppliesDotDot,
    /// `create` of a layer whose id begins with `loops` never ends. No rule of the contract: for what a
    /// service does beside it.
    LoopsInCreate,
}

impl Fault {
    /// All, by the words that tests write.
    const WORDS: [(&str, Fault); 24] = [
        ("none", Fault::None),
        ("changes-sorted-by-components", Fault::ChangesSortedByComponents),
        ("changes-forget-the-grandparent", Fault::ChangesForgetTheGrandparent),
        ("changes-ignore-the-mode", Fault::ChangesIgnoreTheMode),
        ("changes-by-seconds", Fault::ChangesBySeconds),
        ("changes-count-directory-times", Fault::ChangesCountDirectoryTimes),
        ("changes-ignore-capabilities", Fault::ChangesIgnoreCapabilities),
        ("put-too-many-is-an-error", Fault::PutTooManyIsAnError),
        ("put-counts-twice", Fault::PutCountsTwice),
        ("remove-unmounts-parents", Fault::RemoveUnmountsParents),
        ("list-backwards", Fault::ListBackwards),
        ("diff-cuts-groups", Fault::DiffCutsGroups),
        ("diff-cuts-times", Fault::DiffCutsTimes),
        ("diff-drops-xattrs", Fault::DiffDropsXattrs),
        ("diff-drops-capabilities", Fault::DiffDropsCapabilities),
        ("diff-forgets-hard-links", Fault::DiffForgetsHardLinks),
        ("diff-drops-opaque-markers", Fault::DiffDropsOpaqueMarkers),
        ("diff-drops-the-opaque-root", Fault::DiffDropsTheOpaqueRoot),
        ("size-counts-hard-links-twice", Fault::SizeCountsHardLinksTwice),
        ("takes-another-name-for-opaque", Fault::TakesAnotherNameForOpaque),
        ("ignores-checksums", Fault::IgnoresChecksums),
        ("applies-deletions-as-devices", Fault::AppliesDeletionsAsDevices),
        ("applies-dot-dot", Fault::AppliesDotDot),
        ("loops-in-create", Fault::LoopsInCreate),
    ];

    /// The fault of this component. A word that stands for none ends the call, so that a misspelt test does
    /// not pass.
    pub(crate) fn own() -> Fault {
        // The compiler must not know what is there: it is written after it is done.
        let word = black_box(&PLACE)[MARKER..].trim_ascii_end();
        match Fault::WORDS.iter().find(|(name, _)| name.as_bytes() == word) {
            Some(&(_, fault)) => fault,
            None => panic!("there is no fault `{}`", word.escape_ascii()),
        }
    }
}
