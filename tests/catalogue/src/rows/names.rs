//! Names that want to be somewhere else, or nowhere.

use super::{Row, exact, limit, refused, tar};
use crate::archive::{character, dir, file, hard_link, member, symlink};
use crate::look::show;

pub(super) fn rows() -> Vec<Row> {
    let one = |name: &[u8]| tar(&[file(name, "x")]);
    let one_with_prefix = |prefix: &[u8], name: &[u8]| tar(&[file(name, "x").patch(345, prefix)]);
    let mut rows = vec![
        refused("../victim/x", one(b"../victim/x")).saying("../victim/x"),
        refused("absolute /../victim/x", one(b"/../victim/x")),
        refused("..", one(b"..")).saying(".."),
        refused("a directory named ..", tar(&[dir("../")])),
        refused("a/../../victim/x", one(b"a/../../victim/x")),
        refused("a/..", tar(&[dir("a/"), file("a/..", "x")])),
        refused(".. in the middle, harmless by itself", one(b"a/b/../c")),
        refused("../victim in a PAX path", tar(&[file("a", "x").pax("path", "../victim/hello")])),
        exact(
            "absolute /etc/passwd",
            one(b"/etc/passwd"),
            &["etc directory, implied", "etc/passwd file \"x\""],
        ),
        exact(
            "many slashes at the front",
            one(b"///etc//passwd"),
            &["etc directory, implied", "etc/passwd file \"x\""],
        ),
        exact("./ at the front", one(b"./a/./b"), &["a directory, implied", "a/b file \"x\""]),
        refused("the empty name", one(b"")),
        refused("the empty name of a directory", tar(&[dir("")])),
        refused("a root that is a file", one(b"./")),
        refused("a root that is a symlink", tar(&[crate::archive::symlink(".", "/etc")])),
        refused("a NUL in a PAX path", tar(&[file("a", "x").pax("path", b"a\0/../../victim/hello")])),
        refused("an empty PAX path", tar(&[file("a", "x").pax("path", "")])),
        refused("a component of 256 bytes", one("n".repeat(256).as_bytes())),
        limit("more than 4096 components", tar(&[file("c/".repeat(4097) + "f", "x")])),
        exact("three dots are a name", one(b"..."), &["... file \"x\""]),
        exact(
            "..x and x.. are names",
            tar(&[file("..x", "x"), file("x..", "y")]),
            &["..x file \"x\"", "x.. file \"y\""],
        ),
        exact(
            "bytes that are not UTF-8",
            one(b"\xff\xfe/\x80"),
            &["\\xff\\xfe directory, implied", "\\xff\\xfe/\\x80 file \"x\""],
        ),
        exact("newline, ESC and tab", one(b"a\nb\x1b[2J\tc"), &["a\\nb\\x1b[2J\\tc file \"x\""]),
        exact("a backslash and a colon", one(b"a\\b:c,d=e"), &["a\\\\b:c,d=e file \"x\""]),
        refused("a file with a slash at its end", one(b"a/")),
        exact(
            "a name that is 100 bytes to the last",
            one(&[b'h'; 100]),
            &[
                "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh file \"x\"",
            ],
        ),
        refused("a prefix of .. before a name", one_with_prefix(b"..", b"victim/x")),
        exact(
            "a prefix before an absolute name",
            one_with_prefix(b"a", b"/etc/x"),
            &["a directory, implied", "a/etc directory, implied", "a/etc/x file \"x\""],
        ),
        refused("a prefix before no name", one_with_prefix(b"a", b"")),
        refused("a NUL in a prefix", one_with_prefix(b"a\0b", b"x")),
        refused("a NUL in a short name", tar(&[file("a", "x").patch(2, b"b")])),
        refused("a FIFO with a slash at its end", tar(&[member("f/", b'6')])),
        refused("a symlink with a slash at its end", tar(&[symlink("l/", "t")])),
        refused("a hard link with a slash at its end", tar(&[file("f", "x"), hard_link("h/", "f")])),
        refused("a device with a slash at its end", tar(&[character("c/", 1, 3)])),
        exact("a directory without a slash at its end", tar(&[dir("d")]), &["d directory"]),
        exact(
            "names that look like whiteouts and are none",
            tar(&[file(".wh", "1"), file(".WH.x", "2"), file("x.wh.y", "3"), file(".whx", "4")]),
            &[".WH.x file \"2\"", ".wh file \"1\"", ".whx file \"4\"", "x.wh.y file \"3\""],
        ),
        exact(
            "names of nothing but spaces, quotes and dashes",
            tar(&[file(" ", "1"), file("'\"`$(x)", "2"), file("--help", "3")]),
            &["  file \"1\"", "\\'\\\"`$(x) file \"2\"", "--help file \"3\""],
        ),
        exact(
            "every byte that a name can hold",
            one(&(1..=255).filter(|&byte| byte != b'/').collect::<Vec<u8>>()),
            &[&format!("{} file \"x\"", show(&(1..=255).filter(|&byte| byte != b'/').collect::<Vec<u8>>()))],
        ),
        exact(
            "a component of 255 bytes that are not UTF-8",
            one(&[0xff; 255]),
            &[&format!("{} file \"x\"", show(&[0xff; 255]))],
        ),
        exact(
            "the root by itself, with attributes",
            tar(&[dir("./").mode(0o2750).owner(7, 8).xattr("user.of-the-root", "v")]),
            &["/ directory, mode 2750, owner 7:8, user.of-the-root=v"],
        ),
        exact(
            "the root by all its names",
            tar(&[dir("/"), dir("."), dir("./"), dir("//"), dir("./.").mode(0o700)]),
            &["/ directory, mode 0700"],
        ),
        exact(
            "/proc/self/exe, /dev/null and /sys are names in the layer",
            tar(&[file("/proc/self/exe", "1"), file("/dev/null", "2"), dir("/sys/")]),
            &[
                "dev directory, implied",
                "dev/null file \"2\"",
                "proc directory, implied",
                "proc/self directory, implied",
                "proc/self/exe file \"1\"",
                "sys directory",
            ],
        ),
        refused("a drive letter says nothing, and .. behind it is refused", one(b"C:/../x")),
        exact(
            "names that other systems keep for themselves",
            tar(&[file("CON", "1"), file("nul.txt", "2"), file("a.", "3"), file("C:\\x", "4")]),
            &["CON file \"1\"", "nul.txt file \"2\"", "a. file \"3\"", "C:\\\\x file \"4\""],
        ),
    ];
    for length in [241, 242, 251, 252, 255] {
        let name: &'static str = match length {
            241 => "a component of 241 bytes",
            242 => "a component of 242 bytes",
            251 => "a component of 251 bytes",
            252 => "a component of 252 bytes",
            _ => "a component of 255 bytes",
        };
        let text = "n".repeat(length);
        let shown = format!("{} file \"x\"", show(text.as_bytes()));
        rows.push(exact(name, one(text.as_bytes()), &[&shown]));
    }
    rows
}
