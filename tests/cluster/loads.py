"""Processes that connect from inside pods for as long as something is done to the cluster, and say what came of it."""

from __future__ import annotations

import collections
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Self

from tests.cluster import inside, programs

STARTS_S = 30
PATIENCE_S = 5
ENDS_S = 30


class Loads:
    """A process in each of some pods; a context manager that ends them all."""

    def __init__(self, targets: Mapping[str, tuple[str, int]], *places: inside.Place) -> None:
        """Dial every target, over and over, from every place."""
        words = [f"{name}={address}:{port}" for name, (address, port) in targets.items()]
        script = ["-I", "-S", str(programs.ROOT / "tests" / "support" / "load.py"), str(PATIENCE_S), *words]
        self._places = places
        self._command = script
        self._running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        """Start, and return when all of them dial."""
        for place in self._places:
            self._running[place.party] = subprocess.Popen(
                place.python(*self._command),
                cwd=programs.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        for party, process in self._running.items():
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"the load in {party} ended with status {process.wait(STARTS_S)}")
        return self

    def __exit__(self, *_about: object) -> None:
        """End them."""
        for process in self._running.values():
            process.kill()
            process.communicate()

    def counted(self) -> dict[str, dict[str, collections.Counter[str]]]:
        """End them and return, by pod and target, how often each thing came; `ok` and names of errors."""
        found = {}
        for party, process in self._running.items():
            said, _ = process.communicate(timeout=ENDS_S)
            found[party] = {target: count(runs) for target, runs in json.loads(said).items()}
        self._running.clear()
        return found


def count(runs: Sequence[Sequence[object]]) -> collections.Counter[str]:
    """Add up what a load printed of one target."""
    counter: collections.Counter[str] = collections.Counter()
    for outcome, times, *_ in runs:
        counter[str(outcome)] += int(str(times))
    return counter
