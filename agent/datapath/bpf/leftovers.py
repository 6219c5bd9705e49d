"""Pins that are of no use any more: those of other builds, other versions and other modes."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator

from agent.datapath.bpf import dns_loader, links, tc, veths


def packet_pins(
    versions: Iterable[pathlib.Path], packet_programs: Collection[str], kept: Collection[tc.Hook]
) -> Iterator[pathlib.Path]:
    """Yield every pin of a packet program, its links first.

    Hooks at veths that are `kept` are not meant, nor then the programs of the learner.
    """
    for version in versions:
        for pin in sorted((version / "links").glob("*")):
            hook = tc.hook_of(pin)
            if pin.name.removesuffix(links.NEXT) in packet_programs or (hook is not None and hook not in kept):
                yield pin
        for name in (*packet_programs, veths.SOURCE_CHECK, *(() if kept else dns_loader.PROGRAMS)):
            yield from sorted((version / "programs").glob(f"*/{name}"))


def remove_tree(directory: pathlib.Path) -> None:
    """Unpin everything below `directory`, detaching links; one that is not there is no error."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            links.remove(pathlib.Path(parent) / name)
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(parent).rmdir()
