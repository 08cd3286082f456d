"""Makes an archive of an OCI image (image-spec, image-layout.md) from layers, each a tar, plain or packed.

oci.py OUT NAME LAYER...       the digest that a layer has without compression is made with Python's own gzip, or with zstd(1)
"""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile


def unpacked(data):
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data), "+gzip"
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout, "+zstd"
    return data, ""


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def main(out, name, layers):
    with tarfile.open(out, "w") as archive:

        def add(path, data):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        def blob(media_type, data):
            add("blobs/sha256/" + digest(data)[7:], data)
            return {"mediaType": "application/vnd.oci.image." + media_type, "digest": digest(data), "size": len(data)}

        descriptors, ids = [], []
        for path in layers:
            with open(path, "rb") as file:
                data = file.read()
            plain, suffix = unpacked(data)
            ids.append(digest(plain))
            descriptors.append(blob("layer.v1.tar" + suffix, data))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("config.v1+json", json.dumps(config).encode()),
            "layers": descriptors,
        }
        top = blob("manifest.v1+json", json.dumps(manifest).encode())
        top["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        top["platform"] = {"architecture": "amd64", "os": "linux"}
        add("index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode())
        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


main(sys.argv[1], sys.argv[2], sys.argv[3:])
