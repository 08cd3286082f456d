//! Packed archives, told apart by their first bytes.

use super::{Case, Context, Outcome, Scope, case, diff_is};
use crate::check::fails;
use crate::random::Random;
use crate::subject::Dialect;
use crate::tar::{Entry, archive, gzip, zstd};

/// What `gzip -9` and `zstd -19` made of [`packed`]: with the compressed blocks that the suite itself cannot
/// write.
const GZIP: &[u8] = include_bytes!("../../fixtures/packed.tar.gz");
const ZSTD: &[u8] = include_bytes!("../../fixtures/packed.tar.zst");

pub(super) fn cases() -> Vec<Case> {
    use Scope::Across;
    vec![
        case(Across, "archive/reads-gzip", "stored and compressed blocks", reads_gzip),
        case(Across, "archive/reads-gzip-of-several-members", "as one stream", members),
        case(Across, "archive/reads-zstd", "raw and compressed blocks", reads_zstd),
        case(Across, "archive/reads-zstd-of-several-frames", "as one stream", frames),
        case(Across, "hostile/packed-and-cut", "refused, wherever it is cut", cut),
        case(Across, "hostile/gzip-with-a-wrong-checksum", "refused", wrong_checksum),
    ]
}

/// What the packed archives hold.
fn packed() -> Vec<Entry> {
    // Letters of different frequencies: what Huffman codes are for.
    let mut random = Random::new(1);
    let text: Vec<u8> = (0..3000).map(|_| b"eeeeeetttttaaaaoooiiinnsshhrrdlu"[random.below(32)]).collect();
    vec![
        Entry::directory("d"),
        Entry::file("d/text", text),
        Entry::file("d/zeros", vec![0; 100_000]),
        Entry::symlink("l", "d/text"),
    ]
}

/// Applies bytes, and fails where they do not make what [`packed`] says.
fn applies(context: &Context<'_>, bytes: &[u8]) -> Outcome {
    let store = context.quick()?;
    store.create("a", None)?;
    store.apply("a", None, bytes)?;
    diff_is(store.as_ref(), "a", &packed())
}

fn reads_gzip(context: &Context<'_>) -> Outcome {
    applies(context, &gzip(&archive(&packed())))?;
    applies(context, GZIP)
}

fn reads_zstd(context: &Context<'_>) -> Outcome {
    applies(context, &zstd(&archive(&packed())))?;
    applies(context, ZSTD)
}

fn members(context: &Context<'_>) -> Outcome {
    let plain = archive(&packed());
    let bytes: Vec<u8> = plain.chunks(10_007).flat_map(gzip).collect();
    applies(context, &bytes)
}

fn frames(context: &Context<'_>) -> Outcome {
    let plain = archive(&packed());
    let bytes: Vec<u8> = plain.chunks(10_007).flat_map(zstd).collect();
    applies(context, &bytes)
}

fn cut(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Overlay)?;
    store.create("a", None)?;
    for (what, whole) in
        [("gzip", gzip(&archive(&packed()))), ("gzip -9", GZIP.to_vec()), ("zstd", zstd(&archive(&packed())))]
    {
        for length in [20, whole.len() / 2, whole.len() - 5, whole.len() - 1] {
            fails(&format!("{what} of {length} bytes"), store.apply("a", None, &whole[..length]), "refused")?;
        }
    }
    store.apply("a", None, GZIP)?;
    diff_is(store.as_ref(), "a", &packed())
}

fn wrong_checksum(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Overlay)?;
    store.create("a", None)?;
    for mut bytes in [gzip(&archive(&packed())), GZIP.to_vec()] {
        let at = bytes.len() - 8;
        bytes[at] ^= 1;
        fails("apply", store.apply("a", None, &bytes), "refused")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    /// `LAYERBOX_FIXTURE=FILE cargo test` writes the archive that the fixtures are made of.
    #[test]
    fn the_packed_archive_can_be_had() {
        let bytes = crate::tar::archive(&super::packed());
        assert!(crate::tar::read(&bytes).is_ok());
        if let Some(file) = std::env::var_os("LAYERBOX_FIXTURE") {
            std::fs::write(file, bytes).unwrap();
        }
    }
}
