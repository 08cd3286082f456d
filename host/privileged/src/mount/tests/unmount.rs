//! Taking unions apart, whoever holds them.

use super::*;

#[test]
fn a_busy_union_names_its_holder_and_is_detached_by_force() {
    each_api("busy", |store| {
        let stack = store.stack(2);
        let (top, mnt) = (&stack[0], store.mnt(&stack[0]));
        store.unions.mount(top, &stack, None).unwrap();
        let mut child = Command::new("sleep").arg("60").current_dir(&mnt).spawn().unwrap();
        let file = fs::File::open(mnt.join("who")).unwrap();
        let outcome = store.unions.unmount(top, false);
        let Err(Error::Busy(text)) = &outcome else { panic!("{outcome:?}") };
        assert!(text.contains(&format!("process {} (sleep)", child.id())), "{text}");
        assert!(text.contains(&format!("process {} (", std::process::id())), "{text}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(store.unions.unmount(top, false), Err(Error::Busy(_))));
        assert!(store.unions.unmount(top, true).unwrap());
        assert!(!store.unions.mounted(top).unwrap());
        // Detached, not yet gone: the same layers can be mounted again.
        store.unions.mount(top, &stack, None).unwrap();
        drop(file);
        assert!(store.unions.unmount(top, false).unwrap());
    });
}

#[test]
fn a_union_that_is_let_go_in_time_is_unmounted() {
    each_api("patience", |store| {
        let stack = store.stack(2);
        store.unions.mount(&stack[0], &stack, None).unwrap();
        let file = fs::File::open(store.mnt(&stack[0]).join("who")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sleep(Duration::from_millis(50));
                drop(file);
            });
            assert!(store.unions.unmount(&stack[0], false).unwrap());
        });
    });
}

#[test]
fn a_mount_inside_a_union_is_named_as_its_holder() {
    each_api("inner", |store| {
        let stack = store.stack(2);
        let inner = store.mnt(&stack[0]).join("inner");
        store.unions.mount(&stack[0], &stack, None).unwrap();
        fs::create_dir(&inner).unwrap();
        nix::mount::mount(Some("none"), &inner, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
            .unwrap();
        let outcome = store.unions.unmount(&stack[0], false);
        assert!(matches!(&outcome, Err(Error::Busy(text)) if text.contains("a mount on")), "{outcome:?}");
        assert!(store.unions.unmount(&stack[0], true).unwrap());
    });
}

#[test]
fn mounts_on_top_of_each_other_all_go() {
    each_api("twice", |store| {
        let stack = store.stack(3);
        store.unions.mount(&stack[0], &stack, None).unwrap();
        assert!(matches!(store.unions.mount(&stack[0], &stack, None), Err(Error::Conflict(_))));
        for _ in 0..2 {
            let (mnt, flags) = (store.mnt(&stack[0]), nix::mount::MsFlags::empty());
            nix::mount::mount(Some("none"), &mnt, Some("tmpfs"), flags, None::<&str>).unwrap();
        }
        assert_eq!(store.unions.all().unwrap(), [id("l0")]);
        let outcome = store.unions.unmount(&stack[0], false);
        assert!(
            matches!(&outcome, Err(Error::Busy(text)) if text.contains("tmpfs is mounted over")),
            "{outcome:?}"
        );
        assert!(store.unions.unmount_all(&stack[0]).unwrap());
        assert!(!store.unions.mounted(&stack[0]).unwrap());
        assert!(store.unions.all().unwrap().is_empty());
        assert!(!store.unions.unmount(&stack[0], false).unwrap());
    });
}

#[test]
fn all_lists_the_mount_points_of_this_store_only() {
    each_api("all", |store| {
        let stack = store.stack(4);
        assert!(store.unions.all().unwrap().is_empty());
        for top in [2, 0] {
            store.unions.mount(&stack[top], &stack[top..], None).unwrap();
        }
        assert_eq!(store.unions.all().unwrap(), [id("l0"), id("l2")]);
        let other = Store::open("all-other", Backend::Overlay);
        assert!(other.unions.all().unwrap().is_empty());
    });
}
