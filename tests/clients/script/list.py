"""Prints what an archive on standard input holds, a line a member, sorted by name: order is the writer's own affair.

Left out is what says nothing: owner, mode and time of a whiteout; the bits of a mode that repeat the type, which Docker writes; the entry of the root, which
Docker does not write. Times of before START are kept; what came after is the run's own.
"""

import hashlib
import os
import sys
import tarfile

start = int(os.environ["START"])
lines = []
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as archive:
    for member in archive:
        name = os.path.normpath(member.name).lstrip("/")
        if os.path.basename(name).startswith(".wh."):
            lines.append(f"{name} whiteout")
            continue
        if name == ".":
            continue
        time = int(member.mtime) if member.mtime < start else "new"
        content = ""
        if member.isreg():
            content = hashlib.sha256(archive.extractfile(member).read()).hexdigest()[:16]
        xattrs = " ".join(
            f"{key[14:]}={value.encode('utf-8', 'surrogateescape').hex()}"
            for key, value in sorted(member.pax_headers.items())
            if key.startswith("SCHILY.xattr.")
        )
        lines.append(
            f"{name} {member.type.decode()} {member.mode & 0o7777:04o} {member.uid}:{member.gid} {member.size} {time} "
            f"{member.linkname} {member.devmajor}:{member.devminor} {content} {xattrs}".rstrip()
        )
lines.sort()
if len(sys.argv) > 1 and sys.argv[1] == "--digest":
    print(len(lines), "members,", hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16])
else:
    print("\n".join(lines))
