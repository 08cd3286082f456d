//! What is chosen and reported, user namespaces, and aufs.

use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn a_store_of_a_backend_that_the_kernel_lacks_can_be_opened() {
    let store = Store::open("named", Backend::Aufs);
    if store.unions.available() {
        return skip("a_store_of_a_backend_that_the_kernel_lacks: this kernel has aufs", false);
    }
    let stack = store.stack(2);
    assert_eq!(store.unions.depth_limit(), 126);
    let outcome = store.unions.mount(&stack[0], &stack, None);
    match &outcome {
        Err(Error::Unsupported(text)) => assert_eq!(text, "this kernel has no aufs"),
        // Without the right to mount the kernel does not get as far.
        Err(Error::MountFailed { errno: 1, .. }) => assert!(!trusted_attributes().unwrap()),
        _ => panic!("{outcome:?}"),
    }
    let features = store.unions.features();
    for row in [("Dirperm1 Supported", "false"), ("Kernel Supports Mounting", "no")] {
        assert!(features.contains(&(row.0.to_owned(), row.1.to_owned())), "{features:?}");
    }
}

#[test]
fn a_store_whose_path_aufs_could_not_be_told_can_be_opened_and_not_mounted() {
    let dir = scratch("aufs-roots");
    for name in ["a:b", "a,b", "a=rw", "a\\b", "a\"b", "a\nb"] {
        for (root, runtime) in [("x", name), (name, "x")] {
            let layout = Layout { root: dir.join(root), runtime: dir.join(runtime) };
            fs::create_dir_all(&layout.root).unwrap();
            let unions = Unions::new(Backend::Aufs, layout).unwrap();
            assert_eq!(unions.all().unwrap(), [], "{name:?}");
            assert!(unions.depth_limit() > 0, "{name:?}");
            let stack = ["top", "base"].map(|id| LayerId::new(id).unwrap());
            let outcome = unions.mount(&stack[0], &stack, None);
            assert!(
                matches!(&outcome, Err(Error::Unsupported(why)) if why.contains("cannot be told")),
                "{name:?}: {outcome:?}"
            );
        }
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_backend_is_as_asked_or_as_the_kernel_has_it() {
    let overlay = if trusted_attributes().unwrap() { Backend::Overlay } else { Backend::OverlayUser };
    let auto = if listed("aufs").unwrap() { Backend::Aufs } else { overlay };
    for (choice, expected) in
        [(Choice::Auto, auto), (Choice::Aufs, Backend::Aufs), (Choice::Overlay, overlay)]
    {
        assert_eq!(Backend::detect(choice).unwrap(), expected, "{choice:?}");
    }
}

#[test]
fn the_backing_file_system_has_dockers_name() {
    for (path, expected) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/shm", "tmpfs")] {
        assert_eq!(filesystem_of(Path::new(path)).unwrap(), expected, "{path}");
    }
}

/// Runs [`user_namespace_body`] as root of a new user namespace.
#[test]
fn a_union_in_a_user_namespace() {
    let test = "mount::tests::backends::user_namespace_body";
    let inner = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LAYERBOX_TEST_USER_NAMESPACE", "1")
        .output();
    match inner {
        Err(_) => skip("a_union_in_a_user_namespace: no unshare program", true),
        Ok(output) if output.stderr.starts_with(b"unshare: ") => {
            skip(&format!("a_union_in_a_user_namespace: {}", output.stderr.escape_ascii()), false);
        }
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
    }
}

#[test]
fn user_namespace_body() {
    if std::env::var_os("LAYERBOX_TEST_USER_NAMESPACE").is_none() {
        return;
    }
    assert_eq!(Backend::detect(Choice::Overlay).unwrap(), Backend::OverlayUser);
    for new_api in [true, false] {
        let store = Store::open("user", Backend::OverlayUser);
        let _ = store.unions.new_api.set(new_api && overlay::has_new_api(&store.dir));
        let stack = store.stack(3);
        mount_and_use(&store, &stack);
        store.unions.mount(&stack[0], &stack, None).unwrap();
        let hidden = store.mnt(&stack[0]).join("in-l2");
        fs::remove_file(&hidden).unwrap();
        assert!(!hidden.exists());
        let mark = fs::symlink_metadata(store.diff(&stack[0]).join("in-l2")).unwrap();
        assert_eq!((mark.mode() & 0o170_000, mark.rdev()), (0o020_000, 0));
    }
}

/// The real thing, where the kernel has it: deep, read back, split over calls.
#[test]
fn aufs_unions_mount_in_order() {
    if !listed("aufs").unwrap() || !trusted_attributes().unwrap() {
        return skip(
            "AUFS: no aufs in /proc/filesystems (or no CAP_SYS_ADMIN), so NO AUFS MOUNT WAS TESTED",
            false,
        );
    }
    let store = Store::open("aufs", Backend::Aufs);
    let limit = store.unions.depth_limit() as usize;
    let stack = store.stack(limit + 2);
    for ancestors in [1, 2, 59, 60, 61, 119, 120, 121, limit] {
        mount_and_use(&store, &stack[limit + 1 - ancestors..]);
    }
    assert!(matches!(store.unions.mount(&stack[0], &stack, None), Err(Error::Unsupported(_))));
}
