//! Differences that become blobs, and blobs that are unpacked, beside an engine that is slow, full, or has
//! the blob already.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use layerbox_containerd::types::{Descriptor, Mount};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::Code;

use crate::blobs::{Blobs, Manner, REFUSAL};
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::service::eventually;
use crate::snapshotter::{Mounted, Snapshotter, refused, serve, serve_with};

use super::record::findings;

/// The label of a packed blob that says what it is unpacked.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

type Body = fn(&Place) -> Result<()>;

pub(super) fn cases() -> Vec<Case> {
    let rows: [(&str, Body); 10] = [
        ("two differences of one layer at once are two writings", at_once),
        ("a difference that fails ends its own writing, and none under its client's name", ended),
        ("what an archive has that breaks off is no blob", broken),
        ("why the engine takes no blob is told", not_taken),
        ("a blob that the engine has already is kept and labelled like a new one", had),
        ("a blob that comes drop by drop is given up at the deadline", dripping),
        ("why the engine does not give a blob is told with the engine's own code", not_given),
        ("a committed snapshot and a view are not filled", committed),
        ("the difference of a snapshot to nothing is all that it shows", to_nothing),
        ("a check beside a difference to nothing finds nothing", checked),
    ];
    let overlay = |(name, body)| case(format!("blobs: {name}"), body).needs(Need::Filesystem("overlay"));
    rows.into_iter().map(overlay).collect()
}

/// A snapshot on another, with something in it, and what is asked to have its difference.
fn changed(place: &Place, s: &Snapshotter) -> Result<DiffRequest> {
    s.layer(place, "one", "", |at| Ok(fs::write(at.join("f"), "1")?))?;
    let mounted = Mounted::new(place, &s.prepare("two", "one")?)?;
    // More than a pipe and a few messages hold, and nothing that packing makes smaller.
    fs::write(mounted.path().join("g"), shuffled(12 << 20))?;
    mounted.end()?;
    Ok(DiffRequest { left: s.view("below", "one")?, right: s.mounts("two")?, ..DiffRequest::default() })
}

/// Bytes without an order (xorshift).
fn shuffled(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect()
}

fn at_once(place: &Place) -> Result<()> {
    let service = serve(place)?;
    let blobs = Blobs::start(place, Manner::Takes)?;
    let s = Snapshotter::connect(place)?;
    let request = changed(place, &s)?;
    let both = std::thread::scope(|scope| {
        let other = scope.spawn(|| s.beside("layerbox", Some("test")).map(|s| s.diff(request.clone())));
        let one = s.diff(request.clone());
        other.join().ok().context("a panic")?.map(|other| [one, other])
    })?;
    let [one, other] = both.map(|answer| answer.map(|blob| blob.digest));
    let asked = blobs.asked();
    ensure!(one.as_ref().ok() == other.as_ref().ok(), "{one:?} {other:?} {asked:?}\n{}", service.log()?);
    let digest = one?;
    ensure!(digest.starts_with("sha256:"), "{digest}");
    ensure!(asked.begun.len() == 2 && asked.begun[0] != asked.begun[1], "{asked:?}");
    ensure!(asked.committed.len() == 2 && asked.aborted.is_empty(), "{asked:?}");
    Ok(())
}

