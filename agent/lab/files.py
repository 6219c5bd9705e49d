"""Manifests from files as documents, since the lab hands them on with its additions, for the agents to decode."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import yaml

from agent import errors
from agent.lab import resolve
from agent.sources import documents, tree


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
