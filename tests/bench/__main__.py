"""`python -m tests.bench [NAME...]`: run benchmarks or groups of them, print a table, write build/bench.json.

Each benchmark's part of the table is kept in build/figures/bench-<name>.txt.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import sys
import time

from tests.bench import figures

IPTABLES = ("iptables_sets", "iptables_program", "iptables_edit", "iptables_forward")
BENCHMARKS = ("compile", "names", "dns", "source", "connect", "change", "verdicts", *IPTABLES)
GROUPS = {"iptables": IPTABLES}
TARGET = pathlib.Path("build")


def main(names: list[str]) -> None:
    """Run the named benchmarks and groups, everything by default."""
    wanted = [each for name in names or BENCHMARKS for each in GROUPS.get(name, (name,))]
    unknown = set(wanted) - set(BENCHMARKS)
    if unknown:
        known = ", ".join((*BENCHMARKS, *GROUPS))
        sys.exit(f"bench: no benchmark {', '.join(sorted(unknown))}: choose from {known}")
    found: list[figures.Figure] = []
    for name in wanted:
        begin = time.perf_counter()
        here = importlib.import_module(f"tests.bench.{name}").run()
        print(f"bench: {name} took {time.perf_counter() - begin:.1f} s", file=sys.stderr)
        _keep(TARGET / "figures" / f"bench-{name}.txt", figures.table(here) + "\n")
        found += here
    print(figures.table(found))
    lines = [dataclasses.asdict(figure) | {"ratio": figure.ratio} for figure in found]
    _keep(TARGET / "bench.json", json.dumps(lines, indent=1))


def _keep(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


main(sys.argv[1:])
