"""Load CO-RE objects through libbpf and pin their programs.

The problem: Debian 12's libbpf (1.1.2) does not know netfilter programs, newer ones do, and no Python
binding is kept up. The rule: a dozen libbpf calls by ctypes; program types are set here, never guessed
from section names; maps are the pinned ones. The verifier's log is kept whole. The object is closed at
the end: what is pinned stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import pathlib
from collections.abc import Iterator

from agent import errors
from agent.datapath.bpf import fqdn_maps, maps, syscalls

LIBRARY = "libbpf.so.1"
LOG_BYTES = 1 << 22


class ProgramType(enum.Enum):
    """enum bpf_prog_type, and the attach type a program of it is loaded with."""

    SOCKET_FILTER = (1, 0)
    SCHED_CLS = (3, 0)
    NETFILTER = (32, int(syscalls.AttachType.NETFILTER))


class _Libbpf:
    """The calls, typed; a null or negative answer is an OSError."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY, use_errno=True)
        except OSError as error:
            raise errors.NotSupported(feature="the packet layer", needs=f"{LIBRARY} (libbpf1)") from error
        # What it prints would be lost among the agent's logs; the errors below carry what matters.
        self._library.libbpf_set_print(None)

    def pointer(self, name: str, *arguments: object) -> ctypes.c_void_p:
        call = getattr(self._library, name)
        call.restype = ctypes.c_void_p
        found = call(*arguments)
        if not found:
            raise OSError(ctypes.get_errno() or errno.EINVAL, name)
        return ctypes.c_void_p(found)

    def pointer_or_none(self, name: str, *arguments: object) -> ctypes.c_void_p | None:
        call = getattr(self._library, name)
        call.restype = ctypes.c_void_p
        found = call(*arguments)
        return ctypes.c_void_p(found) if found else None

    def number(self, name: str, *arguments: object) -> int:
        call = getattr(self._library, name)
        call.restype = ctypes.c_int
        result: int = call(*arguments)
        if result < 0:
            raise OSError(-result, f"{name}: {os.strerror(-result)}")
        return result

    def text(self, name: str, *arguments: object) -> str:
        call = getattr(self._library, name)
        call.restype = ctypes.c_char_p
        return bytes(call(*arguments)).decode()


def require_netfilter() -> None:
    """Load a netfilter program that accepts everything, and let it go; raises NotSupported where that is unknown.

    libbpf looks for the functions such programs call before it loads any, and on an old kernel complains about those.
    Asked for first, the answer is clear, and nothing has been made yet.
    """
    try:
        os.close(syscalls.load_accepting(ProgramType.NETFILTER.value[0], int(syscalls.AttachType.NETFILTER)))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise errors.DatapathError(f"loading a BPF netfilter program: {error.strerror}") from error
        release = os.uname().release
        raise errors.NotSupported(
            feature=f"the packet layer (BPF netfilter programs) on kernel {release}",
            needs="Linux 6.4 or newer with CONFIG_NETFILTER_BPF_LINK",
        ) from error


def load(
    path: pathlib.Path,
    *,
    kind: ProgramType,
    map_pins: pathlib.Path,
    program_pins: pathlib.Path,
) -> tuple[str, ...]:
    """Load every program of the object `path` and pin each under its name; return the names.

    An object keeps maps to itself that are none of a node's.
    Raises NotSupported without libbpf, ProgramRejected with the verifier's log. Whether the kernel knows netfilter
    programs is asked before (`require_netfilter`).
    """
    libbpf = _Libbpf()
    with _opened(libbpf, path) as blueprint:
        _use_pinned_maps(libbpf, blueprint, map_pins)
        programs = dict(_programs(libbpf, blueprint))
        log = ctypes.create_string_buffer(LOG_BYTES)
        for program in programs.values():
            program_type, attach_type = kind.value
            libbpf.number("bpf_program__set_type", program, program_type)
            libbpf.number("bpf_program__set_expected_attach_type", program, attach_type)
            libbpf.number("bpf_program__set_log_buf", program, log, ctypes.c_size_t(LOG_BYTES))
        try:
            libbpf.number("bpf_object__load", blueprint)
        except OSError as error:
            text = log.value.decode(errors="replace")
            raise errors.ProgramRejected(program=path.name, log=text or str(error)) from error
        for name, program in programs.items():
            syscalls.pin(libbpf.number("bpf_program__fd", program), program_pins / name)
    return tuple(programs)


@contextlib.contextmanager
def _opened(libbpf: _Libbpf, path: pathlib.Path) -> Iterator[ctypes.c_void_p]:
    try:
        blueprint = libbpf.pointer("bpf_object__open_file", os.fsencode(path), None)
    except OSError as error:
        raise errors.DatapathError(f"opening the BPF object {path}: {os.strerror(error.errno or 0)}") from error
    try:
        yield blueprint
    finally:
        libbpf.pointer_or_none("bpf_object__close", blueprint)


def _use_pinned_maps(libbpf: _Libbpf, blueprint: ctypes.c_void_p, directory: pathlib.Path) -> None:
    """Point each map of the object at its pin; libbpf refuses a pin of another shape."""
    capacities = {shape.name: shape.max_entries for shape in (*maps.shapes(), *fqdn_maps.shapes())}
    declared = libbpf.pointer_or_none("bpf_object__next_map", blueprint, None)
    while declared is not None:
        name = libbpf.text("bpf_map__name", declared)
        if name in capacities:
            libbpf.number("bpf_map__set_max_entries", declared, ctypes.c_uint32(capacities[name]))
            libbpf.number("bpf_map__set_pin_path", declared, os.fsencode(directory / name))
        declared = libbpf.pointer_or_none("bpf_object__next_map", blueprint, declared)


def _programs(libbpf: _Libbpf, blueprint: ctypes.c_void_p) -> Iterator[tuple[str, ctypes.c_void_p]]:
    program = libbpf.pointer_or_none("bpf_object__next_program", blueprint, None)
    while program is not None:
        yield libbpf.text("bpf_program__name", program), program
        program = libbpf.pointer_or_none("bpf_object__next_program", blueprint, program)
