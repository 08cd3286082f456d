"""Prints what each layer of an image that was saved holds, in the order of the image, the images sorted by tag; with --digests, the digests of the image and of its layers."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile

with tarfile.open(sys.argv[-1]) as archive:
    images = json.load(archive.extractfile("manifest.json"))
    for image in sorted(images, key=lambda image: image["RepoTags"]):
        print("image", *image["RepoTags"])
        config = archive.extractfile(image["Config"]).read()
        declared = json.loads(config)["rootfs"]["diff_ids"]
        if "--digests" in sys.argv:
            print("digest", hashlib.sha256(config).hexdigest())
        for name, digest in zip(image["Layers"], declared, strict=True):
            member = archive.getmember(name)
            while member.issym():
                # A layer that several images share is saved once.
                member = archive.getmember(os.path.normpath(os.path.join(os.path.dirname(member.name), member.linkname)))
            layer = archive.extractfile(member).read()
            if layer.startswith(b"\x1f\x8b"):
                # As containerd's store keeps it. What is declared is the digest of the archive.
                layer = gzip.decompress(layer)
            found = "sha256:" + hashlib.sha256(layer).hexdigest()
            print("layer", "as declared" if found == digest else f"{found} is declared as {digest}")
            if "--digests" in sys.argv:
                print("digest", found)
                continue
            listed = subprocess.run(
                [sys.executable, os.path.join(os.path.dirname(__file__), "list.py")]
                + (["--digest"] if len(layer) > 10_000_000 else []),
                input=layer, stdout=subprocess.PIPE, check=True,
            )
            sys.stdout.write(listed.stdout.decode("utf-8", "surrogateescape"))
