"""What the kernel of this machine cannot do."""

from __future__ import annotations

import functools

from agent import errors
from agent.datapath.bpf import packet_loader


@functools.cache
def lacks_packet_layer() -> str:
    """Say why this kernel cannot have the packet layer of BPF; "" where it can, or where nobody may ask."""
    try:
        packet_loader.require_netfilter()
    except errors.NotSupported as error:
        return str(error)
    except errors.DatapathError:
        return ""
    return ""
