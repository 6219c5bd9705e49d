"""Where programs are: those of Kubernetes by scripts/cluster, the others from Debian's packages.

Raises Missing with the command that would help, so that a test can say why it is skipped.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "ctr": "containerd",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "busybox": "busybox-static",
    "openssl": "openssl",
    "ethtool": "ethtool",
    "unshare": "util-linux",
}
CNI_PLACES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_THERE = 3
"""How scripts/cluster ends when it has nothing and cannot build it."""


class Missing(Exception):  # noqa: N818 - says what this machine is, not what went wrong
    """This machine cannot run a cluster."""


@functools.cache
def directories(*, build: bool) -> str:
    """Return the directories that hold Kubernetes' programs, as in PATH; building takes 20 minutes. Raises Missing."""
    arguments = [str(ROOT / "scripts" / "cluster"), *([] if build else ["--find"])]
    ended = subprocess.run(arguments, check=False, stdout=subprocess.PIPE, stderr=None if build else subprocess.PIPE)
    if ended.returncode:
        why = (ended.stderr or b"").decode(errors="replace").strip()
        raise Missing(why or "no programs of a cluster: run scripts/cluster to build them")
    return ended.stdout.decode().splitlines()[-1]


def path(program: str, *, build: bool = False) -> pathlib.Path:
    """Return where one of Kubernetes' programs is. Raises Missing."""
    found = shutil.which(program, path=directories(build=build))
    if found is None:
        raise Missing(f"{program} is not among the cluster's programs")
    return pathlib.Path(found)


def suite(program: str) -> pathlib.Path:
    """Return where a program of upstream's test suite is; it is only found, never built. Raises Missing."""
    found = shutil.which(program, path=directories(build=False))
    if found is None:
        raise Missing(f"{program} is not there: scripts/cluster --e2e builds upstream's own suite")
    return pathlib.Path(found)


def system(program: str) -> str:
    """Return where one of the system's programs is. Raises Missing."""
    found = shutil.which(program, path=SEARCHED)
    if found is None:
        raise Missing(f"{program} is missing: apt-get install {PACKAGES.get(program, program)}")
    return found


def plugins() -> pathlib.Path:
    """Return where the CNI plugins are. Raises Missing."""
    for place in map(pathlib.Path, CNI_PLACES):
        if (place / "host-local").exists():
            return place
    raise Missing("no CNI plugins: apt-get install containernetworking-plugins")


def require() -> None:
    """Raise Missing unless a cluster can be run here, as soon as its programs are built."""
    for program in PACKAGES:
        system(program)
    plugins()