fn ended(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let blobs = Blobs::start(place, Manner::Refuses)?;
    let s = Snapshotter::connect(place)?;
    let request = changed(place, &s)?;
    ensure!(s.diff(DiffRequest { r#ref: "a-client's".to_owned(), ..request.clone() }).is_err());
    ensure!(blobs.asked().begun == ["a-client's"] && blobs.asked().aborted.is_empty(), "{blobs:?}");
    ensure!(s.diff(request).is_err());
    let asked = blobs.asked();
    ensure!(asked.aborted.len() == 1 && asked.begun[1..] == asked.aborted, "{asked:?}");
    Ok(())
}

fn broken(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let blobs = Blobs::start(place, Manner::Takes)?;
    let s = Snapshotter::connect(place)?;
    let request = changed(place, &s)?;
    // Behind what is read first something that no layer holds: another file system.
    let upper = request.right[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
    let at = std::path::Path::new(upper.context("no upper directory")?).join("z");
    fs::create_dir(&at)?;
    mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let answer = s.diff(request.clone());
    umount2(&at, MntFlags::MNT_DETACH)?;
    let asked = blobs.asked();
    ensure!(answer.is_err() && asked.committed.is_empty(), "{answer:?} {asked:?}");
    ensure!(asked.begun.len() == 1 && asked.aborted == asked.begun, "{asked:?}");
    drop(asked);
    s.diff(request)?;
    ensure!(blobs.asked().committed.len() == 1, "{:?}", blobs.asked());
    Ok(())
}

fn not_taken(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let _blobs = Blobs::start(place, Manner::Refuses)?;
    let s = Snapshotter::connect(place)?;
    let answer = s.diff(changed(place, &s)?);
    let said = answer.as_ref().err().map(|status| status.message().to_owned()).unwrap_or_default();
    ensure!(said.contains(REFUSAL), "{answer:?}");
    Ok(())
}

fn had(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let blobs = Blobs::start(place, Manner::HasIt)?;
    let s = Snapshotter::connect(place)?;
    let request = changed(place, &s)?;
    let packed = s.diff(request.clone())?;
    {
        let asked = blobs.asked();
        ensure!(asked.kept == [("a-lease".to_owned(), packed.digest.clone())], "{asked:?}");
        let [(digest, fields, labels)] = &asked.updated[..] else {
            anyhow::bail!("{asked:?}");
        };
        ensure!(*digest == packed.digest && fields[..] == [format!("labels.{UNCOMPRESSED}")], "{asked:?}");
        ensure!(labels.len() == 1 && labels[UNCOMPRESSED].starts_with("sha256:"), "{asked:?}");
        ensure!(labels[UNCOMPRESSED] != packed.digest && asked.aborted.is_empty(), "{asked:?}");
    }
    // One that is not packed has no such label.
    let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
    let plain = s.diff(DiffRequest { media_type, ..request })?;
    let asked = blobs.asked();
    ensure!(
        asked.kept[1..] == [("a-lease".to_owned(), plain.digest)] && asked.updated.len() == 1,
        "{asked:?}"
    );
    Ok(())
}

fn dripping(place: &Place) -> Result<()> {
    let _service = serve_with(place, &["--transfer-deadline", "1s", "--stall-timeout", "60s"])?;
    let _blobs = Blobs::start(place, Manner::Takes)?;
    let s = Snapshotter::connect(place)?;
    let mounts: Vec<Mount> = s.prepare("one", "")?;
    let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
    let digest = format!("sha256:{:064}", 1);
    let diff = Some(Descriptor { media_type, digest, ..Descriptor::default() });
    let started = Instant::now();
    let answer = s.apply(ApplyRequest { diff, mounts, ..ApplyRequest::default() });
    refused(answer, Code::DeadlineExceeded, "a blob without an end")?;
    ensure!(started.elapsed() < Duration::from_secs(20), "after {:?}", started.elapsed());
    Ok(())
}

fn not_given(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    let mounts = s.prepare("one", "")?;
    let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
    for (said, expected) in [
        (Code::NotFound, Code::NotFound),
        (Code::InvalidArgument, Code::InvalidArgument),
        (Code::Unavailable, Code::Unavailable),
        // From a differ it means that another one is to be asked.
        (Code::Unimplemented, Code::Unknown),
    ] {
        let blobs = Blobs::start(place, Manner::Lacks(said))?;
        let digest = format!("sha256:{:064}", 1);
        let diff = Some(Descriptor { media_type: media_type.clone(), digest, ..Descriptor::default() });
        let answer = s.apply(ApplyRequest { diff, mounts: mounts.clone(), ..ApplyRequest::default() });
        let told = answer.as_ref().err().is_some_and(|status| status.message().contains(REFUSAL));
        ensure!(told, "{said:?}: {answer:?}");
        refused(answer, expected, "a blob that is not given")?;
        drop(blobs);
        fs::remove_file(place.join("engine.sock"))?;
    }
    Ok(())
}

fn to_nothing(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let _blobs = Blobs::start(place, Manner::Takes)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "one", "", |at| {
        fs::write(at.join("kept"), "1")?;
        Ok(fs::write(at.join("gone"), "1")?)
    })?;
    s.layer(place, "two", "one", |at| {
        fs::write(at.join("new"), "2")?;
        Ok(fs::remove_file(at.join("gone"))?)
    })?;
    // What "two" shows, in one layer.
    s.layer(place, "same", "", |at| {
        fs::write(at.join("kept"), "1")?;
        Ok(fs::write(at.join("new"), "2")?)
    })?;
    let layers = || layerbox_tests::tree::names(&place.join("root/diff"));
    let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
    let diff = |left: Vec<Mount>, right: Vec<Mount>| {
        s.diff(DiffRequest { left, right, media_type: media_type.clone(), ..DiffRequest::default() })
    };
    let nothing = s.view("nothing", "")?;
    for name in ["one", "two", "same"] {
        let right = s.view(&format!("view-{name}"), name)?;
        let before = layers()?;
        let (to_none, to_empty) = (diff(vec![], right.clone())?, diff(nothing.clone(), right)?);
        ensure!(to_none.digest == to_empty.digest, "{name}: {to_none:?}, and {to_empty:?}");
        ensure!(to_none.size > 1024, "{name}: nothing is in it");
        ensure!(layers()? == before, "{name}: {:?} instead of {before:?}", layers()?);
    }
    // The times of the files differ, and no length does.
    let size = |key: &str| Ok::<_, anyhow::Error>(diff(vec![], s.mounts(key)?)?.size);
    ensure!(size("view-two")? == size("view-same")?, "it is not all of the two layers");
    let active = s.prepare("active", "two")?;
    ensure!(diff(vec![], active)?.size == size("view-two")?, "of an active one");
    refused(diff(nothing, vec![]), Code::Unimplemented, "of nothing")
}

fn checked(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let blobs = Blobs::start(place, Manner::TakesLater)?;
    let s = Snapshotter::connect(place)?;
    let request = DiffRequest { left: vec![], ..changed(place, &s)? };
    std::thread::scope(|scope| {
        let written = scope.spawn(|| s.diff(request));
        let found = eventually("it is written", || Ok(!blobs.asked().begun.is_empty()))
            .and_then(|()| Ok([findings(place, &[])?, findings(place, &["--repair"])?]));
        blobs.asked().may_take = true;
        written.join().ok().context("a panic")??;
        let found = found?;
        ensure!(found.concat().is_empty(), "{found:?}");
        Ok(())
    })
}

/// Whoever has kept the mounts of a snapshot that was active.
fn committed(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    let blob = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest: format!("sha256:{}", "0".repeat(64)),
        size: 1024,
        ..Descriptor::default()
    };
    let apply = |mounts: Vec<Mount>| {
        s.apply(ApplyRequest { diff: Some(blob.clone()), mounts, ..ApplyRequest::default() })
    };
    let lowest = s.prepare("a", "")?;
    s.commit("lowest", "a")?;
    let upper = s.prepare("b", "lowest")?;
    s.commit("upper", "b")?;
    let view = s.view("v", "")?;
    let writable = view.into_iter().map(|mount| Mount {
        options: mount
            .options
            .into_iter()
            .map(|option| if option == "ro" { "rw".to_owned() } else { option })
            .collect(),
        ..mount
    });
    for (what, mounts) in [("the lowest", lowest), ("another", upper), ("a view", writable.collect())] {
        refused(apply(mounts), Code::FailedPrecondition, what)?;
    }
    Ok(())
}
