//! Real mounts in a temporary directory; skipped, and saying so, without the right to mount.

mod backends;
mod refusals;
mod unmount;

use std::process::Command;

use super::backend::trusted_attributes;
use super::*;
use crate::skip::skip;

/// A store with its unions, unmounted and removed at the end.
struct Store {
    dir: PathBuf,
    unions: Unions,
}

impl Store {
    fn open(name: &str, backend: Backend) -> Store {
        let dir = scratch(name);
        let layout = Layout { root: dir.join("root"), runtime: dir.join("run") };
        for folder in ["diff", "mnt", "work"] {
            fs::create_dir_all(layout.root.join(folder)).unwrap();
        }
        Store { dir, unions: Unions::new(backend, layout).unwrap() }
    }

    /// `count` layers `l0`, `l1`, ... as a stack, uppermost first; each says its number in `who` and has a
    /// file `in-ID`.
    fn stack(&self, count: usize) -> Vec<LayerId> {
        let stack: Vec<LayerId> = (0..count).map(|number| id(&format!("l{number}"))).collect();
        for (number, layer) in stack.iter().enumerate() {
            for folder in ["diff", "mnt", "work"] {
                fs::create_dir_all(self.unions.path(folder, layer)).unwrap();
            }
            fs::write(self.diff(layer).join("who"), number.to_string()).unwrap();
            fs::write(self.diff(layer).join(format!("in-{layer}")), "").unwrap();
        }
        stack
    }

    fn diff(&self, layer: &LayerId) -> PathBuf {
        self.unions.path("diff", layer)
    }

    fn mnt(&self, layer: &LayerId) -> PathBuf {
        self.unions.path("mnt", layer)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for layer in self.unions.all().unwrap() {
            self.unions.unmount(&layer, true).unwrap();
        }
        // A name may have several components; two stores of a test may share one.
        let base = std::env::temp_dir().join("mounts-test");
        if let Some(first) = self.dir.strip_prefix(&base).ok().and_then(|name| name.iter().next()) {
            let _ = fs::remove_dir_all(base.join(first));
        }
    }
}

fn id(name: &str) -> LayerId {
    LayerId::new(name).unwrap()
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mounts-test/{}-{name}", std::process::id()))
}

fn may_mount(test: &str) -> bool {
    let may = trusted_attributes().unwrap() && listed("overlay").unwrap();
    if !may {
        skip(&format!("{test}: real overlay mounts need CAP_SYS_ADMIN and a kernel with overlay"), false);
    }
    may
}

/// Runs a case with each way to mount.
fn each_api(test: &str, case: impl Fn(Store)) {
    if !may_mount(test) {
        return;
    }
    let new = Store::open(&format!("{test}-new"), Backend::Overlay);
    match new.unions.new_api() {
        true => case(new),
        false => skip(&format!("{test}: this kernel's overlay has no lowerdir+"), false),
    }
    let old = Store::open(&format!("{test}-old"), Backend::Overlay);
    old.unions.new_api.set(false).unwrap();
    case(old);
}

fn mount_and_use(store: &Store, stack: &[LayerId]) {
    let (top, mnt) = (&stack[0], store.mnt(&stack[0]));
    store.unions.mount(top, stack, None).unwrap();
    assert!(store.unions.mounted(top).unwrap());
    let own = fs::read_to_string(store.diff(top).join("who")).unwrap();
    assert_eq!(fs::read_to_string(mnt.join("who")).unwrap(), own);
    let marks: Vec<PathBuf> = stack.iter().map(|layer| mnt.join(format!("in-{layer}"))).collect();
    for (layer, mark) in stack.iter().zip(&marks) {
        assert!(mark.exists(), "layer {layer} of {} is not seen", stack.len());
    }
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    let before = (names(&store.diff(top)), names(&store.diff(&stack[1])));
    fs::write(&marks[1], "changed").unwrap();
    assert_eq!((names(&store.diff(top)), names(&store.diff(&stack[1]))), (before.0 + 1, before.1));
    assert!(store.unions.unmount(top, false).unwrap());
    assert!(!store.unions.mounted(top).unwrap());
    assert!(!store.unions.unmount(top, false).unwrap());
    assert_eq!(names(&mnt), 0);
    fs::remove_file(store.diff(top).join(format!("in-{}", stack[1]))).unwrap();
}

