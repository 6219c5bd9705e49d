"""Load the DNS learner, in the variant that this kernel takes.

The problem: `bpf_loop` came with Linux 5.17 and distributions carry features back. The rule: the variant with it is
tried, and only where the verifier refuses it the one with plain loops; no version is compared. Both are made from one
source and do the same. Why the first was refused is kept for whoever asks.
"""

from __future__ import annotations

import dataclasses
import enum
import pathlib

from agent import errors
from agent.datapath.bpf import artifacts, packet_loader

QUERY, ANSWER, REPLAY = "nw_dns_query", "nw_dns_answer", "nw_dns_replay"
PROGRAMS = (QUERY, ANSWER, REPLAY)


class Variant(enum.Enum):
    """How the programs loop; the value is what status and logs call it."""

    LOOP = "bpf_loop"
    PLAIN = "plain loops"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What came of it."""

    variant: Variant
    refused: str = ""
    """Why the better variant was not loaded; "" where it was."""


def load(*, map_pins: pathlib.Path, program_pins: pathlib.Path) -> Loaded:
    """Load the programs and pin each under its name, over the maps pinned in `map_pins`.

    Raises NotSupported without libbpf, ProgramRejected where the kernel takes neither variant.
    """
    try:
        load_variant(Variant.LOOP, map_pins=map_pins, program_pins=program_pins)
    except errors.ProgramRejected as error:
        load_variant(Variant.PLAIN, map_pins=map_pins, program_pins=program_pins)
        return Loaded(variant=Variant.PLAIN, refused=str(error))
    return Loaded(variant=Variant.LOOP)


def load_variant(variant: Variant, *, map_pins: pathlib.Path, program_pins: pathlib.Path) -> None:
    """Load one variant. Raises NotSupported without libbpf, ProgramRejected."""
    found = artifacts.find()
    packet_loader.load(
        found.dns_object if variant is Variant.LOOP else found.dns_plain_object,
        kind=packet_loader.ProgramType.SCHED_CLS,
        map_pins=map_pins,
        program_pins=program_pins,
    )
