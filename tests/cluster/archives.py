"""Container images of one layer, written as an OCI layout in a tar: what a runtime imports without any registry."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import platform
import tarfile
from collections.abc import Mapping, Sequence

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DIRECTORIES = ("bin", "etc", "tmp", "var/run")
STICKY = 0o1777


def write(
    target: pathlib.Path,
    *,
    name: str,
    files: Mapping[str, pathlib.Path],
    links: Mapping[str, str],
    entrypoint: Sequence[str],
    command: Sequence[str] = (),
) -> None:
    """Write an image: `files` maps paths in it to files here, `links` symbolic links in it to what they point at."""
    layer = target.with_suffix(".layer")
    with tarfile.open(layer, "w") as archive:
        for directory in DIRECTORIES:
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, STICKY if directory == "tmp" else 0o755
            archive.addfile(entry)
        for inside, file in files.items():
            archive.add(file, inside, filter=_anonymous)
        for inside, towards in links.items():
            entry = tarfile.TarInfo(inside)
            entry.type, entry.linkname = tarfile.SYMTYPE, towards
            archive.addfile(entry)
    machine = {"architecture": ARCHITECTURES[platform.machine()], "os": "linux"}
    with layer.open("rb") as opened:
        digest = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
    settings = {"Env": ["PATH=/bin"], "Entrypoint": [*entrypoint], "Cmd": [*command]}
    config = machine | {"config": settings, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    blobs = _Blobs()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blobs.add(CONFIG, config),
        "layers": [{"mediaType": LAYER, "digest": digest, "size": layer.stat().st_size}],
    }
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    listed = blobs.add(MANIFEST, manifest) | {"platform": machine, "annotations": names}
    with tarfile.open(target, "w") as archive:
        _text(archive, "oci-layout", {"imageLayoutVersion": "1.0.0"})
        _text(archive, "index.json", {"schemaVersion": 2, "manifests": [listed]})
        for path, content in blobs.content.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        archive.add(layer, _path(digest))
    layer.unlink()


class _Blobs:
    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def add(self, media_type: str, document: object) -> dict[str, object]:
        content = json.dumps(document).encode()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.content[_path(digest)] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _text(archive: tarfile.TarFile, path: str, document: object) -> None:
    content = json.dumps(document).encode()
    entry = tarfile.TarInfo(path)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755
    return entry
