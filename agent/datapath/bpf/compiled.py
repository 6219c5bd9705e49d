"""The socket programs as BCC compiled them, kept for whoever loads the same ones again.

The problem: BCC takes seconds of a processor and 140 MiB to compile what it has compiled before: for each node of each
lab, or each agent of a machine that starts anew. The rule: where NODEWALL_COMPILED names a directory, the loader keeps
instructions there, in a file whose name is a digest of all that they depend on: sources, the headers' version, the
compiler's, the kernel's, flags. In place of descriptors they name maps by their place among `maps.shapes()`. The
kernel verifies them at each load as it did the first; what it refuses is forgotten, and compiled again, whose log says
why. Without the variable nothing is kept.

Whoever can write the directory chooses what runs in the kernel: it must be root's alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import pathlib
import platform
import stat
import struct
from collections.abc import Mapping, Sequence
from typing import Self

from agent import errors
from agent.datapath.bpf import artifacts, assembly, maps, syscalls

ENVIRONMENT = "NODEWALL_COMPILED"
HEADERS_VERSION = pathlib.Path("include", "uapi", "linux", "version.h")
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is to be loaded."""

    name: str
    kind: int
    """enum bpf_prog_type."""
    attach: syscalls.AttachType


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """The file of one build of the programs; it need not be there."""

    path: pathlib.Path

    @classmethod
    def of(cls, flags: Sequence[str]) -> Self | None:
        """Return the file for these flags of the compiler; None: nobody asked for one, or there can be none.

        Raises DatapathError where others than this user could have written it.
        """
        directory = os.environ.get(ENVIRONMENT)
        compiler = importlib.util.find_spec("bcc")
        if not directory or compiler is None or compiler.origin is None or not _is_there(pathlib.Path(directory)):
            return None
        found = artifacts.find()
        digest = hashlib.sha256(found.fingerprint().encode())
        version = pathlib.Path(compiler.origin).with_name("version.py")
        for file in (found.headers / HEADERS_VERSION, version):
            digest.update(file.read_bytes() if file.exists() else str(file).encode())
        digest.update("\0".join([platform.machine(), platform.release(), *flags]).encode())
        return cls(pathlib.Path(directory, f"socket-{digest.hexdigest()[:32]}.json"))

    def keep(self, instructions: Mapping[str, bytes], descriptors: Mapping[str, int]) -> None:
        """Keep programs, by name, whose maps are these descriptors, by name."""
        places = {descriptors[shape.name]: place for place, shape in enumerate(maps.shapes())}
        kept = {name: assembly.with_maps(code, places).hex() for name, code in instructions.items()}
        scratch = self.path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # it is compiled again, as if nobody had asked
            scratch.write_text(json.dumps(kept))
            scratch.rename(self.path)

    def load(self, programs: Sequence[Program], *, map_pins: pathlib.Path, program_pins: pathlib.Path) -> bool:
        """Load and pin the programs over the maps pinned in `map_pins`; False, with none pinned: they are not kept."""
        try:
            kept = {name: bytes.fromhex(text) for name, text in json.loads(self.path.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return False
        pinned: list[pathlib.Path] = []
        with contextlib.ExitStack() as stack:
            opened = [syscalls.open_pin(map_pins / shape.name) for shape in maps.shapes()]
            for descriptor in opened:
                stack.enter_context(syscalls.owned(descriptor))
            try:
                for one in programs:
                    code = assembly.with_maps(kept[one.name], dict(enumerate(opened)))
                    loaded = syscalls.load_program([code], kind=one.kind, attach=int(one.attach), name=one.name)
                    with syscalls.owned(loaded):
                        syscalls.pin(loaded, program_pins / one.name)
                    pinned.append(program_pins / one.name)
            except (OSError, KeyError, struct.error) as error:
                for pin in pinned:
                    pin.unlink(missing_ok=True)
                # EPERM says that this process may load nothing, and nothing of what is kept
                if not isinstance(error, OSError) or error.errno != errno.EPERM:
                    self.path.unlink(missing_ok=True)
                return False
        return True


def _is_there(directory: pathlib.Path) -> bool:
    """Make the directory if it is not there; False: it cannot be made. Raises DatapathError if others may write it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError:  # a read-only file system keeps nothing
        return False
    if found.st_uid != os.geteuid() or found.st_mode & OTHERS_MAY_WRITE:
        raise errors.DatapathError(f"{ENVIRONMENT}={directory} can be written by others: chown root, chmod go-w")
    return True
