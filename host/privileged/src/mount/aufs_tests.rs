use super::*;

const TAIL: &[u8] = b",dio,xino=/run/layerbox/s/xino-x,dirperm1";

/// Layers whose paths have `length` bytes and differ.
fn layers(count: usize, length: usize) -> Vec<PathBuf> {
    (0..count).map(|number| PathBuf::from(format!("/{number:0>width$}", width = length - 1))).collect()
}

/// Reads the calls as aufs does, and holds them to its limits.
fn read(calls: &[Vec<u8>], tail: &[u8]) -> Vec<Vec<u8>> {
    let mut branches = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        assert!(call.len() <= 4095, "call {number} has {} bytes", call.len());
        let before = branches.len();
        match number {
            0 => {
                let list = call.strip_suffix(tail).unwrap().strip_prefix(b"br:").unwrap();
                assert!(!list.contains(&b','));
                branches.extend(list.split(|byte| *byte == b':').map(<[u8]>::to_vec));
            }
            _ => branches.extend(
                call.split(|byte| *byte == b',')
                    .map(|option| option.strip_prefix(b"append:").unwrap().to_vec()),
            ),
        }
        let count = branches.len() - before;
        assert!((1..=60).contains(&count), "call {number} has {count} branches");
    }
    branches
}

fn hold(layers: &[PathBuf], tail: &[u8]) -> usize {
    let calls = calls(layers, tail).unwrap();
    let expected: Vec<Vec<u8>> =
        layers.iter().enumerate().map(|(index, layer)| branch(index, layer)).collect();
    assert_eq!(read(&calls, tail), expected);
    calls.len()
}

#[test]
fn option_strings_of_one_to_500_branches() {
    for count in 1..=500 {
        for length in [5, 31, 90] {
            hold(&layers(count, length), TAIL);
        }
    }
}

#[test]
fn option_strings_that_break_at_each_byte_around_a_page() {
    // The length of the paths moves the end of a call over every byte of a branch, and so does the tail's.
    for length in 4..=600 {
        hold(&layers(130, length), TAIL);
    }
    for tail in 0..=300 {
        let tail = [b",", vec![b't'; tail].as_slice()].concat();
        for length in [66, 67, 128, 250] {
            hold(&layers(130, length), &tail);
        }
    }
}

#[test]
fn a_call_is_filled_to_the_last_byte_and_the_last_branch() {
    // (paths, their length, tail, calls)
    let rows = [
        // "br:" + path + "=rw" + n times ":" + path + "=ro+wh" + tail
        (2, 2000, 4095 - (3 + 2000 + 3) - (1 + 2000 + 6), 1),
        (2, 2000, 4095 - (3 + 2000 + 3) - (1 + 2000 + 6) + 1, 2),
        (1, 4000, 4095 - (3 + 4000 + 3), 1),
        (60, 20, 40, 1),
        (61, 20, 40, 2),
        (120, 20, 40, 2),
        (121, 20, 40, 3),
        // Two in a call: "append:" + path + "=ro+wh" + ",append:" + path + "=ro+wh"
        (3, (4095 - 27) / 2, 2000, 2),
        (3, (4095 - 27) / 2 + 1, 2000, 3),
    ];
    for (count, length, tail, expected) in rows {
        assert_eq!(
            hold(&layers(count, length), &vec![b't'; tail]),
            expected,
            "{count} of {length}, tail {tail}"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let rows: [(Vec<PathBuf>, usize); 5] = [
        (layers(1, 4090), 0),
        (layers(1, 4000), 4095 - (3 + 4000 + 3) + 1),
        (vec!["/a".into(), layers(1, 4083).remove(0)], 0),
        (vec!["/a".into()], 4096),
        (Vec::new(), 0),
    ];
    for (index, (layers, tail)) in rows.into_iter().enumerate() {
        assert_eq!(calls(&layers, &vec![b't'; tail]), None, "row {index}");
    }
    assert_eq!(hold(&["/a".into(), layers(1, 4082).remove(0)], b""), 2);
}

#[test]
fn a_path_that_aufs_would_split_is_refused() {
    for path in ["/a:b", "/a,b", "/a=rw", "/a\\b", "/a\"b", "/a\nb"] {
        assert!(!can_name(Path::new(path)), "{path:?}");
        assert_eq!(calls(&["/x".into(), path.into()], TAIL), None, "{path:?}");
        assert_eq!(calls(&[path.into(), "/x".into()], TAIL), None, "{path:?}");
    }
    assert!(can_name(Path::new("/var/lib/my store/diff/a-b_c.d+e")));
}

#[test]
fn option_strings_read_as_docker_writes_them() {
    let layers = ["/s/diff/c".into(), "/s/diff/b".into(), "/s/diff/a".into()];
    let rows = [
        (true, None, "br:/s/diff/c=rw:/s/diff/b=ro+wh:/s/diff/a=ro+wh,dio,xino=/r/xino-c,dirperm1"),
        (
            false,
            Some("system_u:object_r:container_file_t:s0:c1,c2"),
            "br:/s/diff/c=rw:/s/diff/b=ro+wh:/s/diff/a=ro+wh,dio,xino=/r/xino-c,\
             context=\"system_u:object_r:container_file_t:s0:c1,c2\"",
        ),
    ];
    for (dirperm1, label, expected) in rows {
        let calls = calls(&layers, &options(Path::new("/r/xino-c"), dirperm1, label)).unwrap();
        assert_eq!(calls, [expected.as_bytes().to_vec()]);
    }
}

#[test]
fn limits_that_were_kept() {
    let rows = [
        ("511 true\n", Some(Limits { branches: 511, dirperm1: true })),
        ("127 false\n", Some(Limits { branches: 127, dirperm1: false })),
        ("127 true", None),
        ("1 true\n", None),
        ("", None),
        ("x true\n", None),
        ("127 maybe\n", None),
    ];
    for (text, expected) in rows {
        assert_eq!(Limits::parse(text), expected, "{text:?}");
    }
}

#[test]
fn pseudo_links_are_found_and_forgotten() {
    let dir = std::env::temp_dir().join(format!("mounts-test/plink-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    // A branch that never was mounted, and one without any.
    assert_eq!(forget_pseudo_links(&dir), Ok(()));
    fs::create_dir(dir.join(PSEUDO_LINKS)).unwrap();
    assert_eq!(forget_pseudo_links(&dir), Ok(()));
    for name in ["11.45", "12.46"] {
        fs::write(dir.join(PSEUDO_LINKS).join(name), "").unwrap();
    }
    let mut found = pseudo_links(&dir).unwrap();
    found.sort();
    assert_eq!(found, ["11.45", "12.46"]);
    // Of what is no union nothing has these numbers.
    assert_eq!(flush(&dir, &dir), Ok(()));
    assert_eq!(forget_pseudo_links(&dir), Ok(()));
    assert_eq!(pseudo_links(&dir).unwrap().len(), 0);
    // A layer's writer can have put a link there.
    fs::remove_dir(dir.join(PSEUDO_LINKS)).unwrap();
    let victim = dir.join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("11.45"), "").unwrap();
    for target in [victim.as_path(), "victim".as_ref()] {
        std::os::unix::fs::symlink(target, dir.join(PSEUDO_LINKS)).unwrap();
        assert_eq!(pseudo_links(&dir).unwrap().len(), 0);
        assert_eq!(forget_pseudo_links(&dir), Ok(()));
        assert!(victim.join("11.45").exists());
        fs::remove_file(dir.join(PSEUDO_LINKS)).unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
}
