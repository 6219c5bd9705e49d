"""Manifests from files as documents, since the lab hands them on with its additions, for the agents to decode."""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Iterator, Sequence

import yaml

from agent import errors
from agent.lab import resolve
from agent.sources import documents, tree

UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
NAME_MAX = 200


def load(paths: Sequence[pathlib.Path]) -> list[resolve.Document]:
    """Read files and directories; InvalidInput for a path that is not there, InvalidResource for what is not YAML."""
    return [item for path in _files(paths) for document in _parsed(path) for item in resolve.expand(document)]


def dump(document: resolve.Document) -> str:
    """Return a document as YAML, without aliases; InvalidResource for what only a parser could have made."""
    try:
        return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False))
    except yaml.YAMLError as error:
        name = "/".join(part for part in resolve.key_of(document) if part)
        raise errors.InvalidResource(f"{name}: a key is given twice in one of its mappings") from error


def names(items: Sequence[resolve.Document]) -> dict[str, resolve.Document]:
    """Return each document by a file name of its own, made of kind, group, namespace and name.

    Names of Kubernetes hold no underscore, so it separates. What is no such name, too long for a file, or there already
    is told apart by its content: nothing a manifest says may leave the directory or hide another manifest.
    """
    found: dict[str, resolve.Document] = {}
    for document in items:
        api, kind, namespace, name = resolve.key_of(document)
        group = api.partition("/")[0] if "/" in api else ""
        plain = "_".join(part for part in (kind.lower(), group, namespace, name) if part)
        safe = UNSAFE.sub("+", plain)[:NAME_MAX].lstrip(".")
        if not name or safe != plain or f"{safe}.yaml" in found:
            safe += f"_{hashlib.blake2b(repr(document).encode(), digest_size=6).hexdigest()}"
        found[f"{safe}.yaml"] = document
    return found


def _files(paths: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    for path in paths:
        if not path.exists():
            raise errors.InvalidInput(field="path", value=str(path), remedy="name a manifest or a directory of them")
        yield from (path / name for name in tree.walk(path).files) if path.is_dir() else [path]


def _parsed(path: pathlib.Path) -> Iterator[object]:
    yield from (document.value for document in documents.parse(tree.content(path, str(path)), str(path)))


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml may be absent
    def ignore_aliases(self, _data: object) -> bool:
        return True
