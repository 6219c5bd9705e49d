"""What is missing on a machine is named before anything is tried."""

from __future__ import annotations

import pathlib

import pytest

from agent import errors
from agent.datapath import probe

HYBRID = (
    "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"
    "cgroup2 /sys/fs/cgroup/a\\040b cgroup2 rw 0 0\n"
)


def test_cgroup_v2_is_found_wherever_it_is_mounted(tmp_path: pathlib.Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(HYBRID)
    assert probe.cgroup2_mount(mounts) == pathlib.Path("/sys/fs/cgroup/a b")


def test_a_machine_without_cgroup_v2_is_told_what_it_needs(tmp_path: pathlib.Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n")
    with pytest.raises(errors.NotSupported, match="cgroup v2"):
        probe.cgroup2_mount(mounts)


def test_a_directory_that_is_no_bpffs_is_refused_even_before_it_exists(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotSupported, match="mount -t bpf"):
        probe.require_bpffs(tmp_path / "not" / "there")


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_directory_that_is_no_cgroup_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(errors.NotSupported, match="cgroup v2"):
        probe.require_cgroup2(tmp_path / name)
