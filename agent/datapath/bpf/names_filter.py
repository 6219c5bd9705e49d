"""The programs that iptables asks whether a name allows a packet (`bpf/names_filter.bpf.c`): pinned, not attached.

Rules name them by their pins, and each rule holds the program it found when it was written. So the pins of one build
stay where they are as long as rules may name them; another build's have another path, and make other rules.
"""

from __future__ import annotations

import pathlib

from agent.datapath.bpf import artifacts, packet_loader

NEW, OPEN, REPLY = "nw_names_new", "nw_names_open", "nw_names_reply"
PROGRAMS = (NEW, OPEN, REPLY)


def load(*, map_pins: pathlib.Path, program_pins: pathlib.Path) -> None:
    """Have them pinned, over the maps pinned in `map_pins`. Raises NotSupported without libbpf, ProgramRejected."""
    pins = [program_pins / name for name in PROGRAMS]
    if all(pin.exists() for pin in pins):
        return
    remove(program_pins)
    packet_loader.load(
        artifacts.find().names_object,
        kind=packet_loader.ProgramType.SOCKET_FILTER,
        map_pins=map_pins,
        program_pins=program_pins,
    )


def remove(program_pins: pathlib.Path) -> None:
    """Unpin them; what is not there is no error."""
    for name in PROGRAMS:
        (program_pins / name).unlink(missing_ok=True)
