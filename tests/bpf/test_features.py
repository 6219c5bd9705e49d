"""What older kernels lack is done another way; the ways are tried here too, where nothing is lacking."""

from __future__ import annotations

import errno
import os
import pathlib
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.datapath import probe
from agent.datapath.bpf import cookies, features, links, maps, rows, selftest, socket_loader, syscalls
from agent.model import verdict

DEVMAP_HASH = 25
"""BPF_MAP_TYPE_DEVMAP_HASH: u32 -> the index of an interface; the kernel has no batches for it."""
LOOPBACK = 1


@pytest.fixture
def packet_layer() -> None:
    """Older kernels have the socket layer without it: that is what these tests are about."""


@pytest.fixture
def pins(bpffs: pathlib.Path) -> Iterator[pathlib.Path]:
    directory = bpffs / f"nodewall_test_{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        for parent, _, names in os.walk(directory, topdown=False):
            for name in names:
                (pathlib.Path(parent) / name).unlink()
            pathlib.Path(parent).rmdir()


@pytest.fixture
def without_batches() -> Iterator[int]:
    attr = struct.pack("=7I15sx", DEVMAP_HASH, 4, 4, 16, 0, 0, 0, b"nw_no_batches") + bytes(40)
    with syscalls.owned(syscalls.bpf(syscalls.Command.MAP_CREATE, attr)[0]) as descriptor:
        yield descriptor


@pytest.mark.root
def test_rows_of_a_map_without_batches_are_written_read_and_deleted_one_at_a_time(without_batches: int) -> None:
    keys = [struct.pack("=I", number) for number in (7, 8, 9)]
    value = struct.pack("=I", LOOPBACK)
    rows.update_batch(without_batches, keys, [value] * len(keys))
    assert sorted(rows.dump(without_batches)) == [(key, value) for key in keys]
    rows.delete_batch(without_batches, keys)
    assert list(rows.dump(without_batches)) == []


@pytest.mark.root
def test_a_map_without_batches_and_without_rows_is_dumped_as_nothing(without_batches: int) -> None:
    assert list(rows.dump(without_batches)) == []


@pytest.mark.root
def test_a_map_without_batches_that_is_full_says_so(without_batches: int) -> None:
    keys = [struct.pack("=I", number) for number in range(17)]
    with pytest.raises(OSError, match="MAP_UPDATE_ELEM") as caught:
        rows.update_batch(without_batches, keys, [struct.pack("=I", LOOPBACK)] * len(keys))
    assert caught.value.errno == errno.E2BIG


@pytest.mark.root
def test_a_hook_tells_the_cookie_that_a_socket_tells() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        assert cookies.told_by_hook(asking) == cookies.own()


@pytest.mark.root
def test_a_hook_tells_the_cookie_of_a_new_namespace_in_which_no_interface_is_up() -> None:
    asked = "import socket; from agent.datapath.bpf import cookies; print(cookies.own())\n"
    asked += "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one: print(cookies.told_by_hook(one))"
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    by_socket, by_hook = map(int, done.stdout.split())
    assert by_socket == by_hook != cookies.own()


@pytest.mark.root
def test_asking_leaves_no_program_behind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        cookies.told_by_hook(asking)
    kind = syscalls.MapType.HASH
    answers = syscalls.map_create(kind=kind, key_size=8, value_size=8, max_entries=1, flags=0, name="nw_test")
    with (
        syscalls.owned(answers),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as later,
        pytest.raises(OSError, match="did not run"),
    ):
        cookies._asked(later, answers)


def test_a_refused_call_ends_with_eperm_where_a_hook_cannot_choose() -> None:
    assert features.refused_errno(sets_errno=True) == errno.EACCES
    assert features.refused_errno(sets_errno=False) == errno.EPERM


@pytest.mark.root
def test_memory_for_maps_is_limited_no_more_than_it_must_be() -> None:
    """Before Linux 5.11 the 64 KiB that a process may lock are less than our maps."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (min(65536, before[1]) if before[1] >= 0 else 65536, before[1]))
        features.unlock_memory()
        soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        assert soft == hard
        assert hard in {resource.RLIM_INFINITY, before[1]}
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (before[0], resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]))


@pytest.mark.root
@pytest.mark.slow
def test_the_socket_layer_refuses_with_eperm_where_it_cannot_choose(
    pins: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Linux 5.10: compiled without the call, proved against EPERM, and the reason is told."""
    programs, pinned = pins / "programs", maps.Maps(pins)
    programs.mkdir()
    (pins / "links").mkdir()
    pinned.open()
    socket_loader.load(map_pins=pins, program_pins=programs, sets_errno=False)
    root, attached = probe.cgroup_root(None), links.Links(pins / "links")
    own = root / f"nodewall-test-{os.getpid()}"
    own.mkdir()
    monkeypatch.setattr(features, "sets_errno", lambda: False)
    try:
        for name, attach_type in socket_loader.ATTACH_TYPES.items():
            with syscalls.owned(syscalls.open_pin(programs / name)) as program:
                attached.attach_cgroup(name, program, own, attach_type)
        told = selftest.SelfTest(pinned, programs, own).run({verdict.Layer.SOCKET})
        assert told.reasons == (features.ERRNO_UNSET,)
        assert not told.unproved
    finally:
        for name in socket_loader.ATTACH_TYPES:
            attached.detach(name)
        pinned.close()
        own.rmdir()
