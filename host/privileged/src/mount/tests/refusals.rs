//! What must not be mounted, and what a mount must not show.

use std::os::unix::fs::symlink;

use rustix::fs::{XattrFlags, setxattr};

use super::*;

#[test]
fn what_is_no_stack_is_refused_before_anything_is_mounted() {
    let store = Store::open("stacks", Backend::Overlay);
    let deep: Vec<LayerId> = (0..501).map(|number| id(&format!("l{number}"))).collect();
    let [a, b, c] = [&deep[0], &deep[1], &deep[2]].map(Clone::clone);
    let invalid = |outcome: &Result<(), Error>| matches!(outcome, Err(Error::InvalidArgument(_)));
    let unsupported = |outcome: &Result<(), Error>| matches!(outcome, Err(Error::Unsupported(_)));
    type Row<'a> = (&'a str, Vec<LayerId>, Option<&'a str>, &'a dyn Fn(&Result<(), Error>) -> bool);
    let long = "x".repeat(256);
    let two = vec![a.clone(), b.clone()];
    let rows: Vec<Row> = vec![
        ("no branch", vec![], None, &invalid),
        ("no ancestor", vec![a.clone()], None, &invalid),
        ("another layer first", vec![b.clone(), c.clone()], None, &invalid),
        ("itself below", vec![a.clone(), b.clone(), a.clone()], None, &invalid),
        ("an ancestor twice", vec![a.clone(), b.clone(), c, b], None, &invalid),
        ("500 ancestors", deep, None, &unsupported),
        ("label with a quote", two.clone(), Some("a\",upperdir=/"), &invalid),
        ("label with a newline", two.clone(), Some("a\nb"), &invalid),
        ("label with a backslash", two.clone(), Some("a\\"), &invalid),
        ("label too long", two, Some(&long), &invalid),
    ];
    for (name, branches, label, expected) in rows {
        let outcome = store.unions.mount(&a, &branches, label);
        assert!(expected(&outcome), "{name}: {outcome:?}");
    }
    assert!(!store.unions.mounted(&a).unwrap());
}

#[test]
fn a_layer_that_is_no_directory_is_named() {
    each_api("directories", |store| {
        let stack = store.stack(4);
        let outside = store.dir.join("outside");
        fs::create_dir(&outside).unwrap();
        for layer in [0, 1, 3] {
            for kind in ["missing", "link", "file"] {
                let path = store.diff(&stack[layer]);
                fs::rename(&path, store.dir.join("aside")).unwrap();
                match kind {
                    "link" => symlink(&outside, &path).unwrap(),
                    "file" => fs::write(&path, "").unwrap(),
                    _ => {}
                }
                let outcome = store.unions.mount(&stack[0], &stack, None);
                let Err(Error::MountFailed { layer: Some(named), .. }) = outcome else {
                    panic!("{outcome:?}")
                };
                assert_eq!(named, stack[layer], "{kind}");
                let _ = fs::remove_file(&path);
                fs::rename(store.dir.join("aside"), &path).unwrap();
            }
        }
        for folder in ["diff", "mnt", "work"] {
            let (path, aside) = (store.unions.layout.root.join(folder), store.dir.join("aside"));
            fs::rename(&path, &aside).unwrap();
            symlink(&aside, &path).unwrap();
            let outcome = store.unions.mount(&stack[0], &stack, None);
            assert!(matches!(outcome, Err(Error::MountFailed { .. })), "{folder}: {outcome:?}");
            fs::remove_file(&path).unwrap();
            fs::rename(&aside, &path).unwrap();
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        fs::remove_dir(store.mnt(&stack[0])).unwrap();
        assert!(!store.unions.mounted(&stack[0]).unwrap());
        assert!(matches!(store.unions.mount(&stack[0], &stack, None), Err(Error::MountFailed { .. })));
    });
}

#[test]
fn a_file_system_that_cannot_be_a_branch_is_named() {
    each_api("blame", |store| {
        let stack = store.stack(4);
        let lower = &stack[2..];
        store.unions.mount(&lower[0], lower, None).unwrap();
        // The writable branch on another union.
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(
            Some(&store.mnt(&lower[0])),
            &store.diff(&stack[0]),
            None::<&str>,
            bind,
            None::<&str>,
        )
        .unwrap();
        let outcome = store.unions.mount(&stack[0], &stack, None);
        umount2(&store.diff(&stack[0]), MntFlags::empty()).unwrap();
        let Err(Error::MountFailed { layer, filesystem, errno, .. }) = &outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            (layer.as_ref(), filesystem.as_deref(), *errno),
            (Some(&stack[0]), Some("overlayfs"), 22),
            "{outcome:?}"
        );
        assert!(!store.unions.mounted(&stack[0]).unwrap());
    });
}

/// Attributes that a layer may hold if it came in by another way than an archive: they must not open other
/// layers.
#[test]
fn hostile_attributes_of_a_layer_lead_nowhere() {
    each_api("hostile", |store| {
        let stack = store.stack(4);
        let [top, hostile, middle, base] = [0, 1, 2, 3].map(|number| store.diff(&stack[number]));
        for victim in [&base, &middle] {
            fs::create_dir(victim.join("secret")).unwrap();
            fs::write(victim.join("secret/key"), "SECRET").unwrap();
        }
        let set = |path: &Path, name: &str, value: &[u8]| {
            setxattr(path, format!("trusted.overlay.{name}"), value, XattrFlags::empty()).unwrap();
        };
        for layer in [&top, &hostile] {
            for target in ["/secret", "secret", "../secret", "/../../base/secret", "/"] {
                let name = target.replace(['/', '.'], "_");
                let (dir, file) = (layer.join(format!("d{name}")), layer.join(format!("f{name}")));
                fs::create_dir(&dir).unwrap();
                set(&dir, "redirect", target.as_bytes());
                fs::write(&file, "").unwrap();
                fs::File::options().write(true).open(&file).unwrap().set_len(6).unwrap();
                set(&file, "metacopy", b"");
                set(&file, "redirect", format!("{}/key", target.trim_end_matches('/')).as_bytes());
            }
        }
        store.unions.mount(&stack[0], &stack, None).unwrap();
        let mnt = store.mnt(&stack[0]);
        for entry in fs::read_dir(&mnt).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let seen = match name.as_bytes()[0] {
                b'd' => fs::read(path.join("key")).or_else(|_| fs::read(path.join("secret/key"))),
                b'f' => fs::read(&path),
                _ => continue,
            };
            assert_ne!(seen.ok().as_deref(), Some(&b"SECRET"[..]), "{name}");
        }
        assert_eq!(fs::read(mnt.join("secret/key")).unwrap(), b"SECRET");
        // No new marks of the kind come up either.
        assert_eq!(fs::rename(mnt.join("secret"), mnt.join("moved")).unwrap_err().raw_os_error(), Some(18));
    });
}
