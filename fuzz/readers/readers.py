"""Reads many archives with GNU tar, libarchive (which bsdtar is) and tarfile, and prints a line of JSON for each archive and reader.

    readers.py FILE         FILE: archives, each behind its length (four bytes, little endian)

A line: {"reader": …, "index": …, "entries": [[name, type, size, link], …], "error": null or text}. Names and links are in hexadecimal, types are one
letter: f file, d directory, l symbolic link, h hard link, c and b devices, p FIFO; anything else stands for itself. What is not installed is named in
a line {"missing": reader}.
"""

import ctypes
import ctypes.util
import io
import json
import locale
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor


def python(archive):
    kinds = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}
    entries = []
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8", errors="surrogateescape") as members:
            for it in members:
                kind = "f" if it.isreg() else kinds.get(it.type, it.type.decode("latin-1"))
                entries.append([raw(it.name), kind, it.size, raw(it.linkname)])
    except Exception as error:  # tarfile lets errors of many kinds through.
        return entries, f"{type(error).__name__}: {error}"
    return entries, None


def raw(text):
    return text.encode("utf-8", "surrogateescape")


LINE = re.compile(rb'^(\S)\S*\s+\S+\s+(\S+) [^"]*"((?:[^"\\]|\\.)*)"(?: (?:->|link to) "((?:[^"\\]|\\.)*)")?')
ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def unquote(text):
    def one(match):
        it = match[1]
        return bytes([int(it, 8)]) if len(it) == 3 else LETTERS.get(it, it)

    return ESCAPE.sub(one, text)


def gnu(archive):
    command = ["tar", "-tvf", "-", "--quoting-style=c", "--numeric-owner", "--full-time", "-P"]
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
    try:
        done = subprocess.run(command, input=archive, capture_output=True, env=environment, timeout=20)
    except subprocess.TimeoutExpired:
        return [], "timeout"
    entries = []
    for line in done.stdout.splitlines():
        match = LINE.match(line)
        if not match:
            return entries, f"a line that is not understood: {line!r}"
        kind = {b"-": "f", b"C": "f"}.get(match[1], match[1].decode("latin-1"))
        size = int(match[2]) if match[2].isdigit() else 0
        entries.append([unquote(match[3]), kind, size, unquote(match[4] or b"")])
    said = [line for line in done.stderr.decode("latin-1").strip().splitlines() if "Ignoring unknown" not in line]
    return entries, None if done.returncode == 0 else (said or ["failed"])[0]


class Libarchive:
    """As much of libarchive as bsdtar uses to list an archive, by ctypes: a process for each archive would take ten times as long."""

    EOF, WARN = 1, -20
    KINDS = {0o100000: "f", 0o040000: "d", 0o120000: "l", 0o020000: "c", 0o060000: "b", 0o010000: "p"}

    def __init__(self):
        self.lib = ctypes.CDLL("libarchive.so.13")
        for name in ["archive_read_new", "archive_error_string", "archive_entry_pathname", "archive_entry_hardlink", "archive_entry_symlink"]:
            getattr(self.lib, name).restype = ctypes.c_char_p if name != "archive_read_new" else ctypes.c_void_p
        self.lib.archive_entry_size.restype = ctypes.c_int64
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")

    def __call__(self, archive):
        lib, entries = self.lib, []
        reader = ctypes.c_void_p(lib.archive_read_new())
        try:
            lib.archive_read_support_format_tar(reader)
            if lib.archive_read_open_memory(reader, archive, ctypes.c_size_t(len(archive))) != 0:
                return entries, self.error(reader)
            while True:
                entry = ctypes.c_void_p()
                status = lib.archive_read_next_header(reader, ctypes.byref(entry))
                if status == self.EOF:
                    return entries, None
                if status < self.WARN:
                    return entries, self.error(reader)
                name = lib.archive_entry_pathname(entry)
                if name is None:
                    return entries, "a name that cannot be shown"
                hard, soft = lib.archive_entry_hardlink(entry), lib.archive_entry_symlink(entry)
                kind = "h" if hard is not None else self.KINDS.get(lib.archive_entry_filetype(entry), "?")
                if kind in "l?" and not soft:
                    return entries, "a link whose target is lost"
                entries.append([name, kind, lib.archive_entry_size(entry), hard or soft or b""])
        finally:
            lib.archive_read_free(reader)

    def error(self, reader):
        return (self.lib.archive_error_string(reader) or b"failed").decode("latin-1")


def main():
    data = open(sys.argv[1], "rb").read()
    archives, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        archives.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    readers = {"tarfile": python}
    missing = []
    if shutil.which("tar") and b"GNU tar" in subprocess.run(["tar", "--version"], capture_output=True).stdout:
        readers["GNU tar"] = gnu
    else:
        missing.append("GNU tar")
    try:
        readers["bsdtar"] = Libarchive()
    except OSError:
        missing.append("bsdtar")
    for name in missing:
        print(json.dumps({"missing": name}))
    # GNU tar is a process for each archive; the others are quick.
    with ThreadPoolExecutor(4) as pool:
        for name, reader in readers.items():
            results = pool.map(reader, archives) if name == "GNU tar" else map(reader, archives)
            for index, (entries, error) in enumerate(results):
                shown = [[name_.hex(), kind, size, link.hex()] for name_, kind, size, link in entries]
                print(json.dumps({"reader": name, "index": index, "entries": shown, "error": error}))


main()
