"""Keeping conntrack alive in the node's network namespace.

The problem: the packet programs read from each packet which direction of which connection it is, and the
kernel tracks connections only while something in the namespace asks for it. kube-proxy does; a node
without it may not. The rule: an nftables table of our own with one rule that mentions `ct`, in a chain
that is no hook: it is never run, and its mere presence holds conntrack and its defragmentation. nft is
the only tool that can say so without a packet passing through it.
"""

from __future__ import annotations

import shutil
import subprocess

from agent import errors

TABLE = "nodewall"
RULES = f"""\
table inet {TABLE} {{
    comment "holds conntrack for the BPF programs; never run"
    chain hold {{
        ct state new
    }}
}}
"""


def hold() -> None:
    """Hold conntrack; idempotent. Raises NotSupported without nft, DatapathError."""
    if not _exists():
        _nft("adding", RULES)


def release() -> bool:
    """Let go, and tell whether anything was held; without nft nothing can be. Raises DatapathError."""
    if shutil.which("nft") is None or not _exists():
        return False
    _nft("deleting", f"delete table inet {TABLE}\n")
    return True


def _exists() -> bool:
    return _run(("nft", "list", "table", "inet", TABLE), "").returncode == 0


def _nft(doing: str, text: str) -> None:
    ended = _run(("nft", "-f", "-"), text)
    if ended.returncode != 0:
        raise errors.DatapathError(f"{doing} the nftables table inet {TABLE}: {ended.stderr.strip()}")


def _run(command: tuple[str, ...], text: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise errors.NotSupported(feature="conntrack in this network namespace", needs="nft (nftables)") from error
