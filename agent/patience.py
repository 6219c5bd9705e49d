"""How much longer than usual to wait on a machine that is much slower than usual.

Under an emulator a program runs ten times slower, and every time-out that is generous elsewhere ends what works. The
rule: the environment variable NODEWALL_PATIENCE multiplies the time-outs of the lab, of its probes, of agentctl's
questions, of the loader of BPF programs and of the self-test of iptables. Nothing that decides about traffic may
depend on it.
"""

from __future__ import annotations

import math
import os

from agent import errors

ENVIRONMENT = "NODEWALL_PATIENCE"
"""A number from 1 on; 1 where it is not set."""


def seconds(usual: float) -> float:
    """Return how long to wait for what usually takes at most `usual` seconds. Raises InvalidInput."""
    text = os.environ.get(ENVIRONMENT) or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 <= factor < math.inf:
        raise errors.InvalidInput(field=ENVIRONMENT, value=text, remedy="write a number from 1 on, such as 10")
    return usual * factor
