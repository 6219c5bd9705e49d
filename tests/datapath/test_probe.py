"""What is missing on a machine is named before anything is tried."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from agent import errors
from agent.datapath import probe

V1 = "tmpfs {0} tmpfs rw 0 0\ncgroup {0}/cpu cgroup rw 0 0\n"
CONTAINER = "cgroup2 {0}/unified/own cgroup2 rw 0 0\n"


def mounts(directory: pathlib.Path, *lines: str) -> pathlib.Path:
    path = directory / "mounts"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    ("given", "lines", "expected"),
    [
        (None, ["cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"], "/sys/fs/cgroup"),
        (None, [V1.format("/sys/fs/cgroup"), "cgroup2 /sys/fs/cgroup/a\\040b cgroup2 rw 0 0\n"], "/sys/fs/cgroup/a b"),
        ("/host/cgroup", [CONTAINER.format("/sys/fs/cgroup"), "c /host/cgroup cgroup2 ro 0 0\n"], "/host/cgroup"),
        (
            "/host/cgroup",
            [
                CONTAINER.format("/sys/fs/cgroup"),
                V1.format("/host/cgroup"),
                "c /host/cgroup/unified/x/y cgroup2 ro 0 0\n",
                "c /host/cgroup/unified cgroup2 ro 0 0\n",
                "c /host/cgroup-other cgroup2 ro 0 0\n",
            ],
            "/host/cgroup/unified",
        ),
    ],
    ids=["pure", "hybrid", "container, pure", "container, hybrid"],
)
def test_cgroup_v2_is_found_at_or_below_what_is_given(
    tmp_path: pathlib.Path, given: str | None, lines: list[str], expected: str
) -> None:
    found = probe.cgroup_root(pathlib.Path(given) if given else None, mounts(tmp_path, *lines))
    assert found == pathlib.Path(expected)


@pytest.mark.root
def test_a_directory_inside_cgroup_v2_is_taken_as_it_is(tmp_path: pathlib.Path) -> None:
    top = probe.cgroup_root(None)
    inside = next(path for path in top.iterdir() if path.is_dir())
    assert probe.cgroup_root(inside, mounts(tmp_path)) == inside


@pytest.mark.root
def test_the_nodes_tree_is_found_where_a_container_has_it(tmp_path: pathlib.Path) -> None:
    """As a hostPath of /sys/fs/cgroup is mounted: with all that is mounted below it."""
    script = f"mount --rbind -o ro /sys/fs/cgroup {tmp_path} && exec {sys.executable} -c '{FIND}' {tmp_path}"
    found = subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, capture_output=True, text=True)
    inside = pathlib.Path(found.stdout.strip()).relative_to(tmp_path)
    assert pathlib.Path("/sys/fs/cgroup", inside) == probe.cgroup_root(pathlib.Path("/sys/fs/cgroup"))


FIND = "import pathlib, sys; from agent.datapath import probe; print(probe.cgroup_root(pathlib.Path(sys.argv[1])))"


def test_a_machine_without_cgroup_v2_is_told_what_was_looked_for_and_where(tmp_path: pathlib.Path) -> None:
    lines = mounts(tmp_path, V1.format(tmp_path), "cgroup2 /elsewhere cgroup2 rw 0 0\n")
    expected = re.escape(f"cgroup v2 at or below {tmp_path} (no file system of type cgroup2 in {lines})")
    with pytest.raises(errors.NotSupported, match=expected):
        probe.cgroup_root(tmp_path, lines)
    with pytest.raises(errors.NotSupported, match="at or below / "):
        probe.cgroup_root(None, mounts(tmp_path, V1.format("/sys/fs/cgroup")))


def test_a_directory_that_is_no_bpffs_is_refused_even_before_it_exists(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotSupported, match="mount -t bpf"):
        probe.require_bpffs(tmp_path / "not" / "there")
