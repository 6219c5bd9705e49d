"""The types of a compiled object, from its BTF as bpftool prints it."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

STRUCT, ARRAY, ENUM = "STRUCT", "ARRAY", "ENUM"
NAMES = frozenset({"TYPEDEF", "CONST", "VOLATILE"})


class Types:
    """Sizes, members and enumerators by C name."""

    def __init__(self, path: pathlib.Path) -> None:
        """Read the BTF of an object file."""
        ended = subprocess.run(
            ["bpftool", "-j", "btf", "dump", "file", str(path)], capture_output=True, check=True, text=True
        )
        types: list[dict[str, Any]] = json.loads(ended.stdout)["types"]
        self._by_id = {item["id"]: item for item in types}
        self._structs = {item["name"]: item for item in types if item["kind"] == STRUCT}
        self._enums = {item["name"]: item for item in types if item["kind"] == ENUM}

    def size(self, struct: str) -> int:
        """Return sizeof(struct), bytes."""
        return int(self._structs[struct]["size"])

    def members(self, struct: str) -> list[tuple[str, int, int]]:
        """Return (name, offset, size) of each member, bytes."""
        return [
            (member["name"], member["bits_offset"] // 8, self._size(member["type_id"]))
            for member in self._structs[struct]["members"]
        ]

    def enumerators(self, enum: str) -> dict[str, int]:
        """Return the names and values of an enum."""
        return {value["name"]: value["val"] for value in self._enums[enum]["values"]}

    def _size(self, number: int) -> int:
        item = self._by_id[number]
        if item["kind"] in NAMES:
            return self._size(item["type_id"])
        if item["kind"] == ARRAY:
            return self._size(item["type_id"]) * int(item["nr_elems"])
        return int(item["size"])