#[test]
fn stacks_of_every_depth_mount_in_order() {
    if !may_mount("depth") {
        return;
    }
    let store = Store::open("depth", Backend::Overlay);
    let old = Store::open("depth", Backend::Overlay);
    old.unions.new_api.set(false).unwrap();
    let stack = store.stack(500);
    for ancestors in [1, 2, 3, 127, 499] {
        mount_and_use(&store, &stack[499 - ancestors..]);
        mount_and_use(&old, &stack[499 - ancestors..]);
    }
    // Nothing of the way there is left in the runtime directory.
    assert_eq!(fs::read_dir(store.dir.join("run/links")).unwrap().count(), 0);
}

#[test]
fn the_order_of_the_layers_is_that_of_the_list() {
    each_api("order", |store| {
        let mut stack = store.stack(6);
        stack[1..].reverse();
        fs::remove_file(store.diff(&stack[0]).join("who")).unwrap();
        store.unions.mount(&stack[0], &stack, None).unwrap();
        assert_eq!(fs::read_to_string(store.mnt(&stack[0]).join("who")).unwrap(), "5");
    });
}

#[test]
fn a_label_reaches_the_kernel() {
    if fs::exists("/sys/fs/selinux/enforce").unwrap() {
        return skip("a_label_reaches_the_kernel: written for a kernel that refuses labels", false);
    }
    each_api("label", |store| {
        let stack = store.stack(2);
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let outcome = store.unions.mount(&stack[0], &stack, Some(label));
        // Without SELinux the option is unknown to the kernel, which shows that it was passed on.
        assert!(matches!(&outcome, Err(Error::MountFailed { errno: 22, .. })), "{outcome:?}");
        store.unions.mount(&stack[0], &stack, Some("")).unwrap();
    });
}

#[test]
fn any_root_can_be_mounted_by_overlay() {
    let long = format!("{0}/{0}", "long".repeat(50));
    for name in
        ["a b", "a:b", "a,b=c", "a,upperdir=b", "a\\b", "a\\054b", "a\"b'", "a\nb", "\u{e9}\t#", &long]
    {
        each_api(&format!("roots/{name}"), |store| {
            let stack = store.stack(3);
            mount_and_use(&store, &stack);
            store.unions.mount(&stack[0], &stack, None).unwrap();
            assert_eq!(store.unions.all().unwrap(), [id("l0")], "{name:?}");
        });
    }
}

#[test]
fn another_mount_than_the_one_asked_for_is_found_out() {
    each_api("readback", |store| {
        let stack = store.stack(4);
        let paths: Vec<PathBuf> = stack.iter().map(|layer| store.diff(layer)).collect();
        let swapped = [paths[2].clone(), paths[1].clone(), paths[3].clone()];
        let (work, target) = (store.unions.path("work", &stack[0]), store.mnt(&stack[0]));
        let union = |lower| overlay::Union {
            upper: &paths[0],
            lower,
            work: &work,
            target: &target,
            label: None,
            user: false,
        };
        let check = |union: &overlay::Union| match store.unions.new_api() {
            true => union.check_new(),
            false => union.check_old(),
        };
        store.unions.mount(&stack[0], &stack, None).unwrap();
        assert!(check(&union(&paths[1..])).is_ok());
        assert!(check(&union(&paths[1..3])).is_err(), "a layer less");
        assert!(check(&union(&paths)).is_err(), "a layer more");
        if store.unions.new_api() {
            assert!(check(&union(&swapped)).is_err(), "another order");
        }
        store.unions.unmount(&stack[0], false).unwrap();
        assert!(check(&union(&paths[1..])).is_err(), "no mount");
    });
}
